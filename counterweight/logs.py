"""Show what a run did.

Prints each task with its state, duration and error, and the logs of the failed tasks, or of those that TASK names.
"""

import os
import re
import shlex
import tempfile
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote

from components.shared import workflow
from components.shared.errors import ExitCode, UserError, printable
from components.shared.log import duration
from components.shared.workflow import Task, Workflow, parse_error_record
from counterweight.client import ATTEMPT_S, Api, ApiError, RejectedError, settings

EXIT_CODES = {
    workflow.SUCCEEDED: ExitCode.SUCCEEDED,
    workflow.FAILED: ExitCode.FAILED,
    workflow.CANCELLED: ExitCode.CANCELLED,
}
"""The states in which a run has finished, and the exit codes for them."""
DAY_S = 24 * 3600
LOG_LINES = 200
FIRST_PAUSE_S = 1.0
MAX_PAUSE_S = 10.0

_RUN_STATES = {
    "PENDING": workflow.PENDING,
    "RUNNING": workflow.RUNNING,
    "CANCELING": workflow.CANCELLING,
    "CANCELED": workflow.CANCELLED,
    "SUCCEEDED": workflow.SUCCEEDED,
    "FAILED": workflow.FAILED,
    "SKIPPED": workflow.FAILED,
    "PAUSED": "paused",
}


def state_of(run: Any) -> str:
    """Return a run's state; Kubeflow ends a terminated run as FAILED, and only its history shows CANCELING."""
    state = _RUN_STATES.get(str(run.state or ""), "unknown")
    cancelled = any(str(entry.state) == "CANCELING" for entry in run.state_history or [])
    return workflow.CANCELLED if state == workflow.FAILED and cancelled else state


def follow(api: Api, run_id: str, seconds: float, out: TextIO) -> int:
    """Print each change of a task's state, until the run finishes or the time limit is reached.

    Args:
        api: the API.
        run_id: of the run.
        seconds: the time limit.
        out: receives the lines.

    Returns:
        The exit code: 0 succeeded, 1 failed, 3 cancelled, 4 timeout, 130 interrupted.

    Raises:
        ApiError: the API became unreachable.
    """
    give_up = time.monotonic() + seconds
    shown: dict[str, tuple[str, int, str]] = {}
    pause = FIRST_PAUSE_S
    try:
        while True:
            run = get_run(api, run_id)
            state, tasks = state_of(run), _tasks(api, run_id, shown, out)
            finished = state in EXIT_CODES
            changes = [
                (task.key, (task.state, task.retries, task.reason if task.state != "failed" else ""), _lines(task))
                for task in tasks
                if finished or task.state not in (workflow.PENDING, workflow.SKIPPED)
            ]
            changes.insert(len(changes) if finished else 0, ("", (state, 0, ""), [f"run: {state}{_error(run)}"]))
            for key, current, lines in changes:
                if shown.get(key) != current:
                    shown[key] = current
                    for line in lines:
                        _print(out, f"{_clock()} {line}")
            if finished:
                return EXIT_CODES[state]
            left = give_up - time.monotonic()
            if left <= 0:
                _print(out, f"not finished after {duration(seconds)}; the run continues. {how_to(run_id)}")
                return ExitCode.TIMEOUT
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, MAX_PAUSE_S)
    except KeyboardInterrupt:
        _print(out, f"\nno longer following; the run continues. {how_to(run_id)}")
        return ExitCode.INTERRUPTED
    except ApiError:
        _print(out, f"the run may continue. {how_to(run_id)}")
        raise


def _lines(task: Task) -> list[str]:
    """Return what happened to a task, and the hint of its error."""
    hint = task.error.hint if task.error and task.state == workflow.FAILED else ""
    return [f"{task.label}: {describe(task)}", *([f"hint: {hint}"] if hint else [])]


def read_workflow(api: Api, run_id: str) -> Workflow | UserError:
    """Return the tasks of a run, or why the API returns the run without them."""
    try:
        return api.workflow(run_id)
    except RejectedError as error:
        return error
    except ApiError as error:
        if error.code not in ("api.forbidden", "api.absent"):
            raise
        return error
    except UserError as error:
        return error


def _tasks(api: Api, run_id: str, shown: dict[str, tuple[str, int, str]], out: TextIO) -> tuple[Task, ...]:
    """Return the run's tasks; without them, print why, once."""
    found = read_workflow(api, run_id)
    if isinstance(found, Workflow):
        return found.tasks
    if found.code != "workflow.absent" and "tasks" not in shown:
        shown["tasks"] = ("", 0, "")
        _print(out, f"warning: the tasks of the run are unknown: {found}")
    return ()


def how_to(run_id: str) -> str:
    """Return how to cancel a run, and how to follow it."""
    return f"To cancel it: make terminate RUN={run_id}; to follow it: make logs RUN={run_id} WAIT=1"


def get_run(api: Api, run_id: str) -> Any:
    """Return a run.

    Raises:
        UserError: `run.invalid_id` or `run.unknown`.
        ApiError: the API is unreachable or denies access, or `run.unreadable`.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", run_id):
        raise UserError(
            f"RUN is {run_id!r}", "give the id of a run, the last part of its address", "run.invalid_id", run=run_id
        )
    try:
        run = api.call(api.runs.run_service_get_run, run_id)
    except RejectedError as error:
        if error.status == 404:
            raise UserError(
                f"there is no run {run_id} at {api.host}", "check RUN and KFP_HOST", "run.unknown", run=run_id
            ) from error
        raise
    if run.error and not run.state:
        raise ApiError(
            f"{api.host} cannot return run {run_id}: {run.error.message}", "try again later", "run.unreadable"
        )
    return run


def _error(run: Any) -> str:
    """Return a run's error message after a colon; empty if there is none."""
    errors = [run.error, *(status.error for status in reversed(run.state_history or []))]
    message = next((error.message for error in errors if error and error.message), "")
    return f": {message[:500]}" if message else ""


def describe(task: Task) -> str:
    """Return a task's state, duration, retries, and the reason of a wait or failure."""
    seconds = task.seconds(datetime.now(UTC))
    took = f" {'for' if task.state == workflow.RUNNING else 'after'} {duration(seconds)}" if task.intervals else ""
    if task.state == workflow.WAITING:
        took = ""
    retries = f" ({task.retries} {'retry' if task.retries == 1 else 'retries'})" if task.retries else ""
    return f"{task.state}{took}{retries}" + (f": {task.reason}" if task.reason else "")


def _clock() -> str:
    return datetime.now(UTC).strftime("%H:%M:%SZ")


def _print(out: TextIO, text: str) -> None:
    lead = "\n" if text.startswith("\n") else ""
    print(lead + printable(text.removeprefix("\n")), file=out, flush=True)


def read_log(api: Api, run_id: str, namespace: str, task: Task) -> str | None:
    """Return the log of a task's last pod; None if neither the pod nor the `executor-logs` artifact can be read.

    The API reads the log of a pod if users have namespaces; the UI, which may be at the same address, otherwise too.
    """
    where = f"namespace={quote(namespace, safe='')}" if namespace else ""
    if task.pod:
        pod = quote(task.pod, safe="")
        for address in (
            f"/apis/v1alpha1/runs/{quote(run_id)}/nodes/{pod}/log",
            f"/k8s/pod/logs?podname={pod}&runid={quote(run_id)}&pod{where}",
        ):
            text = _fetch(api, address)
            if text is not None and _is_log(text):
                return text
    text = read_artifact(api, task.log_uri, namespace)
    return text if text is not None and _is_log(text) else None


def _fetch(api: Api, address: str) -> str | None:
    """Return the answer of the API or of the UI; None if there is none."""
    api.connection.give_up = time.monotonic() + ATTEMPT_S
    try:
        return api.connection.send("GET", f"{api.host}{address}").data.decode(errors="replace")
    except ApiError:
        return None


def read_artifact(api: Api, uri: str, namespace: str) -> str | None:
    """Return the text of a file among a run's artifacts; None if neither the UI nor this machine can read it.

    The UI, which may be at the address of the API, answers some errors with status 200, as text.

    Args:
        api: the API.
        uri: address of the file.
        namespace: of the run; may be empty.
    """
    where = f"namespace={quote(namespace, safe='')}" if namespace else ""
    scheme, _, path = uri.partition("://")
    bucket, _, key = path.partition("/")
    source = {"minio": "minio", "s3": "s3", "gs": "gcs"}.get(scheme)
    if source and key:
        text = _fetch(api, f"/artifacts/get?source={source}&bucket={quote(bucket)}&key={quote(key, safe='')}&{where}")
        if text is not None and _is_log(text):
            return text
    return download_text(uri) if scheme == "gs" else None


def download_text(uri: str) -> str | None:
    """Return the text of a file in object storage, read from this machine; None if it cannot be read."""
    from components.shared.storage import download_file  # the stores' clients take a second to import

    try:
        with tempfile.TemporaryDirectory() as folder:
            download_file(uri, Path(folder, "file"))
            return Path(folder, "file").read_text(encoding="utf-8", errors="replace")
    except (UserError, OSError):
        return None


def _is_log(text: str) -> bool:
    """Return whether an answer is a log: the API answers 200 before it reads one, so that an error comes as text."""
    begin = text.lstrip()[:200].lower()
    return bool(begin) and not begin.startswith(
        ('{"error_message"', "error reading run log", "<!doctype html", "<html", "failed to get object", "error: ")
    )


def log_lines(text: str) -> Iterator[str]:
    """Yield the last lines of a log; an error record becomes its `error:` and `hint:` lines."""
    lines = text.splitlines()[-LOG_LINES:]
    repeated: list[str] = []
    for line in lines:
        if error := parse_error_record(line):
            repeated = error.lines().splitlines()
            yield from repeated
        elif line not in repeated:
            yield printable(line)


def report(api: Api, run: Any, found: Workflow, name: str, out: TextIO) -> None:
    """Print a run's tasks, and the logs of the failed ones or of those that `name` names.

    Raises:
        UserError: `run.unknown_task`.
    """
    tasks = found.tasks
    _print(out, f"{run.display_name} ({run.run_id}): {state_of(run)}{_error(run)}")
    width = max((len(task.label) for task in tasks), default=0)
    for task in tasks:
        at = task.started.strftime("%Y-%m-%d %H:%M:%SZ") if task.started else "-" * 20
        _print(out, f"  {at}  {task.label:{width}}  {describe(task)}")
    chosen = [
        task
        for task in tasks
        if (name in (task.label, task.label.partition(" [")[0], task.name) if name else task.state == "failed")
    ]
    if name and not chosen:
        labels = [task.label for task in tasks]
        raise UserError(
            f"TASK is {name!r}",
            f"choose one of {', '.join(labels) or 'the tasks, after the run has started'}",
            "run.unknown_task",
            task=name,
            choices=labels,
        )
    for task in chosen:
        namespace = found.namespace or api.namespace
        text = read_log(api, run.run_id, namespace, task)
        if text is not None:
            _print(out, f"\n{task.label}: the last lines of its log")
            print("\n".join(log_lines(text)), file=out, flush=True)
            continue
        if task.error:
            _print(out, f"\n{task.label}: its error")
            print("\n".join(map(printable, task.error.lines().splitlines())), file=out, flush=True)
        if task.pod:
            _print(out, f"\n{task.label}: the API does not return its log; read it from the pod while that exists:")
            _print(out, f"  {kubectl_logs(namespace)} {shlex.quote(task.pod)} -c main")
        else:
            _print(out, f"\n{task.label}: no pod was created, so there is no log")


def kubectl_logs(namespace: str) -> str:
    """Return the start of a command that prints logs."""
    return "kubectl logs" + (f" -n {shlex.quote(namespace)}" if namespace else "")


def report_without_tasks(api: Api, run: Any, problem: UserError, out: TextIO) -> None:
    """Print a run's state, why its tasks are unknown, and the command that reads the logs of all of its pods."""
    _print(out, f"{run.display_name} ({run.run_id}): {state_of(run)}{_error(run)}")
    _print(out, f"warning: the tasks of the run are unknown: {problem}; read the logs from its pods while they exist:")
    _print(out, f"  {kubectl_logs(api.namespace)} -l pipeline/runid={run.run_id} -c main --prefix --tail=-1")


def options(words: list[str]) -> dict[str, str]:
    """Return the options of a command about one run.

    Raises:
        UserError: `run.missing`, or as in `settings`.
    """
    given = settings(words)
    if not given.get("RUN"):
        raise UserError("RUN is missing", "write RUN=id, the last part of the run's address", "run.missing")
    return given


def timeout(given: Mapping[str, str]) -> float:
    """Return TIMEOUT in seconds; a day if it is not given.

    Raises:
        UserError: `arguments.invalid_timeout`.
    """
    text = given.get("TIMEOUT") or str(DAY_S)
    if not re.fullmatch(r"[0-9]{1,7}s?", text) or int(text.rstrip("s")) == 0:
        raise UserError(
            f"TIMEOUT is {text!r}", "give whole seconds, such as 3600", "arguments.invalid_timeout", timeout=text
        )
    return float(text.rstrip("s"))


def switch(given: Mapping[str, str], name: str) -> bool:
    """Return whether an option is 1.

    Raises:
        UserError: `arguments.invalid_switch`: it is neither 1 nor 0.
    """
    text = given.get(name) or "0"
    if text not in ("0", "1"):
        raise UserError(f"{name} is {text!r}", "give 1 or 0", "arguments.invalid_switch", name=name, value=text)
    return text == "1"


def run(words: list[str], out: TextIO) -> int:
    """Run the command and return its exit code."""
    given = options(words)
    seconds, wait = timeout(given), switch(given, "WAIT")
    api = Api(os.environ)
    code = follow(api, given["RUN"], seconds, out) if wait else 0
    if code not in (ExitCode.TIMEOUT, ExitCode.INTERRUPTED):
        found, tasks = get_run(api, given["RUN"]), read_workflow(api, given["RUN"])
        if isinstance(tasks, Workflow):
            report(api, found, tasks, given.get("TASK", ""), out)
        else:
            report_without_tasks(api, found, tasks, out)
    return code
