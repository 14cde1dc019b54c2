"""The live table of a local run on a terminal: one row for each class, arm and seed of a task.

In a pipe, in CI and in a pod, a run prints plain lines instead.
"""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from components.placement import placement
from components.shared.log import ProgressLine, parse_progress
from components.shared.parameters import arm_names, split_names
from components.shared.workflow_size import pack_classifiers, parse_pack

STYLES = {"waiting": "dim", "running": "cyan", "cached": "green", "done": "green", "failed": "red", "stopped": "yellow"}
"""State of a row → its style."""
PER_CLASS = ("train_gan", "generate_images")
"""Components that run once per group of classes."""
WIDE = 100
"""Columns of a terminal from which on the table has bars and units."""
BAR_WIDTH = 10
REFRESHES_PER_SECOND = 2
OTHER_LINES = 4
"""Lines of the table that are not rows of tasks: header, hidden rows, last message, and the line of the cursor."""


def is_interactive(console: TextIO, environment: Mapping[str, str]) -> bool:
    """Return whether a run shows the table: on a terminal that can move the cursor, outside CI and pods."""
    if environment.get("TERM", "dumb") in ("", "dumb", "unknown"):
        return False
    if any(environment.get(name) for name in ("NO_COLOR", "CI", "KUBERNETES_SERVICE_HOST")):
        return False
    return console.isatty()


def classifier_labels(packs: Sequence[str]) -> list[str]:
    """Return the labels of tasks that train classifiers, in the order of training.

    Example:
        >>> classifier_labels(["baseline:1*", "oversampled:1*"])
        ['train_classifier baseline, seed 1', 'train_classifier oversampled, seed 1']
    """
    return [f"train_classifier {job.arm}, seed {job.seed}" for pack in packs for job in parse_pack(pack)]


def class_labels(component: str, classes: str) -> list[str]:
    """Return the labels of a task for some classes (comma-separated).

    Example:
        >>> class_labels("train_gan", "df,vasc")
        ['train_gan df', 'train_gan vasc']
    """
    return [f"{component} {dx}" for dx in split_names(classes)]


def planned_labels(values: Mapping[str, Any]) -> list[str]:
    """Return the labels of all tasks of a run, in an order in which they can run.

    Args:
        values: the parameters of the pipeline. If they do not name the classes, `train_gan` and `generate_images` are
            one row each until `prepare_data` has found the classes; see `TaskTable.expand`.
    """
    classes = values["synthetic_classes"].strip()
    packs = pack_classifiers(arm_names(values), values["classifier_seeds"], 1_000)
    per_class = [class_labels(name, classes) if classes != "auto" else [name] for name in PER_CLASS]
    return [
        "check_inputs",
        "prepare_data",
        *(["read_champion"] if placement().options.champion != "none" else []),
        *classifier_labels(packs.real),
        "read_other_data",
        "train_features",
        "pretrain_gan",
        *(label for labels in per_class for label in labels),
        "balance_dataset",
        *classifier_labels(packs.synthetic),
        "evaluate",
        "publish",
    ]


def task_labels(component: str, arguments: Mapping[str, Any]) -> list[str]:
    """Return the labels of a task.

    Args:
        component: its component.
        arguments: its arguments.
    """
    if component in PER_CLASS:
        return class_labels(component, arguments["classes"])
    if component == "train_classifier":
        return classifier_labels([arguments["pack"]])
    return [component]


@dataclass
class Row:
    """A row of the table.

    Attributes:
        label: phase, and class or arm and seed.
        state: a key of `STYLES`.
        started: time of the first line, or of the start of the task; None before.
        ended: time of the end; None before.
        progress: its last progress line; None before.
        progress_time: time of that line.
    """

    label: str
    state: str = "waiting"
    started: float | None = None
    ended: float | None = None
    progress: ProgressLine | None = None
    progress_time: float = 0.0

    def start(self, now: float) -> None:
        """Set the state to running; a row that runs keeps its time."""
        if self.state != "running":
            self.state, self.started, self.ended = "running", now, None

    def end(self, state: str, now: float) -> None:
        """Set the final state."""
        self.state, self.ended = state, now

    def is_complete(self) -> bool:
        """Return whether the last progress line is the final one."""
        return self.progress is not None and self.progress.count >= self.progress.total


def clock(seconds: float) -> str:
    """Return a duration for a column: minutes and seconds, with hours if there are any.

    Example:
        >>> clock(3905)
        '1:05:05'
    """
    minutes, second = divmod(int(max(seconds, 0)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def select_rows(rows: Sequence[Row], limit: int) -> list[Row]:
    """Return the rows that fit: those that run or failed, the next that wait, and the last that ended."""
    if len(rows) <= limit:
        return list(rows)
    active = [row for row in rows if row.state in ("running", "failed", "stopped")]
    waiting = [row for row in rows if row.state == "waiting"]
    ended = sorted((row for row in rows if row.state in ("done", "cached")), key=lambda row: -(row.ended or 0))
    shown = {id(row) for row in [*active, *waiting[: max(limit // 2, 1)], *ended, *waiting][: max(limit, 1)]}
    return [row for row in rows if id(row) in shown]


class _Terminal(Console):
    """A console that leaves the cursor visible: a killed run could not show it again."""

    def show_cursor(self, show: bool = True) -> bool:
        return False


class TaskTable:
    """A table that is redrawn in place, a context manager; when it ends, all rows stay on the terminal.

    Args:
        console: the terminal.
        labels: of the rows.
        start_time: when the run started, as of `time.monotonic`.
    """

    def __init__(self, console: TextIO, labels: Sequence[str], start_time: float) -> None:
        self._rows = [Row(label) for label in labels]
        self._start_time = start_time
        self._message = ""
        self._closed = False
        self._lock = threading.RLock()  # a signal's handler runs in the main thread, which may hold it
        self._terminal = _Terminal(file=console, force_terminal=True, force_interactive=True, highlight=False)
        self._live = Live(
            get_renderable=self._render,
            console=self._terminal,
            refresh_per_second=REFRESHES_PER_SECOND,
            redirect_stdout=False,  # kfp's output goes to the log
            redirect_stderr=False,
        )

    def __enter__(self) -> "TaskTable":
        """Show the table."""
        self._live.start(refresh=True)
        return self

    def __exit__(self, *exception: object) -> None:
        """Draw all rows a last time; those that still run were stopped."""
        with self._lock:
            self._closed = True
            for row in self._rows:
                if row.state == "running":
                    row.end("stopped", time.monotonic())
        self._live.stop()

    def _find(self, label: str) -> Row:
        """Return the row of a label; add one if it was not planned."""
        with self._lock:
            for row in self._rows:
                if row.label == label:
                    return row
            self._rows.append(Row(label))
            return self._rows[-1]

    def expand(self, label: str, labels: Sequence[str]) -> None:
        """Replace a row of unknown classes by one row per class."""
        with self._lock:
            for number, row in enumerate(self._rows):
                if row.label == label and row.state == "waiting":
                    self._rows[number : number + 1] = [Row(name) for name in labels]
                    return

    def start(self, labels: Sequence[str]) -> None:
        """Start a task; its other rows wait for their first line."""
        with self._lock:
            rows = [self._find(label) for label in labels]
            rows[0].start(time.monotonic())

    def update(self, labels: Sequence[str], text: str) -> None:
        """Process a line of a task, without its prefix.

        A row is done when its count is complete and another row of the same task has a line.
        """
        now = time.monotonic()
        with self._lock:
            self._message = text
            rows = [self._find(label) for label in labels]
            for row in rows:
                if text.startswith(f"{row.label}: "):
                    for other in rows:
                        if other is not row and other.state == "running" and other.is_complete():
                            other.end("done", now)
                    row.start(now)
                    if progress := parse_progress(text):
                        row.progress, row.progress_time = progress, now
        if "warning: " in text:
            self._terminal.print(Text(f"[{clock(now - self._start_time):>6}] {text}"), soft_wrap=True)

    def end(self, labels: Sequence[str], state: str) -> None:
        """End a task: its rows that ran are `failed` or `stopped`, or all rows are `done` or `cached`."""
        now = time.monotonic()
        with self._lock:
            for row in map(self._find, labels):
                if row.state == "running" or (row.state == "waiting" and state in ("done", "cached")):
                    row.end(state, now)

    def _render(self) -> Group:
        with self._lock:
            height = len(self._rows) if self._closed else self._terminal.size.height - OTHER_LINES
            rows = select_rows(self._rows, height)
            parts: list[Any] = [self._table(rows)]
            if hidden := [row for row in self._rows if row not in rows]:
                waiting = sum(row.state == "waiting" for row in hidden)
                counts = [
                    f"{number} {word}"
                    for number, word in ((len(hidden) - waiting, "finished"), (waiting, "waiting"))
                    if number
                ]
                parts.append(Text(f"and {', '.join(counts)}", style="dim"))
            if not self._closed:
                elapsed = clock(time.monotonic() - self._start_time)
                message = Text(f"[{elapsed:>6}] {self._message}", style="dim", no_wrap=True, overflow="ellipsis")
                # The cursor is on an empty line, where the shell continues if the run is killed.
                parts += [message, Text("")]
            return Group(*parts)

    def _table(self, rows: Sequence[Row]) -> Table:
        wide = self._terminal.size.width >= WIDE
        table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
        table.add_column("task", no_wrap=True, overflow="ellipsis")
        table.add_column("state", no_wrap=True)
        if wide:
            table.add_column("", width=BAR_WIDTH)
        for name in ("progress", "rate", "ETA", "duration"):
            table.add_column(name, justify="right", no_wrap=True)
        for row in rows:
            cells = list(self._cells(row, wide))
            table.add_row(row.label, Text(row.state, style=STYLES[row.state]), *cells)
        return table

    def _cells(self, row: Row, wide: bool) -> Iterator[Any]:
        now, progress = time.monotonic(), row.progress
        if wide:
            yield ProgressBar(progress.total, progress.count, BAR_WIDTH) if progress else ""
        if progress:
            count = f"{progress.count:,.{progress.digits}f}/{progress.total:,.{progress.digits}f}"
            yield f"{count} {progress.unit}" if wide else count
            yield f"{progress.rate:,.0f} {progress.rate_unit}/s" if wide else f"{progress.rate:,.0f}/s"
        else:
            yield from ("", "")
        left_s = progress.left_s if progress and row.state == "running" else None
        yield "" if left_s is None else clock(left_s - (now - row.progress_time))
        yield "" if row.started is None else clock((row.ended or now) - row.started)
