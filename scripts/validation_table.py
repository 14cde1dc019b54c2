"""Compare runs on validation images alone: `python -m scripts.validation_table RUN [RUN…]`.

For decisions about the design, which must not see test images. Prints a table in Markdown with a row for each run and
arm: mean over the seeds of four metrics, and the differences to the arm `oversampled` of the first run, with the 95 %
interval of the report: over the seeds, and over the choice of the lesions. The intervals are not corrected for their
number. The runs must have the same split.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from components.evaluate.predict.probabilities import load_probabilities
from components.evaluate.results import labels_of
from components.evaluate.statistics.inference import Bootstrap
from components.evaluate.statistics.metrics import Predictions, Sample
from components.shared.arms import CONTROL
from components.shared.errors import UserError, exit_on_user_error
from components.shared.records import Difference, Results, load_record

METRICS = {
    "balanced_log_loss": "balanced log loss",
    "macro_auc": "macro AUC",
    "rare_recall": "mean recall, rare classes",
    "balanced_accuracy": "balanced accuracy",
}
"""The metrics of the table, by their names in the record; the log loss is without temperature scaling."""
LEGEND = "Differences: mean over the seeds, and its 95 % interval over seeds and validation lesions."
SEED = 1
"""Seed of the resampling."""


def load_run(run: Path) -> tuple[Results, Sample, dict[str, Predictions]]:
    """Return the results of a run, its validation images in the order of their ids, and the predictions of each arm."""
    results = load_record(run / "metrics.json", Results)
    classes = tuple(results.classes)
    table = pd.read_parquet(run / "predictions.parquet").sort_values("image_id", kind="stable")
    rows, probabilities = load_probabilities(table, "validation", tuple(results.arms), results.run.seeds, classes)
    sample = Sample(labels_of(rows, classes), rows["lesion_id"].to_numpy(), classes)
    return results, sample, {arm: Predictions(of_arm, of_arm) for arm, of_arm in probabilities.items()}


def _cells(points: np.ndarray, difference: Difference) -> str:
    """Return a metric, (seeds,), and its difference; empty if undefined."""
    value, low, high = difference.value, difference.low, difference.high
    if value is None or low is None or high is None:
        return " | "
    return f"{points.mean():.3f} | {value:+.3f} ({low:+.3f} to {high:+.3f})".replace("-", "−")


def table_of(runs: Sequence[Path]) -> Iterator[str]:
    """Yield the lines of the table.

    Raises:
        UserError: `validation_table.other_split`: the runs differ in their split or seeds.
    """
    first, sample, _ = load_run(runs[0])
    rows: dict[str, tuple[str, str]] = {}
    predictions: dict[str, Predictions] = {}
    for number, run in enumerate(runs):
        results, _, arms = load_run(run)
        if (results.run.split_sha256, results.run.seeds) != (first.run.split_sha256, first.run.seeds):
            raise UserError(
                f"{run} and {runs[0]} have different splits or seeds",
                "compare runs of the same split and seeds",
                "validation_table.other_split",
            )
        for arm, of_arm in arms.items():
            rows[f"{number}/{arm}"], predictions[f"{number}/{arm}"] = (run.name, arm), of_arm
    bootstrap = Bootstrap(sample, predictions, tuple(first.run.rare_classes), SEED)
    yield f"| run | arm | {' | '.join(f'{name} | difference' for name in METRICS.values())} |"
    yield "|---|---|" + "--:|" * (2 * len(METRICS))
    for key, (name, arm) in rows.items():
        differences = {metric: bootstrap.difference(metric, key, f"0/{CONTROL}") for metric in METRICS}
        cells = (_cells(bootstrap.points[key][metric], it) for metric, it in differences.items())
        yield f"| {name} | `{arm}` | {' | '.join(cells)} |"


def main(runs: Sequence[str]) -> None:
    """Print the table."""
    if not runs:
        raise UserError("no run is given", "give the folders of finished runs", "validation_table.no_run")
    print("\n".join(table_of([Path(run) for run in runs])))
    print(f"\n{LEGEND}")


if __name__ == "__main__":
    with exit_on_user_error():
        main(sys.argv[1:])
