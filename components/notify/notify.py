"""The exit task: report how a run finished.

Reads the tasks from the run's Workflow manifest, sums time and cost by phase, writes both as Markdown, prints them, and
posts them to a webhook if one is configured. No failure here fails the run.
"""

import html
import json
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any

from components.shared import workflow
from components.shared.errors import UserError, printable
from components.shared.files import write_text
from components.shared.log import duration, log_line
from components.shared.workflow import Task, Workflow, parse_run

TOKEN_FILE = "/var/run/secrets/kubeflow/pipelines/token"  # noqa: S105 (a path)
REQUEST_S = 10.0
"""Time limit of one read from a connection."""
DEADLINE_S = 60.0
"""Time limit of all requests to the API."""
WEBHOOK_S = 30.0
"""Time limit of the webhook."""
PAUSE_S = 3.0
"""Pause between two requests: the manifest in the API is some seconds old."""
MAX_ANSWER_BYTES = 64_000_000
MAX_ERROR_LENGTH = 300

# Kubeflow passes the state of its metadata store on a cluster, and that of the API in a local run. After a retry, or
# with cached tasks, the metadata store is wrong; these states are used if the manifest cannot be read.
_STATES = {"SUCCEEDED": "succeeded", "COMPLETE": "succeeded", "CACHED": "succeeded", "FAILED": "failed"}
_STATES |= {"CANCELED": "cancelled", "CANCELLED": "cancelled"}
_FINISHED = (workflow.SUCCEEDED, workflow.FAILED, workflow.CANCELLED)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Treat a redirect as an error: it would carry the token to another host, or turn a POST into a GET."""

    def redirect_request(self, *arguments: Any, **named: Any) -> None:
        return None


_PROBLEMS = (OSError, HTTPException, ValueError, TypeError, KeyError, AttributeError, RecursionError, UserError)
"""Exceptions of a request and its answer; `HTTPError` and `URLError` are subclasses of OSError."""


def send(request: urllib.request.Request, deadline: float) -> bytes:
    """Return the body of the answer to a request.

    Args:
        request: to an http or https address.
        deadline: in seconds of `time.monotonic`; a thread that has not finished then is abandoned, because neither
            the resolution of a name nor slow headers have a time limit in the standard library.

    Raises:
        OSError, HTTPException, ValueError: there is no answer, it is too large, or its status is not a success.
    """
    if not request.full_url.startswith(("https://", "http://")):
        raise ValueError("not an http address")
    results: list[bytes] = []
    problems: list[BaseException] = []

    def attempt() -> None:
        try:
            results.append(_exchange(request, deadline))
        except BaseException as problem:
            problems.append(problem)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(max(deadline - time.monotonic(), 0))
    for problem in problems:
        raise problem
    if not results:
        raise TimeoutError
    return results[0]


def _exchange(request: urllib.request.Request, deadline: float) -> bytes:
    """Send the request and return the body of its answer; see `send`."""
    opener = urllib.request.build_opener(_NoRedirect)
    body = bytearray()
    with opener.open(request, timeout=_remaining(deadline)) as answer:
        if not 200 <= answer.status <= 299:
            raise urllib.error.HTTPError("", answer.status, "", answer.headers, None)
        while chunk := answer.read1(1 << 16):
            body += chunk
            _remaining(deadline)
            if len(body) > MAX_ANSWER_BYTES:
                raise ValueError("answer too large")
    return bytes(body)


def _remaining(deadline: float) -> float:
    """Return the time limit of the next read; raise TimeoutError after the deadline."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return min(left, REQUEST_S)


def _name_of(problem: BaseException) -> str:
    """Return a short description of a failed request, which never contains its address or token."""
    if isinstance(problem, urllib.error.HTTPError):
        return f"status {problem.code}"
    return problem.code if isinstance(problem, UserError) else type(problem).__name__


def read_workflow(api: str, run_id: str, token: str) -> Workflow | None:
    """Return the run's tasks from the API; None if it does not return them.

    This task runs while the API's copy of the manifest is still being updated: it repeats the request until the part of
    the run that this task reports on has finished there, or until the time limit.

    Args:
        api: address of the API.
        run_id: id of the run.
        token: bearer token; may be empty.
    """
    deadline = time.monotonic() + DEADLINE_S
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    run = None
    problem: BaseException | None = None
    while True:
        try:
            request = urllib.request.Request(f"{api.rstrip('/')}/apis/v1beta1/runs/{run_id}", headers=headers)  # noqa: S310
            run = parse_run(json.loads(send(request, deadline)))
            if run.handled in _FINISHED:
                return run
        except _PROBLEMS as error:
            problem = error
        if deadline - time.monotonic() < PAUSE_S or _is_final(problem):
            break
        time.sleep(PAUSE_S)
    if run is None and problem is not None:
        log_line("notify", f"the API did not return the run's tasks ({_name_of(problem)})")
    return run


def _is_final(problem: BaseException | None) -> bool:
    """Return whether another attempt would fail in the same way."""
    if isinstance(problem, urllib.error.HTTPError):
        return problem.code < 500 and problem.code != 429
    return problem is not None and not isinstance(problem, OSError | HTTPException)


def by_phase(tasks: tuple[Task, ...], rates: Mapping[str, Any], now: datetime) -> list[dict[str, Any]]:
    """Return time and cost of each phase.

    The time of a task is that of its pods from creation to end, including the wait for a node and retries; the cost is
    that of the requested resources. Cached tasks have neither.

    Args:
        tasks: as in `Workflow`.
        rates: `phases`: phase → cpu, memory_gib, accelerators, price, each per hour.
        now: used as the end of pods that have not finished.

    Returns:
        For each phase with a task, in the order of `rates`: phase, tasks, cached, failed, unknown (pods without times),
        hours, cpu_h, memory_gib_h, accelerator_h, cost.
    """
    rows = []
    for phase, rate in rates["phases"].items():
        of_phase = [
            task for task in tasks if task.phase == phase and task.state not in (workflow.SKIPPED, workflow.PENDING)
        ]
        if not of_phase:
            continue
        hours = sum(task.seconds(now) for task in of_phase) / 3600
        rows.append(
            {
                "phase": phase,
                "tasks": len(of_phase),
                "cached": sum(task.state == workflow.CACHED for task in of_phase),
                "failed": sum(task.state == workflow.FAILED for task in of_phase),
                "unknown": sum(task.pods - len(task.intervals) for task in of_phase),
                "hours": hours,
                "cpu_h": hours * rate["cpu"],
                "memory_gib_h": hours * rate["memory_gib"],
                "accelerator_h": hours * rate["accelerators"],
                "cost": hours * rate["price"],
            }
        )
    return rows


def render(head: str, rows: list[dict[str, Any]], currency: str, link: str, notes: list[str]) -> str:
    """Return the Markdown page: what happened, a row for each phase, notes, the link."""
    lines = [f"## {_literal(head)}", ""]
    if rows:
        total = {key: sum(row[key] for row in rows) for key in rows[0] if key != "phase"} | {"phase": "all"}
        priced = total["cost"] > 0
        lines += [
            "| phase | tasks | cached | failed | time | accelerator h |"
            + (f" cost {_literal(currency)} |" if priced else ""),
            "|:--|--:|--:|--:|--:|--:|" + ("--:|" if priced else ""),
        ]
        for row in [*rows, total]:
            cells = [row["phase"], row["tasks"], row["cached"] or "", row["failed"] or ""]
            cells += [duration(row["hours"] * 3600), f"{row['accelerator_h']:.2f}"]
            cells += [f"{row['cost']:.2f}"] if priced else []
            lines.append("| " + " | ".join(map(str, cells)) + " |")
        lines.append("")
    lines += [f"{_literal(note)}\n" for note in notes]
    if link:
        lines.append(f"<{link}>")
    return "\n".join(lines).rstrip() + "\n"


def _literal(text: str) -> str:
    """Return text that Markdown shows unchanged."""
    return re.sub(r"([\\`*_\[\]|~$<>#])", r"\\\1", printable(text))


def _notes(run: Workflow | None, rows: list[dict[str, Any]], has_api: bool) -> list[str]:
    """Return notes on missing or incomplete figures."""
    if not has_api:
        return []
    if run is None:
        return [
            "Time and cost are unknown: the API did not return the run's tasks. The state may be wrong after retries."
        ]
    notes = ["Time is that of the pods, including their wait for a node and retries, without drivers."]
    if run.handled not in _FINISHED:
        notes.append("The figures are incomplete: the API's copy of the run was not up to date.")
    if unknown := sum(row["unknown"] for row in rows):
        notes.append(f"The time of {unknown} pods is unknown and not included.")
    if any(row["cost"] for row in rows):
        notes.append("Cost is that of the requested resources.")
    return notes


def notify(
    state: str,
    error: str,
    run_id: str,
    run_name: str,
    data: str,
    api: str,
    token: str,
    ui: str,
    rates: Mapping[str, Any],
    webhook: str,
    summary: str | Path,
) -> str:
    """Report how a run finished.

    Args:
        state: state of all other tasks together, from Kubeflow's metadata store.
        error: error message of the run; may be empty.
        run_id, run_name, data: identification of the run.
        api: address of Kubeflow's API; empty in a local run.
        token: for the API; may be empty.
        ui: address of the user interface, for a link; may be empty.
        rates: see `by_phase`, and `currency`.
        webhook: address to which JSON with `text` and the figures is posted; may be empty.
        summary: path of the Markdown page.

    Returns:
        The state: `succeeded`, `failed`, `cancelled` or `unknown`.
    """
    run = read_workflow(api, run_id, token) if api else None
    tasks = tuple(task for task in run.tasks if task.phase != "notify") if run else ()
    ended = run.handled if run and run.handled in _FINISHED else _STATES.get(str(state).upper(), "unknown")
    if run and ended != run.handled and any(task.state == workflow.FAILED for task in tasks):
        ended = "failed"
    failures = [f"{task.label}: {task.reason}" for task in tasks if task.state == workflow.FAILED]
    detail = (failures[0] if failures else error) if ended == "failed" else ""
    rows = by_phase(tasks, rates, datetime.now(UTC))
    link = f"{ui.rstrip('/')}/#/runs/details/{run_id}" if ui else ""
    head = _hide(
        f"{run_name} on {data}: {ended}" + (f" ({detail[:MAX_ERROR_LENGTH]})" if detail else ""), token, webhook
    )
    currency = str(rates["currency"])
    notes = _notes(run, rows, bool(api))
    write_text(summary, render(head, rows, currency, link, notes))
    log_line("notify", printable(head))
    for row in rows:
        cost = f", {row['cost']:.2f} {currency}" if row["cost"] else ""
        counts = "".join(f", {row[key]} {key}" for key in ("cached", "failed") if row[key])
        number = "1 task" if row["tasks"] == 1 else f"{row['tasks']} tasks"
        log_line("notify", f"{row['phase']}: {number}{counts}, {duration(row['hours'] * 3600)}{cost}")
    if webhook:
        message: dict[str, Any] = {
            "text": f"{html.escape(printable(head), quote=False)}\n{link}".strip(),  # as Slack requires
            "run_id": run_id,
            "status": ended,
            "phases": rows,
        }
        message |= {"cost": sum(row["cost"] for row in rows) if run else None, "currency": currency, "link": link}
        _post(webhook, message | {"notes": notes})
    return ended


def _hide(text: str, *secrets: str) -> str:
    """Return the text without secrets, which may be in an error message."""
    for secret in filter(None, secrets):
        text = text.replace(secret, "…")
    return text


def _post(webhook: str, message: dict[str, Any]) -> None:
    """Send the message; print a warning without the address if that fails."""
    try:
        body = json.dumps(message).encode()
        request = urllib.request.Request(webhook, body, {"Content-Type": "application/json"})  # noqa: S310
        send(request, time.monotonic() + WEBHOOK_S)
    except _PROBLEMS as problem:
        log_line("notify", f"warning: the webhook did not accept the message ({_name_of(problem)})")


def read_token(path: Path) -> str:
    """Return the token in a file; empty if there is none."""
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return token if re.fullmatch(r"[\x21-\x7e]+", token) else ""


def notify_safely(**arguments: Any) -> None:
    """Call `notify`; print the type of an unexpected error, whose text may contain a secret, and succeed."""
    try:
        notify(**arguments)
    except Exception as error:
        log_line("notify", f"warning: the notification failed ({type(error).__name__})")
        try:
            write_text(arguments["summary"], "The notification failed.\n")
        except Exception as second:
            log_line("notify", f"warning: the summary was not written ({type(second).__name__})")
