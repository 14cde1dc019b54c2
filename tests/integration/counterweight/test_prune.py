"""Listing and removing what Counterweight created, against an API over a socket."""

import sys
from typing import Any

import pytest

from components.shared.errors import UserError
from counterweight import prune, schedule
from tests.helpers.kfp_server import KfpServer
from tests.integration.counterweight.conftest import Command

OLD, NEW = "2026-01-01T00:00:00Z", "2999-01-01T00:00:00Z"


@pytest.fixture
def filled(kfp: KfpServer) -> KfpServer:
    """An API with old and new runs, versions and schedules, and those of others."""
    for key, name in (("p", schedule.PIPELINE), ("r", schedule.RELEASES), ("x", "other")):
        kfp.tables["pipelines"].append({"pipeline_id": key, "display_name": name, "name": name, "created_at": OLD})
    for key, version in (("p", "unused"), ("p", "running"), ("r", "scheduled"), ("r", "released"), ("x", "other")):
        row = {"pipeline_id": key, "pipeline_version_id": version, "display_name": version, "created_at": OLD}
        kfp.tables["pipeline_versions"].append(
            {**row, "created_at": "2026-01-02T00:00:00Z" if version == "released" else OLD}
        )
    add_run(kfp, "finished", "SUCCEEDED")
    add_run(kfp, "unfinished", "RUNNING", version="running")
    add_run(kfp, "recent", "FAILED", created_at=NEW)
    add_run(kfp, "foreign", "SUCCEEDED", pipeline="x")
    for name, mark in (
        ("weekly", f"counterweight schedule: weekly of pipeline {schedule.PIPELINE}, specification {'0' * 16}"),
        ("by-hand", ""),
    ):
        row = {"recurring_run_id": name, "display_name": name, "description": mark, "mode": "ENABLE", "created_at": OLD}
        row["pipeline_version_reference"] = {"pipeline_id": "r", "pipeline_version_id": "scheduled"}
        kfp.tables["recurring_runs"].append(row)
    return kfp


def add_run(kfp: KfpServer, name: str, state: str, pipeline: str = "p", version: str = "gone", **rest: Any) -> None:
    reference = {"pipeline_id": pipeline, "pipeline_version_id": version}
    row = {"run_id": name, "display_name": name, "state": state, "created_at": OLD, "asked": 0}
    kfp.tables["runs"].append({**row, "pipeline_version_reference": reference, **rest})


def names(kfp: KfpServer, table: str) -> list[str]:
    return [row["display_name"] for row in kfp.tables[table]]


def test_prune_without_options_lists_everything_of_this_tool(filled: KfpServer, do: Command):
    code, out, _ = do(prune)
    lines = [(line.split()[0], line.split()[-1]) for line in out.splitlines()]
    assert code == 0
    assert lines == [
        *(("run", name) for name in ("recent", "finished", "unfinished")),
        *(("version", name) for name in ("released", "unused", "running", "scheduled")),
        ("schedule", "weekly"),
    ]
    assert "unused  " in next(line for line in out.splitlines() if line.endswith(" unused"))
    assert filled.count("DELETE") == 0


def test_prune_remove_deletes_old_finished_runs_and_unused_versions(filled: KfpServer, do: Command):
    code, out, err = do(prune, "REMOVE=runs,versions")
    assert code == 0, err
    assert names(filled, "runs") == ["unfinished", "recent", "foreign"]
    assert names(filled, "pipeline_versions") == ["running", "scheduled", "released", "other"]
    assert out == "remove run finished (2026-01-01 00:00)\nremove version unused (2026-01-01 00:00)\n"


def test_prune_remove_schedules_keeps_one_with_a_run_in_progress(filled: KfpServer, do: Command):
    filled.tables["runs"][1]["recurring_run_id"] = "weekly"
    out = do(prune, "REMOVE=schedules")[1]
    assert "disable schedule weekly" in out
    assert filled.tables["recurring_runs"][0]["mode"] == "DISABLE"
    filled.tables["runs"][1]["state"] = "SUCCEEDED"
    assert do(prune, "REMOVE=schedules")[0] == 0
    assert names(filled, "recurring_runs") == ["by-hand"]


def test_prune_remove_run_that_never_finishes_its_cancellation(filled: KfpServer, do: Command):
    """As recorded: the workflow of the run was deleted with its schedule, and the run was terminated."""
    filled.tables["runs"][1] |= {"recurring_run_id": "weekly", "state": "CANCELING"}
    out = do(prune, "REMOVE=runs,schedules")[1]
    assert "remove run unfinished" in out
    assert "remove schedule weekly" in out


def test_prune_dry_run_removes_nothing(filled: KfpServer, do: Command):
    out = do(prune, "REMOVE=runs,versions,schedules", "DRY_RUN=1")[1]
    assert [line.split()[:3] for line in out.splitlines()] == [
        ["would", "remove", "run"],
        ["would", "remove", "version"],
        ["would", "remove", "schedule"],
    ]
    assert filled.count("DELETE|POST") == 0


def test_prune_lost_answer_of_a_removal_is_a_success(filled: KfpServer, do: Command):
    filled.fault("DELETE .*/runs/", "lose")
    assert do(prune, "REMOVE=runs")[0] == 0
    assert "finished" not in names(filled, "runs")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["REMOVE=everything"], "prune.unknown_kind"),
        (["OLDER=soon"], "prune.invalid_age"),
        (["DRY_RUN=maybe"], "arguments.invalid_switch"),
    ],
)
def test_prune_invalid_option_is_a_user_error(kfp: KfpServer, words: list[str], code: str):
    with pytest.raises(UserError) as caught:
        prune.run(words, sys.stdout)
    assert (caught.value.code, kfp.asked) == (code, [])
