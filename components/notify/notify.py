"""The exit task: how a run ended, however it ended.

Asks Kubeflow's API what each task took, works out the time and cost of each phase, writes both as Markdown, prints
them, and posts them to a webhook if there is one. Nothing that goes wrong here makes the run fail.
"""

import json
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.shared.errors import printable
from components.shared.files import write_text
from components.shared.log import duration, log_line

TIMEOUT_S = 15
LIMIT_BYTES = 32_000_000
"""Of the API's answer: a run of a hundred classes stays far below it."""

# Kubeflow hands over the state of its metadata store on a cluster, and that of the API in a local run.
_STATES = {"SUCCEEDED": "succeeded", "COMPLETE": "succeeded", "CACHED": "succeeded", "FAILED": "failed"}
_STATES |= {"CANCELED": "cancelled", "CANCELLED": "cancelled"}


def _open(request: urllib.request.Request) -> bytes:
    """The answer's body.

    Raises:
        OSError, ValueError: there is none; never with the address in it, which may be a secret.
    """
    if not request.full_url.startswith(("https://", "http://")):
        raise ValueError("not an http address")
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310 (checked above)
        return answer.read(LIMIT_BYTES)


def task_details(api: str, run_id: str, token: str) -> list[dict[str, Any]]:
    """What `/apis/v2beta1/runs/{run_id}` says of the run's tasks; nothing where it can't be asked.

    Args:
        api: the API's address.
        run_id: of the run.
        token: sent as a bearer; empty for an API that wants none.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        body = _open(urllib.request.Request(f"{api.rstrip('/')}/apis/v2beta1/runs/{run_id}", headers=headers))  # noqa: S310
        details = json.loads(body)["run_details"]["task_details"]
        return [task for task in details if isinstance(task, dict)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        log_line("notify", f"the API did not tell what the tasks took ({type(error).__name__})")
        return []


def _seconds(task: Mapping[str, Any], now: datetime) -> float:
    """From a task's start to its end, or until now while it has none (its year is 1970 then, or it is not there)."""
    try:
        start = datetime.fromisoformat(task["start_time"])
        end = datetime.fromisoformat(task["end_time"]) if task.get("end_time") else now
    except (KeyError, TypeError, ValueError):
        return 0.0
    return max(((now if end.year < 2000 else end) - start).total_seconds(), 0.0)


def by_phase(details: list[dict[str, Any]], rates: Mapping[str, Any], now: datetime) -> list[dict[str, Any]]:
    """What each phase took and cost.

    A task's time is that from its start to its end, its wait for a node and its retries among it; its cost is that of
    what it asked for.

    Args:
        details: as `task_details` gives them.
        rates: `phases`: phase → cpu, memory_gib, accelerators, price, each of an hour.
        now: stands in for the end of what has none.

    Returns:
        For each phase that had a task, in the order of `rates`: phase, tasks, failed, hours, cpu_h, memory_gib_h,
        accelerator_h, cost.
    """
    rows = []
    for phase, rate in rates["phases"].items():
        # A phase that is used again has a number behind its name.
        name = re.compile(rf"{re.escape(phase.replace('_', '-'))}(-\d+)?")
        tasks = [task for task in details if name.fullmatch(str(task.get("display_name", "")))]
        if not tasks:
            continue
        hours = sum(_seconds(task, now) for task in tasks) / 3600
        rows.append(
            {
                "phase": phase,
                "tasks": len(tasks),
                "failed": sum(task.get("state") == "FAILED" for task in tasks),
                "hours": hours,
                "cpu_h": hours * rate["cpu"],
                "memory_gib_h": hours * rate["memory_gib"],
                "accelerator_h": hours * rate["accelerators"],
                "cost": hours * rate["price"],
            }
        )
    return rows


def render(head: str, rows: list[dict[str, Any]], currency: str, link: str) -> str:
    """The Markdown page: what happened, a row for each phase, the link."""
    lines = [f"## {_literal(head)}", ""]
    if rows:
        total = {key: sum(row[key] for row in rows) for key in rows[0] if key != "phase"} | {"phase": "all"}
        priced = total["cost"] > 0
        lines += [
            "| phase | tasks | failed | time | CPU h | GiB h | accelerator h |"
            + (f" cost {_literal(currency)} |" if priced else ""),
            "|:--|--:|--:|--:|--:|--:|--:|" + ("--:|" if priced else ""),
        ]
        for row in [*rows, total]:
            cells = [row["phase"], row["tasks"], row["failed"] or "", duration(row["hours"] * 3600)]
            cells += [f"{row[key]:.2f}" for key in ("cpu_h", "memory_gib_h", "accelerator_h")]
            cells += [f"{row['cost']:.2f}"] if priced else []
            lines.append("| " + " | ".join(map(str, cells)) + " |")
        lines += [
            "",
            "Time from a task's start to its end, waiting and retries among it; the cost is of what was asked for.",
        ]
    if link:
        lines += ["", f"<{link}>"]
    return "\n".join(lines).rstrip() + "\n"


def _literal(text: str) -> str:
    """Text that Markdown takes as it stands."""
    return re.sub(r"([\\`*_\[\]|~$<>#])", r"\\\1", printable(text))


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
    """Tells how a run ended.

    Args:
        state: of all other tasks together, as Kubeflow gives it.
        error: its message; may be empty.
        run_id, run_name, data: of the run.
        api: address of Kubeflow's API, to be asked for the tasks' times; empty: it isn't.
        token: for the API; may be empty.
        ui: where the user interface is, for a link; may be empty.
        rates: see `by_phase`; `currency` beside them.
        webhook: where a JSON with `text` and the figures is posted; empty for nowhere.
        summary: where the Markdown goes.

    Returns:
        What happened: `succeeded`, `failed`, `cancelled` or `ended`.
    """
    details = task_details(api, run_id, token) if api else []
    rows = by_phase(details, rates, datetime.now(UTC))
    ended = _STATES.get(state.upper(), "ended")
    if any(row["failed"] for row in rows) and ended == "ended":
        ended = "failed"
    link = f"{ui.rstrip('/')}/#/runs/details/{run_id}" if ui else ""
    head = f"{run_name} on {data}: {ended}" + (f" ({error})" if error else "")
    currency = str(rates["currency"])
    write_text(summary, render(head, rows, currency, link))
    log_line("notify", printable(head))
    for row in rows:
        cost = f", {row['cost']:.2f} {currency}" if row["cost"] else ""
        failed = f", {row['failed']} failed" if row["failed"] else ""
        log_line("notify", f"{row['phase']}: {row['tasks']} tasks{failed}, {duration(row['hours'] * 3600)}{cost}")
    if webhook:
        message = {"text": f"{printable(head)}\n{link}".strip(), "run_id": run_id, "status": ended, "phases": rows}
        message |= {"cost": sum(row["cost"] for row in rows), "currency": currency, "link": link}
        try:
            body = json.dumps(message).encode()
            _open(urllib.request.Request(webhook, body, {"Content-Type": "application/json"}))  # noqa: S310
        except (OSError, ValueError) as problem:
            reason = f"status {problem.code}" if isinstance(problem, urllib.error.HTTPError) else type(problem).__name__
            log_line("notify", f"the webhook did not take the message ({reason})")
    return ended
