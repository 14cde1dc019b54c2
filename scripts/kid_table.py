"""Show how steadily GANs improve: `python -m scripts.kid_table RUN [RUN…]`, of finished runs.

Prints a table in Markdown with a row for each GAN: KID of its snapshots, and the largest ratio of a snapshot's KID to
the lowest before. The ratio is near 1 if training is stable. KID is in the features of the run: compare GANs of one run
only. A KID of a few images can be 0 or negative, which has no ratio.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from components.shared.errors import UserError, exit_on_user_error
from components.shared.records import FailedGan, SharedGan, TrainedGan, load_gan_record, load_record
from scripts.results_tables import markdown_table

HEADER = (
    "run",
    "GAN",
    "kimg",
    "snapshots",
    "first KID",
    "lowest",
    "last",
    "largest ratio to the lowest before",
    "minutes",
)


def largest_rise(values: Sequence[float]) -> float | None:
    """Return the largest ratio of a value to the lowest before it; None with a single value, or with one of 0 or less.

    Example:
        >>> largest_rise([0.8, 0.2, 0.3, 0.1])
        1.5
    """
    if len(values) < 2 or min(values[:-1]) <= 0:
        return None
    lowest = np.minimum.accumulate(values)[:-1]
    return round(float((np.array(values[1:]) / lowest).max()), 6)


def _read_gans(run: Path) -> Iterator[tuple[str, SharedGan | TrainedGan]]:
    """Yield name and record of the shared GAN, if any, and of each class's GAN that did not fail."""
    if (shared := run / "models" / "shared.json").is_file():
        yield "shared", load_record(shared, SharedGan)
    for path in sorted((run / "models").glob("gan-*.json")):
        record = load_gan_record(path)
        if not isinstance(record, FailedGan):
            yield record.dx, record


def table_of(runs: Sequence[Path]) -> Iterator[str]:
    """Yield the lines of the table.

    Raises:
        UserError: `kid_table.no_gans`: a run has no GAN.
    """
    rows = []
    for run in runs:
        gans = list(_read_gans(run))
        if not gans:
            raise UserError(f"{run} has no GAN", "give the folders of finished runs with GANs", "kid_table.no_gans")
        for name, record in gans:
            values = record.kid.value
            rise = largest_rise(values)
            figures = (f"{value:.3f}".replace("-", "−") for value in (values[0], min(values), values[-1]))
            ratio = "" if rise is None else f"{rise:.2f}"
            minutes = f"{record.seconds / 60:.1f}"
            rows.append((run.name, name, f"{record.kimg:g}", str(len(values)), *figures, ratio, minutes))
    yield from markdown_table(HEADER, rows)


def main(runs: Sequence[str]) -> None:
    """Print the table."""
    if not runs:
        raise UserError("no run is given", "give the folders of finished runs", "kid_table.no_run")
    print("\n".join(table_of([Path(run) for run in runs])))


if __name__ == "__main__":
    with exit_on_user_error():
        main(sys.argv[1:])
