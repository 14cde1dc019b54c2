"""Syncs recurring runs with a file: `python -m counterweight.schedule [FILE=…] [DRY_RUN=1]`.

The default file is manifests/schedules.yaml. `counterweight/client.py` says where the API is. Only recurring runs
that this command made for this pipeline, known by their description, are ever changed or deleted. They can't be changed
in place but for on and off: a new one is created before the old one is deleted, so that no schedule is lost wherever
this command dies; the next one clears up.

Exit codes: 0 equal now (with DRY_RUN=1: told what would be done), 2 something that the user can mend, 5 API not
reachable or not allowed.
"""

import hashlib
import json
import os
import re
import sys
import zoneinfo
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, TextIO

import kfp_server_api
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.placement import FILE_VARIABLE
from components.shared.errors import UserError
from counterweight import parameters
from counterweight.client import Api, RejectedError, settings
from counterweight.exit_codes import run_command
from counterweight.logs import switch
from counterweight.submit import ROOT, check_remote, checked, compiled, experiment, find_pipeline, read_yaml, uploaded

DEFAULT = ROOT / "manifests" / "schedules.yaml"

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
        name: its display name; one of its own.
        cron: six fields, seconds first.
        time_zone: the one that the cron is meant in; the cluster's where not given.
        preset: as for a local run.
        parameters: beat the preset.
        enabled: whether it starts runs.
        experiment: that its runs belong to; the pipeline's name where not given.
        service_account: of the runs' pods; KFP_SERVICE_ACCOUNT, else the installation's default where not given.
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
        cluster_time_zone: what `CRON_SCHEDULE_TIMEZONE` of the cluster's scheduled-workflow controller says; Kubeflow
            reads every cron in this one.
        schedules: all recurring runs of this pipeline; none: none.
    """

    cluster_time_zone: str = "UTC"
    schedules: list[Schedule]


def read(path: Path, defaults: Mapping[str, Any]) -> list[tuple[Schedule, dict[str, Any]]]:
    """The schedules, checked, each with the parameters that it sets.

    Args:
        path: of the file.
        defaults: of the pipeline's parameters.

    Raises:
        UserError: an entry can't be used.
    """
    try:
        file = Schedules.model_validate(read_yaml(path, "FILE"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"{path}: {where} can't be used ({first['msg']}); mend that entry.") from error
    cluster = zone(file.cluster_time_zone, f"{path}: cluster_time_zone")
    found: dict[str, tuple[Schedule, dict[str, Any]]] = {}
    for entry in file.schedules:
        where = f"{path}: schedule {entry.name}"
        if entry.name in found:
            raise UserError(f"{where} stands twice; give each a name of its own.")
        check_cron(entry.cron, where)
        if not same_time(zone(entry.time_zone or file.cluster_time_zone, where), cluster, datetime.now(UTC)):
            raise UserError(
                f"{where}: its time zone is {entry.time_zone}, but Kubeflow reads every cron in one, here "
                f"{file.cluster_time_zone}; write the cron in that, or set CRON_SCHEDULE_TIMEZONE on the cluster and "
                "cluster_time_zone here."
            )
        try:
            values = checked(parameters.preset(entry.preset), defaults, f"preset {entry.preset}")
            values |= checked(entry.parameters, defaults, "parameters")
            check_remote(dict(defaults) | values)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        account = entry.service_account or os.environ.get("KFP_SERVICE_ACCOUNT", "")
        found[entry.name] = entry.model_copy(update={"service_account": account}), values
    return list(found.values())


def zone(name: str, where: str) -> zoneinfo.ZoneInfo:
    """A time zone by its name.

    Raises:
        UserError: there is none of this name.
    """
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UserError(f"{where}: there is no time zone {name!r}; give one such as UTC or Europe/Vienna.") from error


def same_time(one: zoneinfo.ZoneInfo, other: zoneinfo.ZoneInfo, now: datetime) -> bool:
    """Whether two zones' clocks show the same for the next two years."""
    moments = (now + timedelta(hours=6 * n) for n in range(2 * 365 * 4))
    return all(moment.astimezone(one).utcoffset() == moment.astimezone(other).utcoffset() for moment in moments)


def check_cron(cron: str, where: str) -> None:
    """Refuses what Kubeflow would refuse, or would read in another way than it is meant.

    Kubeflow takes github.com/robfig/cron 1.2: six fields from the second to the day of the week, `*`, `?`, numbers,
    names of months and days, ranges, steps and lists; no time zone. It would also take five, as seconds to months.

    Raises:
        UserError: it can't be used.
    """
    fields = cron.split()
    if len(fields) != 6:
        raise UserError(f"{where}: cron is {cron!r}; give six fields, {', '.join(_FIELDS)}, such as '0 0 3 * * 1'.")
    if not fields[0].isdecimal():
        raise UserError(f"{where}: cron is {cron!r}, which begins with seconds; give one number there, such as 0.")
    days: list[set[int]] = []
    for text, field, bounds, names in zip(fields, _FIELDS, _BOUNDS, _NAMES, strict=True):
        try:
            days.append({n for part in text.split(",") for n in _numbers(part, bounds, names)})
        except ValueError:
            low, high = bounds
            raise UserError(
                f"{where}: cron is {cron!r}, whose {field} is {text!r}; give numbers from {low} to {high}, "
                "ranges such as 1-5, steps such as */2, lists of these, or *."
            ) from None
    never = all(day > _LONGEST[month - 1] for month in days[4] for day in days[3])
    if never and fields[5] in ("*", "?"):
        raise UserError(f"{where}: cron is {cron!r}, and that day never comes; give another.")


def _numbers(part: str, bounds: tuple[int, int], names: Mapping[str, int]) -> range:
    """One part of a field.

    Raises:
        ValueError: it is none.
    """
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


def description(entry: Schedule, values: Mapping[str, Any], pipeline: str, pipeline_id: str) -> str:
    """What marks a recurring run as this command's: its name, its pipeline, and a hash of all that can't be changed in
    place."""
    facts = entry.model_dump(exclude={"enabled", "parameters", "preset", "time_zone"})
    text = json.dumps({**facts, "values": values, "pipeline_id": pipeline_id}, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return (
        f"counterweight schedule: {entry.name} of pipeline {pipeline}, specification {digest}. "
        "Made by make schedule, which replaces and deletes it."
    )


def mine(api: Api, pipeline: str) -> list[Any]:
    """The recurring runs that this command made for a pipeline, the oldest first."""
    method = api.recurring_runs.recurring_run_service_list_recurring_runs
    namespace = {"namespace": api.namespace} if api.namespace else {}
    found = []
    for entry in api.pages(method, "recurring_runs", **namespace):
        marked = _MARK.match(entry.description or "")
        if marked and marked[2] == pipeline and entry.recurring_run_id:
            found.append(entry)
    return sorted(found, key=lambda entry: (str(entry.created_at or ""), entry.recurring_run_id))


def created(api: Api, entry: Schedule, values: Mapping[str, Any], mark: str, pipeline: str, pipeline_id: str) -> None:
    """Creates a recurring run. Without a version, each of its runs takes the pipeline's newest."""
    new = kfp_server_api.V2beta1RecurringRun(
        display_name=entry.name,
        description=mark,
        experiment_id=experiment(api, entry.experiment or pipeline),
        pipeline_version_reference=kfp_server_api.V2beta1PipelineVersionReference(pipeline_id=pipeline_id),
        runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters=dict(values)),
        trigger=kfp_server_api.V2beta1Trigger(cron_schedule=kfp_server_api.V2beta1CronSchedule(cron=entry.cron)),
        mode="ENABLE" if entry.enabled else "DISABLE",
        max_concurrency="1",
        no_catchup=True,
        service_account=entry.service_account or None,
    )

    def find() -> Any:
        return next((there for there in mine(api, pipeline) if there.description == mark), None)

    api.create(lambda: api.recurring_runs.recurring_run_service_create_recurring_run(new), find)


def run(words: list[str], out: TextIO) -> int:
    """Does what the command asks for and returns the exit code."""
    given = settings(words)
    if file := given.pop("PLACEMENT", ""):
        os.environ[FILE_VARIABLE] = file
    dry = switch(given, "DRY_RUN")
    path = Path(given.pop("FILE", "") or os.path.relpath(DEFAULT))
    given.pop("DRY_RUN", None)
    if given:
        raise UserError(f"{next(iter(given))} is not known here; choose from FILE, DRY_RUN, PLACEMENT.")
    package = compiled()
    wanted = read(path, package.defaults)
    api = Api(os.environ)

    def say(what: str, name: str, detail: str = "") -> None:
        print(f"{'would ' if dry else ''}{what} {name}{detail}", file=out, flush=True)

    pipeline = api.call(find_pipeline, api, package.name)
    pipeline_id = pipeline.pipeline_id if pipeline else ""
    if not pipeline and wanted:
        say("upload", f"pipeline {package.name}, version {package.version}")
        pipeline_id = "" if dry else uploaded(api, package)[0]
    recurring, there = api.recurring_runs, api.call(mine, api, package.name)
    keep: dict[str, Any] = {}
    for entry, values in wanted:
        mark = description(entry, values, package.name, pipeline_id)
        same = [old for old in there if old.description == mark]
        detail = f": {entry.cron}, {'on' if entry.enabled else 'off'}"
        if not same:
            say("replace" if any(old.display_name == entry.name for old in there) else "create", entry.name, detail)
            if not dry:
                created(api, entry, values, mark, package.name, pipeline_id)
            continue
        keep[same[0].recurring_run_id] = same[0]
        if (same[0].mode == "ENABLE") != entry.enabled:
            say("switch", entry.name, " on" if entry.enabled else " off")
            change = recurring.recurring_run_service_enable_recurring_run
            if not entry.enabled:
                change = recurring.recurring_run_service_disable_recurring_run
            if not dry:
                api.call(change, same[0].recurring_run_id)
        else:
            print(f"keep {entry.name}{detail}", file=out, flush=True)
    names, kept = {entry.name for entry, _ in wanted}, {old.display_name for old in keep.values()}
    for old in there:
        if old.recurring_run_id in keep:
            continue
        if old.display_name not in names:
            say("delete", old.display_name)
        elif old.display_name in kept:
            say("delete", old.display_name, ", an older one of this name")
        if not dry:
            deleted(api, old.recurring_run_id)
    return 0


def deleted(api: Api, recurring_run_id: str) -> None:
    """Deletes a recurring run; one that is gone is fine, since an earlier attempt may have been heard."""
    try:
        api.call(api.recurring_runs.recurring_run_service_delete_recurring_run, recurring_run_id)
    except RejectedError as error:
        if error.status != 404:
            raise


if __name__ == "__main__":
    sys.exit(run_command(lambda: run(parameters.words(sys.argv[1:]), sys.stdout)))
