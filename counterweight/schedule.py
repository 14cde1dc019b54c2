"""Synchronise recurring runs with a file.

Recurring runs start the released version of the pipeline (`counterweight/release.py`). Only recurring runs that this
command created for this pipeline, identified by their description, are changed or deleted. Kubeflow cannot change one
except for its switch: a new one is created before the old one is deleted, so that no schedule is lost if this command
is interrupted. An old one with a run in progress is disabled and deleted later, because Kubeflow deletes the run's
workflow with it.
"""

import hashlib
import json
import os
import re
import time
import zoneinfo
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, TextIO

import kfp_server_api
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.shared.errors import UserError
from components.shared.records import describe_invalid
from counterweight import parameters
from counterweight.client import Api, RejectedError, settings
from counterweight.logs import switch
from counterweight.submit import (
    DATA_PARAMETERS,
    ROOT,
    add_location,
    check_data,
    check_parameters,
    check_values,
    find_or_create_experiment,
    find_pipeline,
    in_namespace,
    read_yaml,
)

DEFAULT = ROOT / "manifests" / "schedules.yaml"
PIPELINE = "counterweight"
RELEASES = f"{PIPELINE}-released"
"""The pipeline on the cluster whose newest version the recurring runs start; trials upload to another one."""
UNFINISHED = ("PENDING", "RUNNING", "PAUSED")
"""States of a run that must not be harmed. A run whose workflow was deleted stays in CANCELING after `terminate`."""
SETTLE_S = 2.0
"""Pause after a recurring run is disabled: Kubeflow may be starting a run of it, which it lists a moment later."""

_MARK = re.compile(r"counterweight schedule: (\S+) of pipeline (\S+), specification ([0-9a-f]{16})\b")
_FIELDS = ("second", "minute", "hour", "day of month", "month", "day of week")
_BOUNDS = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_NAMES: tuple[dict[str, int], ...] = (
    *({},) * 4,
    {name: number for number, name in enumerate(_MONTHS, 1)},
    {name: number for number, name in enumerate(_DAYS)},
)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Schedule(_Strict):
    """One recurring run.

    Attributes:
        name: display name; unique.
        cron: six fields, seconds first.
        time_zone: of the cron expression; the cluster's by default.
        preset: as for a local run.
        parameters: take precedence over the preset.
        enabled: whether it starts runs.
        experiment: of its runs; the pipeline's name by default.
        service_account: of the runs' pods; by default KFP_SERVICE_ACCOUNT, otherwise that of the installation.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,60}[a-z0-9])?$")]
    cron: str
    time_zone: str = ""
    preset: str
    parameters: dict[str, Any] = {}
    enabled: bool
    experiment: str = ""
    service_account: str = ""


class Schedules(_Strict):
    """The whole file.

    Attributes:
        cluster_time_zone: `CRON_SCHEDULE_TIMEZONE` of the cluster's scheduled-workflow controller, in which Kubeflow
            reads all cron expressions.
        schedules: all recurring runs of this pipeline.
    """

    cluster_time_zone: str = "UTC"
    schedules: list[Schedule]


def read(path: Path) -> list[tuple[Schedule, dict[str, Any]]]:
    """Return the schedules, each with the parameters that it sets, after a check.

    Raises:
        UserError: `schedule.invalid_entry`, `schedule.repeated`, `schedule.other_time_zone`, `schedule.unknown_zone`,
            `schedule.invalid_cron`, or the error of a parameter.
    """
    try:
        file = Schedules.model_validate(read_yaml(path, "FILE"))
    except ValidationError as error:
        field, problem = describe_invalid(error)
        where = field or "the file"
        raise UserError(
            f"{path}: {where}: {problem}",
            "correct that entry; manifests/schedules.yaml documents each",
            "schedule.invalid_entry",
            entry=where,
        ) from error
    cluster = zone(file.cluster_time_zone, f"{path}: cluster_time_zone")
    found: dict[str, tuple[Schedule, dict[str, Any]]] = {}
    for entry in file.schedules:
        where = f"{path}: schedule {entry.name}"
        if entry.name in found:
            raise UserError(
                f"{where} is defined twice", "give each schedule its own name", "schedule.repeated", name=entry.name
            )
        check_cron(entry.cron, where)
        if not same_time(zone(entry.time_zone or file.cluster_time_zone, where), cluster, datetime.now(UTC)):
            raise UserError(
                f"{where}: time_zone is {entry.time_zone}, but the cluster reads cron expressions in "
                f"{file.cluster_time_zone}",
                "convert the cron expression, or set CRON_SCHEDULE_TIMEZONE on the cluster and cluster_time_zone here",
                "schedule.other_time_zone",
                name=entry.name,
            )
        try:
            own = check_parameters(entry.parameters, "parameters")
            values = parameters.choose_preset(entry.preset, str(own.get("data", "")))[1] | own
            check_values(values)
        except UserError as error:
            raise add_location(error, where) from error
        account = entry.service_account or os.environ.get("KFP_SERVICE_ACCOUNT", "")
        found[entry.name] = entry.model_copy(update={"service_account": account}), values
    return list(found.values())


def read_and_check(path: Path, out: TextIO) -> list[tuple[Schedule, dict[str, Any]]]:
    """Return the schedules as `read`, after a check of the data of each, which prints what it cannot check.

    Raises:
        UserError: as in `read` and `check_data`.
    """
    entries = read(path)
    checked: list[dict[str, Any]] = []
    for entry, values in entries:
        complete = check_values(values)
        of_data = {name: complete[name] for name in DATA_PARAMETERS}
        try:
            if of_data not in checked:
                check_data(complete, out)
        except UserError as error:
            raise add_location(error, f"{path}: schedule {entry.name}") from error
        checked.append(of_data)
    return entries


def zone(name: str, where: str) -> zoneinfo.ZoneInfo:
    """Return a time zone; raise `schedule.unknown_zone` if there is none of this name."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UserError(
            f"{where}: there is no time zone {name!r}",
            "give one such as UTC or Europe/Vienna",
            "schedule.unknown_zone",
            zone=name,
        ) from error


def same_time(one: zoneinfo.ZoneInfo, other: zoneinfo.ZoneInfo, now: datetime) -> bool:
    """Return whether the clocks of two zones are equal for the next two years."""
    moments = (now + timedelta(hours=6 * n) for n in range(2 * 365 * 4))
    return all(moment.astimezone(one).utcoffset() == moment.astimezone(other).utcoffset() for moment in moments)


def check_cron(cron: str, where: str) -> None:
    """Check a cron expression.

    Kubeflow uses github.com/robfig/cron 1.2: six fields from the second to the day of the week, with `*`, `?`, numbers,
    names of months and days, ranges, steps and lists, without a time zone. It also accepts five fields, and reads them
    as seconds to months.

    Raises:
        UserError: `schedule.invalid_cron`.
    """
    fields = cron.split()
    if len(fields) != 6:
        raise _invalid_cron(cron, where, "", f"give six fields, {', '.join(_FIELDS)}, such as '0 0 3 * * 1'")
    if not fields[0].isdecimal():
        raise _invalid_cron(cron, where, "second", "give one number for the seconds, such as 0")
    days: list[set[int]] = []
    for text, field, bounds, names in zip(fields, _FIELDS, _BOUNDS, _NAMES, strict=True):
        try:
            days.append({n for part in text.split(",") for n in _numbers(part, bounds, names)})
        except ValueError:
            low, high = bounds
            hint = f"give numbers from {low} to {high}, ranges such as 1-5, steps such as */2, lists of these, or *"
            raise _invalid_cron(cron, where, field, hint) from None
    never = all(day > _LONGEST[month - 1] for month in days[4] for day in days[3])
    if never and fields[5] in ("*", "?"):
        raise _invalid_cron(cron, where, "day of month", "choose a day that exists in that month")


def _invalid_cron(cron: str, where: str, field: str, hint: str) -> UserError:
    detail = f", with an invalid {field}" if field else ""
    return UserError(f"{where}: cron is {cron!r}{detail}", hint, "schedule.invalid_cron", cron=cron, field=field)


def _numbers(part: str, bounds: tuple[int, int], names: Mapping[str, int]) -> range:
    """Return the numbers of one part of a field; raise ValueError if it is invalid."""
    low, high = bounds

    def number(text: str) -> int:
        if (value := names.get(text.lower())) is not None:
            return value
        if not re.fullmatch("[0-9]{1,4}", text):
            raise ValueError
        return int(text)

    span, slash, step = part.partition("/")
    begin, dash, end = span.partition("-")
    if begin in ("*", "?") and not dash:
        first, last = low, high
    else:
        first = number(begin)
        last = number(end) if dash else (high if slash else first)
    by = int(step) if slash and re.fullmatch("[0-9]{1,4}", step) else 0 if slash else 1
    if not low <= first <= last <= high or by == 0:
        raise ValueError
    return range(first, last + 1, by)


def description(entry: Schedule, values: Mapping[str, Any], pipeline: str, version_id: str) -> str:
    """Return the description by which this command identifies its recurring runs.

    It contains the name, the pipeline, and a hash of everything that cannot be changed in place.
    """
    content = entry.model_dump(exclude={"enabled", "parameters", "preset", "time_zone"})
    text = json.dumps({**content, "values": values, "version_id": version_id}, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return (
        f"counterweight schedule: {entry.name} of pipeline {pipeline}, specification {digest}. "
        "Created by make schedule, which replaces and deletes it."
    )


def own_schedules(api: Api, pipeline: str = PIPELINE) -> list[Any]:
    """Return the recurring runs that this command created for a pipeline, oldest first."""
    method = api.recurring_runs.recurring_run_service_list_recurring_runs
    found = []
    for entry in api.pages(method, "recurring_runs", **in_namespace(api)):
        marked = _MARK.match(entry.description or "")
        if marked and marked[2] == pipeline and entry.recurring_run_id:
            found.append(entry)
    return sorted(found, key=lambda entry: (str(entry.created_at or ""), entry.recurring_run_id))


def released_version(api: Api) -> Any:
    """Return the newest version of the pipeline of releases, or None."""
    pipeline = find_pipeline(api, RELEASES)
    if pipeline is None:
        return None
    method = api.pipelines.pipeline_service_list_pipeline_versions
    versions = list(api.pages(method, "pipeline_versions", pipeline.pipeline_id))
    return max(versions, key=lambda version: str(version.created_at or ""), default=None)


def create(api: Api, entry: Schedule, values: Mapping[str, Any], mark: str, version: Any) -> None:
    """Create a recurring run of a version."""
    new = kfp_server_api.V2beta1RecurringRun(
        display_name=entry.name,
        description=mark,
        experiment_id=find_or_create_experiment(api, entry.experiment or PIPELINE),
        pipeline_version_reference=kfp_server_api.V2beta1PipelineVersionReference(
            pipeline_id=version.pipeline_id, pipeline_version_id=version.pipeline_version_id
        ),
        runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters=dict(values)),
        trigger=kfp_server_api.V2beta1Trigger(cron_schedule=kfp_server_api.V2beta1CronSchedule(cron=entry.cron)),
        mode="ENABLE" if entry.enabled else "DISABLE",
        max_concurrency="1",
        no_catchup=True,
        service_account=entry.service_account or None,
    )

    def find() -> Any:
        return next((old for old in own_schedules(api) if old.description == mark), None)

    api.create(lambda: api.recurring_runs.recurring_run_service_create_recurring_run(new), find)


def switch_to(api: Api, recurring_run_id: str, enabled: bool) -> None:
    """Enable or disable a recurring run."""
    change = api.recurring_runs.recurring_run_service_disable_recurring_run
    if enabled:
        change = api.recurring_runs.recurring_run_service_enable_recurring_run
    api.call(change, recurring_run_id)


def unfinished_run(api: Api, recurring: Any) -> str:
    """Return the id of a run in progress that a recurring run started; empty if there is none."""
    experiment_id = {"experiment_id": recurring.experiment_id} if recurring.experiment_id else in_namespace(api)
    for run in api.pages(api.runs.run_service_list_runs, "runs", sort_by="created_at desc", **experiment_id):
        if run.recurring_run_id == recurring.recurring_run_id and str(run.state) in UNFINISHED:
            return str(run.run_id)
    return ""


def remove(api: Api, recurring: Any) -> str:
    """Delete a recurring run, or disable it while a run of it is in progress.

    Returns:
        The id of the run in progress; empty if the recurring run was deleted.
    """
    try:
        if recurring.mode != "DISABLE":
            switch_to(api, recurring.recurring_run_id, False)
            time.sleep(SETTLE_S)
        if unfinished := api.call(unfinished_run, api, recurring):
            return unfinished
        api.call(api.recurring_runs.recurring_run_service_delete_recurring_run, recurring.recurring_run_id)
    except RejectedError as error:
        if error.status != 404:  # otherwise an earlier attempt succeeded
            raise
    return ""


def run(words: list[str], out: TextIO) -> int:
    """Run the command and return its exit code."""
    given = settings(words)
    parameters.use_placement(given)
    entries = read_and_check(Path(given.get("FILE") or os.path.relpath(DEFAULT)), out)
    dry = switch(given, "DRY_RUN")
    api = Api(os.environ)
    version = api.call(released_version, api)
    if version is None and entries:
        raise UserError(
            "no version is released for schedules",
            "run make release, which uploads the current version and synchronises the schedules",
            "schedule.no_release",
        )
    synchronise(api, entries, version, dry, out)
    return 0


def synchronise(api: Api, entries: list[tuple[Schedule, dict[str, Any]]], version: Any, dry: bool, out: TextIO) -> None:
    """Make the recurring runs of this pipeline equal to the entries, and print each change.

    Args:
        api: the API.
        entries: as `read` returns them.
        version: the version that they start; may be None if there are no entries.
        dry: only print.
        out: receives the lines.
    """

    def report(what: str, name: str, detail: str = "") -> None:
        print(f"{'would ' if dry else ''}{what} {name}{detail}", file=out, flush=True)

    existing = api.call(own_schedules, api)
    keep: dict[str, Any] = {}
    for entry, values in entries:
        mark = description(entry, values, PIPELINE, version.pipeline_version_id)
        same = [old for old in existing if old.description == mark]
        detail = f": {entry.cron}, {'on' if entry.enabled else 'off'}, version {version.display_name}"
        if not same:
            known = any(old.display_name == entry.name for old in existing)
            report("replace" if known else "create", entry.name, detail)
            if not dry:
                create(api, entry, values, mark, version)
            continue
        keep[same[0].recurring_run_id] = same[0]
        if (same[0].mode == "ENABLE") != entry.enabled:
            report("switch", entry.name, " on" if entry.enabled else " off")
            if not dry:
                switch_to(api, same[0].recurring_run_id, entry.enabled)
        else:
            print(f"keep {entry.name}{detail}", file=out, flush=True)
    names, kept = {entry.name for entry, _ in entries}, {old.display_name for old in keep.values()}
    for old in existing:
        if old.recurring_run_id in keep:
            continue
        if old.display_name not in names or old.display_name in kept:
            report("delete", old.display_name, ", an older one of this name" if old.display_name in kept else "")
        unfinished = api.call(unfinished_run, api, old) if dry else remove(api, old)
        if unfinished:
            report(
                "disable", old.display_name, f", the old one: run {unfinished} is in progress; a later sync deletes it"
            )
