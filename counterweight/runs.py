"""List the finished runs in a folder.

Prints a line for each run, the newest first, and writes `index.html` into the folder, with links to the reports.
Folders that are no finished run of this version are listed with the reason.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO
from urllib.parse import quote

from components.evaluate.report.formatting import effect_name, show, show_interval
from components.shared import html_page
from components.shared.arms import BASELINE, title_of
from components.shared.errors import UserError, printable
from components.shared.files import file_sha256, write_text
from components.shared.records import Difference, Manifest, Results, load_record, path_below
from counterweight import parameters
from counterweight.run_options import expand
from counterweight.text_table import table_lines

DEFAULT = "runs"
INDEX = "index.html"
TITLE = "Counterweight: runs"
HEAD = ("run", "finished", "data", "split", "arms", "effect", "verdict", "best on validation")


@dataclass(frozen=True)
class Row:
    """A finished run.

    Attributes:
        name: of its folder.
        finished: when its manifest was written.
        report: whether it has a report.
        cells: the other columns of the table.
    """

    name: str
    finished: datetime
    report: bool
    cells: tuple[str, ...]


def read_run(folder: Path) -> Row:
    """Read a run from its manifest and results.

    Raises:
        UserError: it is not a finished run of this version, or its results differ from the manifest.
    """
    if folder.is_symlink():
        raise UserError(f"{folder} is a link", "name its target in DIR", "runs.link", path=str(folder))
    path = folder / "manifest.json"
    if not path.is_file():
        raise UserError(
            f"{folder} has no manifest.json: the run has not finished",
            "rerun its command to resume it",
            "runs.unfinished",
            path=str(folder),
        )
    manifest, metrics = load_record(path_below(folder, path.name), Manifest), path_below(folder, "metrics.json")
    results = load_record(metrics, Results)
    entry = manifest.files.get("metrics.json")
    if entry is None or file_sha256(metrics) != entry.sha256:
        raise UserError(
            f"{folder}: metrics.json differs from the published file",
            "publish the run again",
            "runs.changed",
            path=str(folder),
        )
    finished = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return Row(folder.name, finished, "report.html" in manifest.files, _cells(results))


def _cells(results: Results) -> tuple[str, ...]:
    run, effect = results.run, results.effect
    gain = next((it for it in effect.remedies if it.arm == effect.best), None)
    best = title_of(effect.best) + (f": {_difference(gain)} on the baseline" if gain and gain.arm != BASELINE else "")
    arms = f"{len(results.arms)}, {len(run.seeds)} seed{'s' * (len(run.seeds) > 1)}"
    return (
        run.data.rstrip("/").rpartition("/")[2] or run.data,
        run.split.rpartition("/")[2] if "://" in run.split or run.split.startswith("/") else run.split,
        arms,
        f"{effect_name(effect.arm)} {_difference(effect)}",
        results.verdict,
        best,
    )


def _difference(found: Difference) -> str:
    if found.value is None:
        return "n/a"
    return f"{show(found.value, '+')} ({show_interval((found.low, found.high), '+')})"


def read_all(folder: Path) -> tuple[list[Row], list[tuple[str, str]]]:
    """Return the finished runs in a folder, the newest first, and name and reason of each other folder."""
    rows, others = [], []
    for entry in sorted(os.scandir(folder), key=lambda entry: os.fsencode(entry.name)):
        if entry.name.startswith("."):
            continue
        try:
            if entry.is_dir():
                rows.append(read_run(Path(entry.path)))
        except UserError as error:
            others.append((entry.name, _without_folder(error.message, entry.path)))
        except OSError as error:  # such as a folder without permission to read, or a loop of links
            others.append((entry.name, error.strerror or type(error).__name__))
    return sorted(rows, key=lambda row: (row.finished, row.name), reverse=True), others


def _without_folder(message: str, folder: str) -> str:
    """Return the message of an error without the path of the folder that it is about."""
    return message.replace(f"{printable(folder)}/", "").removeprefix(printable(folder)).lstrip(": ")


def render_index(rows: Sequence[Row], others: Sequence[tuple[str, str]]) -> str:
    """Return the index page, with a link to each report; all texts are escaped."""
    cells = []
    for row in rows:
        address = f"./{quote(os.fsencode(row.name), safe='')}/report.html"
        name = html_page.link(address, printable(row.name)) if row.report else printable(row.name)
        cells.append([name, f"{row.finished:%Y-%m-%d %H:%M} UTC", *map(printable, row.cells)])
    parts = [html_page.table(HEAD, cells) if rows else "There is no finished run."]
    if others:
        parts += [
            html_page.heading("Folders without a finished run"),
            html_page.table(("folder", "reason"), [[printable(name), printable(reason)] for name, reason in others]),
        ]
    return html_page.render(TITLE, parts)


def _check_folder(place: str) -> Path:
    """Return the folder of the runs.

    Raises:
        UserError: `runs.missing_folder`, `runs.is_a_run` or `runs.foreign_index`.
    """
    folder = Path(expand(place))
    if "\0" in place or not folder.is_dir():
        raise UserError(
            f"DIR is {place}, which is not an existing folder", "give the folder of the runs", "runs.missing_folder"
        )
    if (folder / "manifest.json").is_file():
        raise UserError(
            f"DIR is {place}, which is one run", f"give the folder above it, {folder.parent}", "runs.is_a_run"
        )
    index = folder / INDEX
    if index.is_symlink() or (index.exists() and not _is_own(index)):
        raise UserError(
            f"{index} is not an index of runs", "move it, or name another folder in DIR", "runs.foreign_index"
        )
    return folder


def _is_own(index: Path) -> bool:
    if not index.is_file():
        return False
    with index.open("rb") as file:
        return f"<title>{TITLE}</title>".encode() in file.read(2_000)


def run(words: list[str], out: TextIO) -> int:
    """Run the command and return its exit code."""
    given = parameters.assignments(words)
    folder = _check_folder(given.get("DIR", "") or DEFAULT)
    rows, others = read_all(folder)
    write_text(folder / INDEX, render_index(rows, others))
    if rows:
        cells = [HEAD, *([row.name, f"{row.finished:%Y-%m-%d %H:%M}", *row.cells] for row in rows)]
        print("\n".join(table_lines(cells)), file=out)
    for name, reason in others:
        print(f"not a finished run: {printable(name)}: {printable(reason)}", file=out)
    print(f"finished runs: {len(rows):,}; index: {printable(str(folder / INDEX))}", file=out, flush=True)
    return 0
