"""Recurring runs against an API over a socket."""

import json
import re
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from components.shared.errors import UserError
from counterweight import client, schedule, submit
from tests.helpers.kfp_server import KfpServer
from tests.integration.counterweight.conftest import Command

DATA = {"data": "gs://bucket/ham10000", "output": "gs://bucket/results"}
WEEKLY: dict[str, Any] = {"name": "weekly", "cron": "0 0 3 * * 1", "enabled": True, "preset": "cpu", "parameters": DATA}
NIGHTLY: dict[str, Any] = {**WEEKLY, "name": "nightly", "cron": "0 30 1 * * *", "preset": "demo"}


@pytest.fixture(scope="module")
def package() -> submit.Package:
    return submit.compiled()


@pytest.fixture(autouse=True)
def compiled_once(package: submit.Package, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "compiled", lambda: package)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "schedules.yaml"


def write(file: Path, *entries: dict[str, Any], **top: Any) -> str:
    file.write_text(yaml.safe_dump({"schedules": list(entries), **top}))
    return f"FILE={file}"


def there(kfp: KfpServer) -> dict[str, dict[str, Any]]:
    rows = kfp.tables["recurring_runs"]
    assert len({row["display_name"] for row in rows}) == len(rows), "one stands there twice"
    return {row["display_name"]: row for row in rows}


def changes(kfp: KfpServer) -> int:
    return kfp.count("(POST|DELETE) ")


def test_an_empty_cluster_gets_the_pipeline_and_its_schedules(kfp: KfpServer, do: Command, file: Path):
    code, out, _ = do(schedule, write(file, WEEKLY, {**NIGHTLY, "enabled": False, "service_account": "runner"}))
    assert code == 0, out
    weekly, nightly = there(kfp)["weekly"], there(kfp)["nightly"]
    (pipeline,) = kfp.tables["pipelines"]
    (experiment,) = kfp.tables["experiments"]
    assert weekly["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * 1"}}
    assert weekly["pipeline_version_reference"] == {"pipeline_id": pipeline["pipeline_id"]}
    assert (weekly["mode"], nightly["mode"]) == ("ENABLE", "DISABLE")
    assert (weekly["max_concurrency"], weekly["no_catchup"]) == ("1", True)
    assert weekly["experiment_id"] == experiment["experiment_id"]
    values = weekly["runtime_config"]["parameters"]
    assert values == submit.parameters.preset("cpu") | DATA
    assert (weekly.get("service_account"), nightly["service_account"]) == (None, "runner")


def test_the_service_account_of_the_environment_is_the_schedules_too(kfp: KfpServer, do: Command, file: Path):
    code = do(schedule, write(file, WEEKLY, {**NIGHTLY, "service_account": "other"}), "KFP_SERVICE_ACCOUNT=runner")[0]
    assert code == 0
    accounts = {name: row["service_account"] for name, row in there(kfp).items()}
    assert accounts == {"weekly": "runner", "nightly": "other"}


def test_the_same_file_again_changes_nothing(kfp: KfpServer, do: Command, file: Path):
    words = write(file, WEEKLY, NIGHTLY)
    do(schedule, words)
    before, count = json.dumps(kfp.tables["recurring_runs"]), changes(kfp)
    code, out, _ = do(schedule, words)
    assert (code, changes(kfp)) == (0, count)
    assert json.dumps(kfp.tables["recurring_runs"]) == before
    assert out.splitlines() == ["keep weekly: 0 0 3 * * 1, on", "keep nightly: 0 30 1 * * *, on"]


@pytest.mark.parametrize(
    "change",
    [
        {"cron": "0 0 4 * * 1"},
        {"parameters": {**DATA, "seed": 2}},
        {"preset": "full"},
        {"experiment": "other"},
        {"service_account": "runner"},
    ],
)
def test_what_changed_is_replaced_the_new_one_first(kfp: KfpServer, do: Command, file: Path, change: dict[str, Any]):
    do(schedule, write(file, WEEKLY, NIGHTLY))
    old = {name: row["recurring_run_id"] for name, row in there(kfp).items()}
    kfp.asked.clear()
    assert do(schedule, write(file, {**WEEKLY, **change}, NIGHTLY))[0] == 0
    new = {name: row["recurring_run_id"] for name, row in there(kfp).items()}
    assert new["nightly"] == old["nightly"]
    assert new["weekly"] != old["weekly"]
    verbs = [method for method, path, _, _ in kfp.asked if "recurringruns" in path and method != "GET"]
    assert verbs == ["POST", "DELETE"]


def test_on_and_off_keep_the_recurring_run(kfp: KfpServer, do: Command, file: Path):
    do(schedule, write(file, WEEKLY))
    before = there(kfp)["weekly"]["recurring_run_id"]
    for enabled, mode in ((False, "DISABLE"), (True, "ENABLE")):
        assert do(schedule, write(file, {**WEEKLY, "enabled": enabled}))[0] == 0
        assert (there(kfp)["weekly"]["mode"], there(kfp)["weekly"]["recurring_run_id"]) == (mode, before)


def test_somebody_who_switched_one_off_in_the_ui_is_overruled(kfp: KfpServer, do: Command, file: Path):
    words = write(file, WEEKLY)
    do(schedule, words)
    there(kfp)["weekly"]["mode"] = "DISABLE"
    out = do(schedule, words)[1]
    assert out == "switch weekly on\n"
    assert there(kfp)["weekly"]["mode"] == "ENABLE"


def test_what_is_not_in_the_file_is_deleted_if_it_is_ours(kfp: KfpServer, do: Command, file: Path):
    do(schedule, write(file, WEEKLY, NIGHTLY))
    theirs = [
        {"description": "by hand"},
        {},
        {"description": "counterweight schedule: weekly of pipeline another, specification 0123456789abcdef."},
    ]
    for number, rest in enumerate(theirs):
        row = {"recurring_run_id": f"theirs-{number}", "display_name": f"theirs-{number}", "created_at": kfp.now()}
        kfp.tables["recurring_runs"].append(row | rest)
    assert do(schedule, write(file))[0] == 0
    assert sorted(there(kfp)) == ["theirs-0", "theirs-1", "theirs-2"]


def test_a_dry_run_says_it_and_does_nothing(kfp: KfpServer, do: Command, file: Path):
    out = do(schedule, write(file, WEEKLY), "DRY_RUN=1")[1]
    assert re.fullmatch(r"would upload pipeline \S+, version \S+\nwould create weekly: 0 0 3 \* \* 1, on\n", out)
    assert changes(kfp) == 0
    do(schedule, write(file, WEEKLY, NIGHTLY))
    count = changes(kfp)
    out = do(schedule, write(file, {**WEEKLY, "cron": "0 0 4 * * 1"}), "DRY_RUN=1")[1]
    assert out == "would replace weekly: 0 0 4 * * 1, on\nwould delete nightly\n"
    assert changes(kfp) == count


@pytest.mark.parametrize("path", ["POST .*/recurringruns", "DELETE .*/recurringruns", "GET .*/recurringruns"])
@pytest.mark.parametrize("kind", ["drop", "lose", "half"])
def test_lost_answers_leave_no_second_one(kfp: KfpServer, do: Command, file: Path, path: str, kind: str):
    do(schedule, write(file, WEEKLY, NIGHTLY))
    kfp.fault(path, kind)
    code, _, err = do(schedule, write(file, {**WEEKLY, "cron": "0 0 4 * * 1"}, NIGHTLY))
    assert code == 0, err
    assert not kfp.faults[0].times
    assert {name: row["trigger"]["cron_schedule"]["cron"] for name, row in there(kfp).items()} == {
        "weekly": "0 0 4 * * 1",
        "nightly": "0 30 1 * * *",
    }


@pytest.mark.parametrize("after", range(1, 8))
def test_wherever_it_dies_no_schedule_is_lost_and_the_next_one_completes_it(
    kfp: KfpServer, do: Command, file: Path, after: int, monkeypatch: pytest.MonkeyPatch
):
    """The server goes away after so many requests about recurring runs."""
    do(schedule, write(file, WEEKLY, NIGHTLY))
    monkeypatch.setattr(client, "PATIENCE_S", 0.1)
    changed = write(file, {**WEEKLY, "cron": "0 0 4 * * 1"}, {**NIGHTLY, "cron": "0 0 5 * * *"})
    kfp.asked.clear()
    original = KfpServer.handle

    def dies(self: KfpServer, method: str, target: str, body: object) -> object:
        if self.count(".*recurringruns") >= after:
            self.fault(".*", "drop", times=99)
        return original(self, method, target, body)

    with monkeypatch.context() as patch:
        patch.setattr(KfpServer, "handle", dies)
        code = do(schedule, changed)[0]
    assert code in (0, 5)
    assert {row["display_name"] for row in kfp.tables["recurring_runs"]} == {"weekly", "nightly"}
    kfp.faults.clear()
    monkeypatch.setattr(client, "PATIENCE_S", 5)
    assert do(schedule, changed)[0] == 0
    assert {row["trigger"]["cron_schedule"]["cron"] for row in there(kfp).values()} == {"0 0 4 * * 1", "0 0 5 * * *"}


def test_two_of_the_same_become_one(kfp: KfpServer, do: Command, file: Path):
    words = write(file, WEEKLY)
    do(schedule, words)
    first = kfp.tables["recurring_runs"][0]
    kfp.tables["recurring_runs"].append({**first, "recurring_run_id": "later", "created_at": kfp.now()})
    assert do(schedule, words)[0] == 0
    assert there(kfp)["weekly"]["recurring_run_id"] == first["recurring_run_id"]


def test_ours_are_found_on_later_pages(kfp: KfpServer, do: Command, file: Path):
    row = {"display_name": "x", "created_at": "2020-01-01T00:00:00Z"}
    kfp.tables["recurring_runs"].extend({**row, "recurring_run_id": f"theirs-{n}"} for n in range(250))
    words = write(file, WEEKLY)
    for _ in range(2):
        assert do(schedule, words)[0] == 0
    assert len(kfp.tables["recurring_runs"]) == 251


def test_a_new_pipeline_of_the_same_name_gets_new_schedules(kfp: KfpServer, do: Command, file: Path):
    words = write(file, WEEKLY)
    do(schedule, words)
    before = there(kfp)["weekly"]["recurring_run_id"]
    for table in ("pipelines", "pipeline_versions"):
        kfp.tables[table].clear()
    assert do(schedule, words)[0] == 0
    assert there(kfp)["weekly"]["recurring_run_id"] != before
    assert (
        there(kfp)["weekly"]["pipeline_version_reference"]["pipeline_id"] == (kfp.tables["pipelines"][0]["pipeline_id"])
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"cron": "0 3 * * 1"}, "give six fields, second, minute"),
        ({"cron": "CRON_TZ=Europe/Vienna 0 0 3 * * 1"}, "give six fields"),
        ({"cron": "@daily"}, "give six fields"),
        ({"cron": "* 0 3 * * 1"}, "begins with seconds; give one number"),
        ({"cron": "0 0 24 * * 1"}, "whose hour is '24'; give numbers from 0 to 23"),
        ({"cron": "0 0 3 * * 7"}, "whose day of week is '7'"),
        ({"cron": "0 0 3 0 * *"}, "whose day of month is '0'"),
        ({"cron": "0 0 3 * fee *"}, "whose month is 'fee'"),
        ({"cron": "0 0-60 3 * * *"}, "whose minute is '0-60'"),
        ({"cron": "0 */0 3 * * *"}, "whose minute is '*/0'"),
        ({"cron": "0 5-3 3 * * *"}, "whose minute is '5-3'"),
        ({"cron": "0 1,,2 3 * * *"}, "whose minute is '1,,2'"),
        ({"cron": "0 0 3 31 2,4 *"}, "and that day never comes"),
        (
            {"time_zone": "Europe/Vienna"},
            "its time zone is Europe/Vienna, but Kubeflow reads every cron in one, here UTC",
        ),
        ({"time_zone": "Europe/Wien"}, "there is no time zone 'Europe/Wien'"),
        ({"time_zone": "../../etc/passwd"}, "there is no time zone"),
        ({"name": "Weekly run"}, "schedules.0.name can't be used"),
        ({"preset": "gpu"}, "schedule weekly: PRESET is 'gpu'"),
        ({"parameters": {**DATA, "sede": 1}}, "schedule weekly: parameters: sede is not a parameter"),
        ({"parameters": {**DATA, "data": "~/ham"}}, "schedule weekly: data is '~/ham', which a cluster can't reach"),
        ({"parameters": {}}, "schedule weekly: output is 'runs/output', which a cluster can't reach"),
        ({"enabled": "maybe"}, "schedules.0.enabled can't be used"),
        ({"concurrency": 5}, "schedules.0.concurrency can't be used (Extra inputs are not permitted)"),
    ],
)
def test_a_mistake_comes_out_before_anything_is_sent(
    kfp: KfpServer, do: Command, file: Path, change: dict[str, Any], sentence: str
):
    code, _, err = do(schedule, write(file, {**WEEKLY, **change}))
    assert code == 2
    assert sentence in err
    assert kfp.asked == []


def test_the_same_name_twice_is_refused(kfp: KfpServer, do: Command, file: Path):
    code, _, err = do(schedule, write(file, WEEKLY, WEEKLY))
    assert (code, "schedule weekly stands twice" in err) == (2, True)


def test_a_zone_that_is_the_clusters_is_taken(kfp: KfpServer, do: Command, file: Path):
    entry = {**WEEKLY, "time_zone": "Europe/Vienna"}
    assert do(schedule, write(file, entry, cluster_time_zone="Europe/Berlin"))[0] == 0
    assert there(kfp)["weekly"]["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * 1"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("UTC", "Etc/GMT", True),
        ("Europe/Vienna", "Europe/Berlin", True),
        ("Europe/London", "UTC", False),  # the same in winter only
        ("Europe/Vienna", "America/New_York", False),
        ("Africa/Lagos", "Europe/Vienna", False),
    ],
)
def test_zones_are_the_same_if_they_are_all_year(one: str, other: str, same: bool):
    for month in (1, 7):
        assert schedule.same_time(ZoneInfo(one), ZoneInfo(other), datetime(2026, month, 1, tzinfo=UTC)) == same


@pytest.mark.parametrize(
    "cron",
    [
        "0 0 3 * * 1",
        "30 */15 8-18/2 1,15 jan-jun MON-fri",
        "0 0 0 29 2 ?",
        "0 5/10 * ? * *",
        "0 0 3 31 * 0",
        "0 0 3 31 2 1",
    ],
)
def test_crons_that_kubeflow_takes(cron: str):
    schedule.check_cron(cron, "here")


@given(st.lists(st.text("0123456789*/-,?am ", max_size=5), min_size=5, max_size=7))
def test_no_cron_is_a_bug(fields: list[str]):
    with suppress(UserError):
        schedule.check_cron(" ".join(["0", *fields]), "here")


def test_the_file_in_the_repository_is_off_and_can_be_used(kfp: KfpServer, do: Command):
    assert do(schedule)[0] == 0
    assert {row["mode"] for row in kfp.tables["recurring_runs"]} == {"DISABLE"}
