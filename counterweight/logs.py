"""What a run has done: `python -m counterweight.logs RUN=id [TASK=name] [WAIT=1] [TIMEOUT=seconds]`.

Prints each task with its state, time and error, and the logs of the failed tasks, or of those named TASK, as far as the
API has them. WAIT=1 follows the run to its end first. The API is where `counterweight/client.py` says.

Exit codes: 0 read (with WAIT=1: succeeded), 1 failed, 2 something that the user can mend, 3 cancelled, 4 timeout (the
run goes on), 5 API not reachable or not allowed, 130 interrupted (the run goes on).
"""

import os
import re
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TextIO
from urllib.parse import quote

from components.shared.errors import ExitCode, UserError, printable
from components.shared.log import duration
from counterweight import parameters
from counterweight.client import ATTEMPT_S, Api, ApiError, RejectedError, settings
from counterweight.exit_codes import run_command

ENDS = {
    "SUCCEEDED": ExitCode.SUCCEEDED,
    "FAILED": ExitCode.FAILED,
    "SKIPPED": ExitCode.FAILED,
    "CANCELED": ExitCode.CANCELLED,
}
"""A run's last states, and the exit codes for them."""
DAY_S = 24 * 3600
LOG_LINES = 200
FIRST_PAUSE_S = 1.0

# What Kubeflow's backend adds to a pipeline's own tasks: drivers, the pods within a task, loops.
_ADDED = re.compile(
    r"root|executor|.*-driver|(for-loop|condition|condition-branches|exit-handler|exit-hook)-.*|.*-iterations?"
)


def follow(api: Api, run_id: str, seconds: float, out: TextIO) -> int:
    """Says each change of a task's state, until the run ends or the time is over.

    Args:
        api: the API.
        run_id: of the run.
        seconds: how long, at the most.
        out: where to.

    Returns:
        The exit code: 0 succeeded, 1 failed, 3 cancelled, 4 timeout, 130 interrupted.

    Raises:
        ApiError: the API can't be reached any more.
    """
    give_up = time.monotonic() + seconds
    states: dict[str, str] = {}
    names = Names()
    pause = FIRST_PAUSE_S
    try:
        while True:
            run = get_run(api, run_id)
            names.of_run(api, run)
            said = [(task.task_id or label, label, task.state, _told(task)) for task, label in names.shown(run)]
            state = run.state
            said.insert(len(said) if state in ENDS else 0, ("", "run", state, f"{state.lower()}{_error(run)}"))
            for key, label, current, told in said:
                if states.get(key) != current and current not in ("", "RUNTIME_STATE_UNSPECIFIED"):
                    states[key] = current
                    _say(out, f"{_clock()} {label}: {told}")
            if state in ENDS:
                return ENDS[state]
            left = give_up - time.monotonic()
            if left <= 0:
                _say(out, f"not ended after {duration(seconds)}; the run goes on. {how_to(run_id)}")
                return ExitCode.TIMEOUT
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, 10)
    except KeyboardInterrupt:
        _say(out, f"\nnot following any more; the run goes on. {how_to(run_id)}")
        return ExitCode.INTERRUPTED
    except RejectedError as error:
        raise ApiError(f"{error} The run can't be followed any more.") from error
    except ApiError as error:
        _say(out, f"the run may go on. {how_to(run_id)}")
        raise error


def how_to(run_id: str) -> str:
    """How to end a run, and how to follow it."""
    return f"To end it: make terminate RUN={run_id}; to follow it: make logs RUN={run_id} WAIT=1"


def get_run(api: Api, run_id: str) -> Any:
    """A run.

    Raises:
        UserError: there is none of this id.
        ApiError: the API can't be reached, or does not let us.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", run_id):
        raise UserError(f"RUN is {run_id!r}; give a run's id, the last part of its address.")
    try:
        run = api.call(api.runs.run_service_get_run, run_id)
    except RejectedError as error:
        if error.status == 404:
            raise UserError(f"there is no run {run_id} at {api.host}; check RUN and KFP_HOST.") from error
        raise
    if run.error and not run.state:
        raise ApiError(f"{api.host} can't tell of run {run_id}: {run.error.message}.")
    for entry in (run, *((run.run_details and run.run_details.task_details) or [])):
        entry.state = str(entry.state or "")  # the generated classes take it as it comes
    return run


class Names:
    """The tasks of runs as people know them: display names, without what the backend adds."""

    def __init__(self) -> None:
        self._labels: dict[str, str] | None = None
        self._pipeline = ""
        self._given: dict[str, str] = {}
        self._count: dict[str, int] = {}

    def of_run(self, api: Api, run: Any) -> None:
        """Learns the names from the run's pipeline, once; without it, the backend's own are told."""
        if self._labels is not None:
            return
        self._labels = {}
        spec, reference = run.pipeline_spec, run.pipeline_version_reference
        if reference and reference.pipeline_id and reference.pipeline_version_id:
            try:
                version = api.call(
                    api.pipelines.pipeline_service_get_pipeline_version,
                    reference.pipeline_id,
                    reference.pipeline_version_id,
                )
                spec = version.pipeline_spec
            except ApiError:  # it may not be allowed, and it is only about names
                return
        self._pipeline, self._labels = labels(spec)

    def shown(self, run: Any) -> list[tuple[Any, str]]:
        """The run's tasks in the order in which they began, each with a name of its own."""
        tasks = (run.run_details.task_details if run.run_details else None) or []
        found = []
        for task in sorted(tasks, key=lambda task: (_seconds(task.create_time), task.task_id or "")):
            name = re.sub(r"\(\d.*\)$", "", task.display_name or "")
            label = (self._labels or {}).get(name, name)
            workflow = self._pipeline and re.fullmatch(f"{re.escape(self._pipeline)}-[a-z0-9]{{5}}", name)
            if not label or workflow or (name not in (self._labels or {}) and _ADDED.fullmatch(name)):
                continue
            key = task.task_id or label
            if key not in self._given:
                self._count[label] = number = self._count.get(label, 0) + 1
                self._given[key] = label if number == 1 else f"{label} ({number})"
            found.append((task, self._given[key]))
        return found


def labels(spec: Any) -> tuple[str, dict[str, str]]:
    """A compiled pipeline's name, and its tasks' names in the backend → display names; empty for loops and the like."""
    try:
        spec = spec.get("pipeline_spec", spec)  # wrapped so where the pipeline has placement for Kubernetes
        components = spec["components"]
        found: dict[str, str] = {}
        for dag in (spec["root"], *components.values()):
            for name, task in dag.get("dag", {}).get("tasks", {}).items():
                inner = "dag" in components[task["componentRef"]["name"]]
                found[name] = "" if inner else str(task.get("taskInfo", {}).get("name") or name)
        return str(spec["pipelineInfo"]["name"]), found
    except (AttributeError, KeyError, TypeError):
        return "", {}


def _seconds(moment: datetime | None) -> float:
    """Since 1970; the backend writes 1970 for what has not happened yet."""
    return max(moment.timestamp(), 0.0) if moment else 0.0


def _error(entry: Any) -> str:
    """A task's or run's error message, after a colon; empty without one."""
    errors = [entry.error, *(status.error for status in reversed(entry.state_history or []))]
    message = next((error.message for error in errors if error and error.message), "")
    return f": {printable(message)[:500]}" if message else ""


def _told(task: Any) -> str:
    """A task's state, what it took so far, and its error."""
    begun, ended = _seconds(task.start_time or task.create_time), _seconds(task.end_time)
    took = f" after {duration(ended - begun)}" if begun and ended >= begun else ""
    return f"{(task.state or 'unknown').lower()}{took}{_error(task)}"


def _clock() -> str:
    return datetime.now(UTC).strftime("%H:%M:%SZ")


def _say(out: TextIO, text: str) -> None:
    lead = "\n" if text.startswith("\n") else ""
    print(lead + printable(text.removeprefix("\n")), file=out, flush=True)


def pod_log(api: Api, run_id: str, task: Any) -> str | None:
    """The end of a task's log, at most `LOG_LINES` lines; None where the API does not have it.

    The API reads it from the pod, or from the archive where the installation keeps one. It answers 200 before it has
    looked, so that an error comes as text.
    """
    for name in filter(None, (task.pod_name, *(child.pod_name for child in task.child_tasks or []))):
        url = f"{api.host}/apis/v1alpha1/runs/{quote(run_id)}/nodes/{quote(name, safe='')}/log"
        api.connection.give_up = time.monotonic() + ATTEMPT_S
        try:
            text = api.connection.send("GET", url).data.decode(errors="replace")
        except ApiError:
            continue
        if text.strip() and not text.startswith(('{"error_message"', '{"ErrorMessage"', "Error reading run log")):
            return "\n".join(printable(line) for line in text.splitlines()[-LOG_LINES:])
    return None


def report(api: Api, run: Any, wanted: str, out: TextIO) -> None:
    """Prints a run's tasks, and the logs of the failed ones or of those called `wanted`."""
    names = Names()
    names.of_run(api, run)
    tasks = names.shown(run)
    _say(out, f"{run.display_name} ({run.run_id}): {(run.state or 'unknown').lower()}{_error(run)}")
    width = max((len(label) for _, label in tasks), default=0)
    for task, label in tasks:
        begun = _seconds(task.start_time or task.create_time)
        at = datetime.fromtimestamp(begun, UTC).strftime("%Y-%m-%d %H:%M:%SZ") if begun else "-" * 20
        _say(out, f"  {at}  {label:{width}}  {_told(task)}")
    chosen = [(t, n) for t, n in tasks if (wanted in (n, t.display_name) if wanted else t.state == "FAILED")]
    if wanted and not chosen:
        raise UserError(f"TASK is {wanted!r}; choose one of {', '.join(label for _, label in tasks) or 'none yet'}.")
    for task, label in chosen:
        text = pod_log(api, run.run_id, task)
        if text is None:
            where = f" -n {api.namespace}" if api.namespace else ""
            _say(out, f"\n{label}: the API has no log of it; while the run's pods are there, they have:")
            _say(out, f"  kubectl logs{where} -l pipeline/runid={run.run_id} -c main --prefix --tail=-1")
        else:
            _say(out, f"\n{label}: the end of its log")
            print(text, file=out, flush=True)


def options(words: list[str], *names: str) -> dict[str, str]:
    """What a command about one run was given.

    Args:
        words: `NAME=value`.
        names: what is known, RUN among it.

    Raises:
        UserError: another one, or no RUN.
    """
    given = settings(words)
    for name in given:
        if name not in names:
            raise UserError(f"{name} is not known here; choose from {', '.join(names)}.")
    if not given.get("RUN"):
        raise UserError("RUN is not given; write RUN=id, the last part of the run's address.")
    return given


def timeout(given: Mapping[str, str]) -> float:
    """TIMEOUT, in seconds; a day without one.

    Raises:
        UserError: it is no number of seconds.
    """
    text = given.get("TIMEOUT") or str(DAY_S)
    if not re.fullmatch(r"[0-9]{1,7}s?", text) or int(text.rstrip("s")) == 0:
        raise UserError(f"TIMEOUT is {text!r}; give whole seconds, such as 3600.")
    return float(text.rstrip("s"))


def switch(given: Mapping[str, str], name: str) -> bool:
    """A word that is 1 or not.

    Raises:
        UserError: it is something else.
    """
    text = given.get(name) or "0"
    if text not in ("0", "1"):
        raise UserError(f"{name} is {text!r}; give 1 or 0.")
    return text == "1"


def run(words: list[str], out: TextIO) -> int:
    """Does what the command asks for and returns the exit code."""
    given = options(words, "RUN", "TASK", "WAIT", "TIMEOUT")
    seconds, wait = timeout(given), switch(given, "WAIT")
    api = Api(os.environ)
    code = follow(api, given["RUN"], seconds, out) if wait else 0
    if code not in (ExitCode.TIMEOUT, ExitCode.INTERRUPTED):
        report(api, get_run(api, given["RUN"]), given.get("TASK", ""), out)
    return code


if __name__ == "__main__":
    sys.exit(run_command(lambda: run(parameters.words(sys.argv[1:]), sys.stdout)))
