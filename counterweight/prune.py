"""List and remove what Counterweight created on a cluster.

Never removes an unfinished run, a version that a schedule or an unfinished run uses, or the released version. A
schedule with a run in progress is disabled instead. The artifacts of removed runs are kept.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TextIO

from components.shared.errors import UserError, printable
from counterweight.client import Api, RejectedError, settings
from counterweight.logs import state_of, switch
from counterweight.schedule import (
    PIPELINE,
    RELEASES,
    UNFINISHED,
    own_schedules,
    released_version,
    remove,
    unfinished_run,
)
from counterweight.submit import find_pipeline, in_namespace

KINDS = ("runs", "versions", "schedules")
DEFAULT_DAYS = 30


@dataclass(frozen=True)
class Inventory:
    """What Counterweight created, newest first.

    Attributes:
        runs, versions, schedules: as the API returns them.
        needed: ids of the versions that must stay.
    """

    runs: list[Any]
    versions: list[Any]
    schedules: list[Any]
    needed: set[str]


def read_inventory(api: Api) -> Inventory:
    """Return what Counterweight created.

    Raises:
        ApiError: the API is unreachable or denies access.
    """
    pipelines = [found for name in (PIPELINE, RELEASES) if (found := api.call(find_pipeline, api, name))]
    ids = {pipeline.pipeline_id for pipeline in pipelines}
    list_versions = api.pipelines.pipeline_service_list_pipeline_versions
    versions = [
        v
        for key in sorted(ids)
        for v in api.call(lambda key=key: list(api.pages(list_versions, "pipeline_versions", key)))
    ]
    runs = api.call(lambda: list(api.pages(api.runs.run_service_list_runs, "runs", **in_namespace(api))))
    own_runs = [run for run in runs if _pipeline_id(run) in ids]
    schedules = api.call(own_schedules, api)
    released = api.call(released_version, api)
    users = [*schedules, *(run for run in own_runs if str(run.state) in UNFINISHED)]
    needed = {user.pipeline_version_reference.pipeline_version_id for user in users if user.pipeline_version_reference}
    needed |= {released.pipeline_version_id} if released else set()
    return Inventory(_newest_first(own_runs), _newest_first(versions), _newest_first(schedules), needed)


def _pipeline_id(run: Any) -> str:
    return str(run.pipeline_version_reference.pipeline_id) if run.pipeline_version_reference else ""


def _newest_first(entries: list[Any]) -> list[Any]:
    return sorted(entries, key=lambda entry: str(entry.created_at or ""), reverse=True)


def print_inventory(found: Inventory, out: TextIO) -> None:
    """Print a line for each run, version and schedule."""
    for run in found.runs:
        _print(out, f"run {run.run_id}  {_day(run)}  {state_of(run):10}  {run.display_name}")
    for version in found.versions:
        use = "in use" if version.pipeline_version_id in found.needed else "unused"
        _print(out, f"version {version.pipeline_version_id}  {_day(version)}  {use:10}  {version.display_name}")
    for entry in found.schedules:
        _print(out, f"schedule {entry.recurring_run_id}  {_day(entry)}  {_mode(entry):10}  {entry.display_name}")


def _mode(entry: Any) -> str:
    return "on" if str(entry.mode) == "ENABLE" else "off"


def _day(entry: Any) -> str:
    return f"{entry.created_at:%Y-%m-%d %H:%M}" if isinstance(entry.created_at, datetime) else "-" * 16


def _print(out: TextIO, text: str) -> None:
    print(printable(text), file=out, flush=True)


def removals(found: Inventory, kinds: list[str], before: datetime) -> Iterator[tuple[str, Any]]:
    """Yield the kind and entry of everything that may be removed."""
    if "runs" in kinds:
        yield from (("run", run) for run in found.runs if _is_older(run, before) and str(run.state) not in UNFINISHED)
    if "versions" in kinds:
        for version in found.versions:
            if _is_older(version, before) and version.pipeline_version_id not in found.needed:
                yield "version", version
    if "schedules" in kinds:
        yield from (("schedule", entry) for entry in found.schedules if _is_older(entry, before))


def _is_older(entry: Any, before: datetime) -> bool:
    created = entry.created_at
    return isinstance(created, datetime) and (created if created.tzinfo else created.replace(tzinfo=UTC)) < before


def remove_entry(api: Api, kind: str, entry: Any) -> str:
    """Remove a run, version or schedule; an entry that does not exist is fine.

    Returns:
        The id of the run in progress because of which a schedule was only disabled; otherwise empty.
    """
    try:
        if kind == "schedule":
            return remove(api, entry)
        if kind == "run":
            api.call(api.runs.run_service_delete_run, entry.run_id)
        else:
            method = api.pipelines.pipeline_service_delete_pipeline_version
            api.call(method, entry.pipeline_id, entry.pipeline_version_id)
    except RejectedError as error:
        if error.status != 404:
            raise
    return ""


def _days(given: dict[str, str]) -> int:
    text = given.get("OLDER") or str(DEFAULT_DAYS)
    if not re.fullmatch(r"[0-9]{1,4}", text):
        raise UserError(f"OLDER is {text!r}", "give a number of days, such as 30", "prune.invalid_age", value=text)
    return int(text)


def run(words: list[str], out: TextIO) -> int:
    """Run the command and return its exit code."""
    given = settings(words)
    kinds = [kind.strip() for kind in given.get("REMOVE", "").split(",") if kind.strip()]
    for kind in kinds:
        if kind not in KINDS:
            raise UserError(
                f"REMOVE names {kind!r}", f"choose from {', '.join(KINDS)}", "prune.unknown_kind", kind=kind
            )
    before, dry = datetime.now(UTC) - timedelta(days=_days(given)), switch(given, "DRY_RUN")
    api = Api(os.environ)
    found = read_inventory(api)
    if not kinds:
        print_inventory(found, out)
        return 0
    for kind, entry in removals(found, kinds, before):
        if dry:
            kept = api.call(unfinished_run, api, entry) if kind == "schedule" else ""
        else:
            kept = remove_entry(api, kind, entry)
        verb = "disable" if kept else "remove"
        detail = f", because run {kept} is in progress" if kept else ""
        _print(out, f"{'would ' if dry else ''}{verb} {kind} {entry.display_name} ({_day(entry)}){detail}")
    return 0
