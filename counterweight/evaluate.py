"""Evaluate a published run on external data, or pool the folds of a k-fold run.

External images may have any layout; classes may be missing. The results of a run in object storage need OUT.
"""

import os
import tempfile
from pathlib import Path
from typing import NamedTuple, TextIO

from components.shared.errors import UserError
from components.shared.records import path_below
from components.shared.stores.addresses import parse as parse_address
from counterweight import parameters
from counterweight.keras_start import start_keras
from counterweight.run import check_writable
from counterweight.run_options import check_run, expand, missing_option


class Arguments(NamedTuple):
    """Options of the command; `external` is empty if folds are pooled."""

    runs: list[str]
    external: str
    folder: Path
    duplicates: str
    columns: str
    max_bad_images: int


def arguments(words: list[str]) -> Arguments:
    """Return the options.

    Raises:
        UserError: an option is missing or invalid, or `storage.invalid_address`.
    """
    given = parameters.assignments(words)
    runs = [expand(run) for run in given.get("RUN", "").split(",") if run.strip()]
    external, out = expand(given.get("EXTERNAL", "")), given.get("OUT", "")
    if not runs:
        raise missing_option("RUN", "give the folder of a published run")
    for run in runs:
        check_run(run)
    if "://" in external:
        parse_address(external)
    if len(runs) == 1 and not external:
        raise missing_option("EXTERNAL", "give the external images, or in RUN all folds of a k-fold run")
    if len(runs) > 1 and external:
        raise UserError(
            "EXTERNAL is given with several runs", "give one run, or omit EXTERNAL to pool folds", "option.conflict"
        )
    if not out and (len(runs) > 1 or "://" in runs[0]):
        raise missing_option("OUT", "give a folder for the results")
    if "://" in out:
        raise UserError(f"OUT is {out}", "give a folder on this machine", "option.invalid", option="OUT")
    bad = given.get("max_bad_images", "10")
    if not bad.isdecimal() or len(bad) > 9:
        raise UserError(f"max_bad_images is {bad!r}", "give a whole number", "option.invalid", option="max_bad_images")
    folder = Path(expand(out)).resolve() if out else path_below(runs[0], "external")
    if any(Path(run).resolve() == folder for run in runs if "://" not in run):
        raise UserError(
            f"OUT is {out}, which is the run itself",
            "choose another folder for the results",
            "option.invalid",
            option="OUT",
        )
    columns = given.get("data_columns", "auto")
    return Arguments(runs, external, folder, given.get("duplicates", "refuse"), columns, int(bad))


def run(words: list[str], out: TextIO) -> None:
    """Run the command."""
    runs, external, folder, duplicates, columns, max_bad_images = arguments(words)
    check_writable(folder, "OUT")
    start_keras()
    from components.evaluate.report.gallery import Gallery
    from components.evaluate.report.page import render_text
    from components.evaluate.results import headline, write_pages, write_results
    from components.prepare_data.external import prepare_external
    from counterweight import reevaluate

    with tempfile.TemporaryDirectory(prefix="counterweight-") as name:
        scratch = Path(name)
        opened = [reevaluate.open_published(run, scratch / str(number)) for number, run in enumerate(runs)]
        if external:
            images, run = scratch / "external", opened[0]
            known = run.file("splits.csv")
            prepare_external(
                external, run.classes, run.record.image_size, duplicates, max_bad_images, known, images, (columns,)
            )
            results, table = reevaluate.evaluate_external(run, external, images)
        else:
            results, table = reevaluate.pool_folds(opened)
    write_results(folder, results, table)
    write_pages(results, Gallery(), folder / "report.html", folder / "comparison.md")
    print(f"\n{render_text(results).rstrip()}\n", file=out)
    if results.external:
        print(f"{external}: {headline(results.external, results.run)}", file=out)
    print(f"report: {os.path.relpath(folder / 'report.html')}", file=out)
