"""Append a run's result to the summary of a job of GitHub Actions: state, link, verdict and table in Markdown."""

import os
from collections.abc import Iterator
from typing import TextIO

from components.shared import workflow
from components.shared.errors import UserError, printable
from components.shared.stores.addresses import is_address
from components.shared.workflow import Task, Workflow
from counterweight.client import Api
from counterweight.logs import describe, download_text, get_run, read_artifact, read_workflow, state_of

VARIABLE = "GITHUB_STEP_SUMMARY"
"""Environment variable with the file that GitHub shows."""
COMPARISON = "comparison.md"
MAX_BYTES = 500_000
"""GitHub shows at most 1 MiB of a step."""
MAX_TASKS = 100


def append(path: str, api: Api, run_id: str, name: str, link: str, output: str, out: TextIO) -> None:
    """Append the state of a run, and its comparison if it succeeded; a failure is a warning.

    Args:
        path: the file.
        api: the API.
        run_id, name, link: id, name and address of the run.
        output: the parameter of the run.
        out: receives the warning.
    """
    try:
        run, found = get_run(api, run_id), read_workflow(api, run_id)
    except UserError as error:
        print(f"warning: the job has no summary of the run: {error}", file=out, flush=True)
        return
    tasks = found.tasks if isinstance(found, Workflow) else ()
    state = state_of(run)
    lines = [f"## Counterweight: {_literal(name)} {state}", "", f"[{_literal(name)}](<{link}>)", ""]
    namespace = found.namespace if isinstance(found, Workflow) else ""
    text = _read_comparison(api, run_id, tasks, namespace, output) if state == workflow.SUCCEEDED else None
    if text is not None:
        lines.append(text)
    else:
        if state == workflow.SUCCEEDED:
            lines += ["The comparison cannot be read from here; the run has it.", ""]
        lines += _task_lines(tasks)
    _append(path, "\n".join(lines) + "\n\n", out)


def _read_comparison(api: Api, run_id: str, tasks: tuple[Task, ...], namespace: str, output: str) -> str | None:
    """Return the comparison that a run published, from its artifacts or its output; None if neither can be read.

    The artifacts of a task are beside its log.
    """
    folders = {"publish": "published", "evaluate": "results"}
    texts = (
        read_artifact(api, f"{task.log_uri.rpartition('/')[0]}/{folders[task.phase]}/{COMPARISON}", namespace)
        for task in reversed(tasks)
        if task.phase in folders and task.log_uri
    )
    text = next((text for text in texts if text and text.startswith("## ")), None)
    if text is None and is_address(output):
        text = download_text(f"{output.rstrip('/')}/{run_id}/{COMPARISON}")
    if text is None or len(text.encode()) > MAX_BYTES:
        return None
    return "".join(character for character in text if character.isprintable() or character == "\n")


def _task_lines(tasks: tuple[Task, ...]) -> Iterator[str]:
    """Yield a table of the tasks that have started."""
    started = [task for task in tasks if task.state not in (workflow.PENDING, workflow.SKIPPED)]
    if started:
        yield from ("| task | state |", "|:--|:--|")
    for task in started[:MAX_TASKS]:
        yield f"| {_literal(task.label)} | {_literal(describe(task))} |"
    if len(started) > MAX_TASKS:
        yield f"| and {len(started) - MAX_TASKS} more | |"


def _literal(text: str) -> str:
    """Return text without a meaning in Markdown or HTML."""
    escaped = "".join(f"\\{c}" if c in "\\`*_[]|~$#!" else c for c in printable(text))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("://", ":\\//")


def _append(path: str, text: str, out: TextIO) -> None:
    """Append a text in one write, so that no other process writes into it."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, text.encode(errors="replace"))
        finally:
            os.close(file)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        print(f"warning: {VARIABLE} cannot be written ({printable(reason)})", file=out, flush=True)
