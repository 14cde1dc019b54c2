"""Recurring runs and releases against an API over a socket."""

import json
import sys
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
from counterweight import client, release, schedule, submit
from tests.helpers import kfp_server
from tests.helpers.kfp_server import KfpServer
from tests.integration.counterweight.conftest import Command

DATA = {"data": "gs://bucket/ham10000", "output": "gs://bucket/results"}
WEEKLY: dict[str, Any] = {"name": "weekly", "cron": "0 0 3 * * 1", "enabled": True, "preset": "cpu", "parameters": DATA}
NIGHTLY: dict[str, Any] = {**WEEKLY, "name": "nightly", "cron": "0 30 1 * * *", "preset": "demo"}


@pytest.fixture(autouse=True)
def compiled_once(package: submit.Package, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "compile_package", lambda local_images: package)


@pytest.fixture
def released(kfp: KfpServer, package: submit.Package) -> KfpServer:
    """An API with a released version."""
    pipeline = {"pipeline_id": "p", "display_name": schedule.RELEASES, "name": schedule.RELEASES}
    kfp.tables["pipelines"].append({**pipeline, "created_at": kfp.now()})
    version = {"pipeline_id": "p", "pipeline_version_id": "v1", "display_name": "one", "name": "one"}
    spec = kfp_server.uploaded_spec(package.content)
    kfp.tables["pipeline_versions"].append({**version, "pipeline_spec": spec, "created_at": kfp.now()})
    return kfp


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "schedules.yaml"


def write(file: Path, *entries: dict[str, Any], **top: Any) -> str:
    file.write_text(yaml.safe_dump({"schedules": list(entries), **top}))
    return f"FILE={file}"


def there(kfp: KfpServer) -> dict[str, dict[str, Any]]:
    rows = kfp.tables["recurring_runs"]
    assert len({row["display_name"] for row in rows}) == len(rows), "a schedule exists twice"
    return {row["display_name"]: row for row in rows}


def lines(out: str) -> list[str]:
    """Return the lines after the warning that this machine has no access to the bucket."""
    warning, *others = out.splitlines()
    assert warning.startswith("warning: the data was not checked from here: gs://bucket/ham10000: ")
    return others


def changes(kfp: KfpServer) -> int:
    return kfp.count("(POST|DELETE) ")


def test_schedule_first_sync_creates_the_recurring_runs(released: KfpServer, do: Command, file: Path):
    code, out, _ = do(schedule, write(file, WEEKLY, {**NIGHTLY, "enabled": False, "service_account": "runner"}))
    assert code == 0, out
    weekly, nightly = there(released)["weekly"], there(released)["nightly"]
    (experiment,) = released.tables["experiments"]
    assert weekly["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * 1"}}
    assert weekly["pipeline_version_reference"] == {"pipeline_id": "p", "pipeline_version_id": "v1"}
    assert (weekly["mode"], nightly["mode"]) == ("ENABLE", "DISABLE")
    assert (weekly["max_concurrency"], weekly["no_catchup"]) == ("1", True)
    assert weekly["experiment_id"] == experiment["experiment_id"]
    values = weekly["runtime_config"]["parameters"]
    assert values == submit.parameters.preset("cpu") | DATA
    assert (weekly.get("service_account"), nightly["service_account"]) == (None, "runner")


def test_schedule_service_account_of_the_environment_is_the_default(released: KfpServer, do: Command, file: Path):
    code = do(schedule, write(file, WEEKLY, {**NIGHTLY, "service_account": "other"}), "KFP_SERVICE_ACCOUNT=runner")[0]
    assert code == 0
    accounts = {name: row["service_account"] for name, row in there(released).items()}
    assert accounts == {"weekly": "runner", "nightly": "other"}


def test_schedule_same_file_again_changes_nothing(released: KfpServer, do: Command, file: Path):
    words = write(file, WEEKLY, NIGHTLY)
    do(schedule, words)
    before, count = json.dumps(released.tables["recurring_runs"]), changes(released)
    code, out, _ = do(schedule, words)
    assert (code, changes(released)) == (0, count)
    assert json.dumps(released.tables["recurring_runs"]) == before
    assert [line for line in lines(out) if not line.startswith("warning: ")] == [
        "keep weekly: 0 0 3 * * 1, on, version one",
        "keep nightly: 0 30 1 * * *, on, version one",
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"cron": "0 0 4 * * 1"},
        {"parameters": {**DATA, "random_seed": 2}},
        {"preset": "full"},
        {"experiment": "other"},
        {"service_account": "runner"},
    ],
)
def test_schedule_changed_entry_is_created_before_the_old_one_is_deleted(
    released: KfpServer, do: Command, file: Path, change: dict[str, Any]
):
    do(schedule, write(file, WEEKLY, NIGHTLY))
    old = {name: row["recurring_run_id"] for name, row in there(released).items()}
    released.asked.clear()
    assert do(schedule, write(file, {**WEEKLY, **change}, NIGHTLY))[0] == 0
    new = {name: row["recurring_run_id"] for name, row in there(released).items()}
    assert new["nightly"] == old["nightly"]
    assert new["weekly"] != old["weekly"]
    verbs = [method for method, path, _, _ in released.asked if "recurringruns" in path and method != "GET"]
    assert verbs == ["POST", "POST", "DELETE"]  # create, disable, delete


def test_schedule_switched_entry_keeps_the_recurring_run(released: KfpServer, do: Command, file: Path):
    do(schedule, write(file, WEEKLY))
    before = there(released)["weekly"]["recurring_run_id"]
    for enabled, mode in ((False, "DISABLE"), (True, "ENABLE")):
        assert do(schedule, write(file, {**WEEKLY, "enabled": enabled}))[0] == 0
        assert (there(released)["weekly"]["mode"], there(released)["weekly"]["recurring_run_id"]) == (mode, before)


def test_schedule_disabled_in_the_ui_is_enabled_again(released: KfpServer, do: Command, file: Path):
    words = write(file, WEEKLY)
    do(schedule, words)
    there(released)["weekly"]["mode"] = "DISABLE"
    out = do(schedule, words)[1]
    assert lines(out) == ["switch weekly on"]
    assert there(released)["weekly"]["mode"] == "ENABLE"


def test_schedule_removed_entry_is_deleted_and_others_are_kept(released: KfpServer, do: Command, file: Path):
    do(schedule, write(file, WEEKLY, NIGHTLY))
    theirs = [
        {"description": "by hand"},
        {},
        {"description": "counterweight schedule: weekly of pipeline another, specification 0123456789abcdef."},
    ]
    for number, rest in enumerate(theirs):
        row = {"recurring_run_id": f"theirs-{number}", "display_name": f"theirs-{number}", "created_at": released.now()}
        released.tables["recurring_runs"].append(row | rest)
    assert do(schedule, write(file))[0] == 0
    assert sorted(there(released)) == ["theirs-0", "theirs-1", "theirs-2"]


def test_schedule_dry_run_prints_and_changes_nothing(released: KfpServer, do: Command, file: Path):
    out = do(schedule, write(file, WEEKLY), "DRY_RUN=1")[1]
    assert lines(out) == ["would create weekly: 0 0 3 * * 1, on, version one"]
    assert changes(released) == 0
    do(schedule, write(file, WEEKLY, NIGHTLY))
    count = changes(released)
    out = do(schedule, write(file, {**WEEKLY, "cron": "0 0 4 * * 1"}), "DRY_RUN=1")[1]
    assert lines(out) == ["would replace weekly: 0 0 4 * * 1, on, version one", "would delete nightly"]
    assert changes(released) == count


@pytest.mark.parametrize("path", ["POST .*/recurringruns", "DELETE .*/recurringruns", "GET .*/recurringruns"])
@pytest.mark.parametrize("kind", ["drop", "lose", "half"])
def test_schedule_lost_answer_creates_nothing_twice(released: KfpServer, do: Command, file: Path, path: str, kind: str):
    do(schedule, write(file, WEEKLY, NIGHTLY))
    released.fault(path, kind)
    code, _, err = do(schedule, write(file, {**WEEKLY, "cron": "0 0 4 * * 1"}, NIGHTLY))
    assert code == 0, err
    assert not released.faults[0].times
    assert {name: row["trigger"]["cron_schedule"]["cron"] for name, row in there(released).items()} == {
        "weekly": "0 0 4 * * 1",
        "nightly": "0 30 1 * * *",
    }


@pytest.mark.parametrize("after", range(1, 11))
def test_schedule_interrupted_sync_loses_nothing_and_is_completed(
    released: KfpServer, do: Command, file: Path, after: int, monkeypatch: pytest.MonkeyPatch
):
    """The server becomes unreachable after a number of requests about recurring runs."""
    do(schedule, write(file, WEEKLY, NIGHTLY))
    monkeypatch.setattr(client, "CALL_LIMIT_S", 0.1)
    changed = write(file, {**WEEKLY, "cron": "0 0 4 * * 1"}, {**NIGHTLY, "cron": "0 0 5 * * *"})
    released.asked.clear()
    original = KfpServer.handle

    def dies(self: KfpServer, method: str, target: str, body: object) -> object:
        if self.count(".*recurringruns") >= after:
            self.fault(".*", "drop", times=99)
        return original(self, method, target, body)

    with monkeypatch.context() as patch:
        patch.setattr(KfpServer, "handle", dies)
        code = do(schedule, changed)[0]
    assert code in (0, 5)
    assert {row["display_name"] for row in released.tables["recurring_runs"]} == {"weekly", "nightly"}
    released.faults.clear()
    monkeypatch.setattr(client, "CALL_LIMIT_S", 5)
    assert do(schedule, changed)[0] == 0
    assert {row["trigger"]["cron_schedule"]["cron"] for row in there(released).values()} == {
        "0 0 4 * * 1",
        "0 0 5 * * *",
    }


def test_schedule_two_equal_ones_become_one(released: KfpServer, do: Command, file: Path):
    words = write(file, WEEKLY)
    do(schedule, words)
    first = released.tables["recurring_runs"][0]
    released.tables["recurring_runs"].append({**first, "recurring_run_id": "later", "created_at": released.now()})
    assert do(schedule, words)[0] == 0
    assert there(released)["weekly"]["recurring_run_id"] == first["recurring_run_id"]


def test_schedule_on_a_later_page_is_kept(released: KfpServer, do: Command, file: Path):
    row = {"display_name": "x", "created_at": "2020-01-01T00:00:00Z"}
    released.tables["recurring_runs"].extend({**row, "recurring_run_id": f"theirs-{n}"} for n in range(250))
    words = write(file, WEEKLY)
    for _ in range(2):
        assert do(schedule, words)[0] == 0
    assert len(released.tables["recurring_runs"]) == 251


def start_run(kfp: KfpServer, recurring: dict[str, Any], run_id: str = "running") -> dict[str, Any]:
    """Add a run in progress that a recurring run started."""
    row = {"run_id": run_id, "display_name": run_id, "state": "RUNNING", "created_at": kfp.now()}
    row |= {key: recurring[key] for key in ("recurring_run_id", "experiment_id")}
    kfp.tables["runs"].append(row)
    return row


def test_schedule_with_a_run_in_progress_is_disabled_and_deleted_later(released: KfpServer, do: Command, file: Path):
    """Kubeflow deletes the workflow of the run in progress with the recurring run."""
    do(schedule, write(file, WEEKLY))
    old = released.tables["recurring_runs"][0]
    run = start_run(released, old)
    changed = write(file, {**WEEKLY, "cron": "0 0 4 * * 1"})
    code, out, _ = do(schedule, changed)
    rows = released.tables["recurring_runs"]
    assert (code, [row["mode"] for row in rows]) == (0, ["DISABLE", "ENABLE"])
    assert "disable weekly, the old one: run running is in progress" in out
    out = do(schedule, changed, "DRY_RUN=1")[1]
    assert "would disable weekly" in out
    run["state"] = "SUCCEEDED"
    assert do(schedule, changed)[0] == 0
    assert there(released)["weekly"]["trigger"]["cron_schedule"]["cron"] == "0 0 4 * * 1"


def test_schedule_run_that_starts_while_it_is_disabled_is_kept(
    released: KfpServer, do: Command, file: Path, monkeypatch: pytest.MonkeyPatch
):
    """Kubeflow lists a run a moment after it has started it."""
    do(schedule, write(file, WEEKLY))
    (old,) = released.tables["recurring_runs"]

    def start_late(seconds: float) -> None:
        if old["mode"] == "DISABLE":
            start_run(released, old)

    monkeypatch.setattr(schedule.time, "sleep", start_late)
    out = do(schedule, write(file))[1]
    assert "disable weekly" in out
    assert released.tables["recurring_runs"] == [old]


def test_schedule_changed_back_enables_the_old_one(released: KfpServer, do: Command, file: Path):
    do(schedule, write(file, WEEKLY))
    old = released.tables["recurring_runs"][0]["recurring_run_id"]
    start_run(released, released.tables["recurring_runs"][0])
    do(schedule, write(file, {**WEEKLY, "cron": "0 0 4 * * 1"}))
    assert do(schedule, write(file, WEEKLY))[0] == 0
    assert (there(released)["weekly"]["recurring_run_id"], there(released)["weekly"]["mode"]) == (old, "ENABLE")


def test_schedule_without_a_release_is_refused(kfp: KfpServer, file: Path):
    with pytest.raises(UserError) as caught:
        schedule.run([write(file, WEEKLY)], sys.stdout)
    assert (caught.value.code, changes(kfp)) == ("schedule.no_release", 0)


def test_release_uploads_a_version_and_pins_the_schedules_to_it(kfp: KfpServer, do: Command, file: Path):
    words = write(file, WEEKLY)
    first, *_ = lines(do(release, words, "DRY_RUN=1")[1])
    assert first.startswith("would release version ")
    assert changes(kfp) == 0
    code, _, err = do(release, words)
    assert code == 0, err
    (version,) = kfp.tables["pipeline_versions"]
    reference = {key: version[key] for key in ("pipeline_id", "pipeline_version_id")}
    assert there(kfp)["weekly"]["pipeline_version_reference"] == reference
    assert kfp.tables["pipelines"][0]["display_name"] == schedule.RELEASES
    count = changes(kfp)
    assert "is released already" in do(release, words)[1]
    assert changes(kfp) == count


def test_release_replaces_schedules_and_submit_does_not(
    kfp: KfpServer, do: Command, file: Path, package: submit.Package, monkeypatch: pytest.MonkeyPatch
):
    words = write(file, WEEKLY)
    do(release, words)
    before = there(kfp)["weekly"]["recurring_run_id"]
    other = submit.Package(package.name, "other", package.content + b"# other\n", package.defaults)
    monkeypatch.setattr(submit, "compile_package", lambda local_images: other)
    do(submit)
    assert do(schedule, words)[0] == 0
    assert there(kfp)["weekly"]["recurring_run_id"] == before
    monkeypatch.setattr(release, "compile_package", lambda local_images: other)
    assert do(release, words)[0] == 0
    assert there(kfp)["weekly"]["recurring_run_id"] != before


def test_release_of_an_earlier_version_becomes_the_newest(
    kfp: KfpServer, do: Command, file: Path, package: submit.Package, monkeypatch: pytest.MonkeyPatch
):
    words = write(file, WEEKLY)
    do(release, words)
    other = submit.Package(package.name, "other", package.content + b"# other\n", package.defaults)
    monkeypatch.setattr(release, "compile_package", lambda local_images: other)
    do(release, words)
    monkeypatch.setattr(release, "compile_package", lambda local_images: package)
    assert do(release, words)[0] == 0
    versions = [version["name"] for version in kfp.tables["pipeline_versions"]]
    assert versions[:2] == [package.version, "other"]
    assert versions[2].startswith(f"{package.version}-")
    newest = kfp.tables["pipeline_versions"][2]["pipeline_version_id"]
    assert there(kfp)["weekly"]["pipeline_version_reference"]["pipeline_version_id"] == newest


@pytest.mark.parametrize(
    ("cron", "field"),
    [
        ("0 3 * * 1", ""),
        ("CRON_TZ=Europe/Vienna 0 0 3 * * 1", ""),
        ("@daily", ""),
        ("* 0 3 * * 1", "second"),
        ("0 0 24 * * 1", "hour"),
        ("0 0 3 * * 7", "day of week"),
        ("0 0 3 0 * *", "day of month"),
        ("0 0 3 * fee *", "month"),
        ("0 0-60 3 * * *", "minute"),
        ("0 */0 3 * * *", "minute"),
        ("0 5-3 3 * * *", "minute"),
        ("0 1,,2 3 * * *", "minute"),
        ("0 0 3 31 2,4 *", "day of month"),
    ],
)
def test_schedule_invalid_cron_names_the_field(released: KfpServer, file: Path, cron: str, field: str):
    with pytest.raises(UserError) as caught:
        schedule.run([write(file, {**WEEKLY, "cron": cron})], sys.stdout)
    assert (caught.value.code, caught.value.fields) == ("schedule.invalid_cron", {"cron": cron, "field": field})
    assert released.asked == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"time_zone": "Europe/Vienna"}, "schedule.other_time_zone"),
        ({"time_zone": "Europe/Wien"}, "schedule.unknown_zone"),
        ({"time_zone": "../../etc/passwd"}, "schedule.unknown_zone"),
        ({"name": "Weekly run"}, "schedule.invalid_entry"),
        ({"preset": "gpu"}, "preset.unknown"),
        ({"parameters": {**DATA, "sede": 1}}, "parameter.unknown"),
        ({"parameters": {**DATA, "gan_kimg": 0}}, "parameter.invalid"),
        ({"parameters": {**DATA, "data": "~/ham"}}, "parameter.unreachable"),
        ({"parameters": {"classifier_seeds": [1, 1]}}, "parameter.invalid"),
        ({"enabled": "maybe"}, "schedule.invalid_entry"),
        ({"concurrency": 5}, "schedule.invalid_entry"),
    ],
)
def test_schedule_invalid_entry_is_reported_before_anything_is_sent(
    released: KfpServer, file: Path, change: dict[str, Any], code: str
):
    with pytest.raises(UserError) as caught:
        schedule.run([write(file, {**WEEKLY, **change})], sys.stdout)
    assert (caught.value.code, bool(caught.value.hint), released.asked) == (code, True, [])


def test_schedule_repeated_name_is_refused(released: KfpServer, file: Path):
    with pytest.raises(UserError) as caught:
        schedule.run([write(file, WEEKLY, WEEKLY)], sys.stdout)
    assert caught.value.code == "schedule.repeated"


def test_schedule_time_zone_equal_to_the_clusters_is_accepted(released: KfpServer, do: Command, file: Path):
    entry = {**WEEKLY, "time_zone": "Europe/Vienna"}
    assert do(schedule, write(file, entry, cluster_time_zone="Europe/Berlin"))[0] == 0
    assert there(released)["weekly"]["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * 1"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("UTC", "Etc/GMT", True),
        ("Europe/Vienna", "Europe/Berlin", True),
        ("Europe/London", "UTC", False),  # equal in winter only
        ("Europe/Vienna", "America/New_York", False),
        ("Africa/Lagos", "Europe/Vienna", False),
    ],
)
def test_same_time_requires_equal_clocks_all_year(one: str, other: str, same: bool):
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
def test_check_cron_valid_expression_is_accepted(cron: str):
    schedule.check_cron(cron, "here")


@given(st.lists(st.text("0123456789*/-,?am ", max_size=5), min_size=5, max_size=7))
def test_check_cron_random_text_raises_only_user_errors(fields: list[str]):
    with suppress(UserError):
        schedule.check_cron(" ".join(["0", *fields]), "here")


def test_schedule_file_of_the_repository_is_valid_and_disabled(released: KfpServer, do: Command):
    assert do(schedule)[0] == 0
    assert {row["mode"] for row in released.tables["recurring_runs"]} == {"DISABLE"}
