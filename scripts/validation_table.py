"""Compare runs on validation images alone: `python -m scripts.validation_table RUN [RUN…]`.

For decisions about the design, which must not see test images. Prints a table in Markdown with a row for each run and
arm: mean over the seeds of three metrics, and the differences to the arm `oversampled` of the first run, seed by seed.
The runs must have the same split.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import recall_score, roc_auc_score

from components.evaluate.predict.probabilities import load_probabilities
from components.evaluate.results import labels_of
from components.evaluate.statistics.metrics import balanced_log_loss
from components.shared.arms import CONTROL
from components.shared.errors import UserError, exit_on_user_error
from components.shared.records import Results, load_record

METRICS = ("balanced log loss", "macro AUC", "mean recall, rare classes")


def measure(truth: np.ndarray, probabilities: np.ndarray, rare: Sequence[int]) -> tuple[float, float, float]:
    """Return `METRICS` of one model; classes without images do not count.

    Args:
        truth: (N,) int label.
        probabilities: (N, classes).
        rare: labels of the rare classes.
    """
    present = np.unique(truth)
    aucs = [roc_auc_score(truth == label, probabilities[:, label]) for label in present]
    labels = np.intersect1d(rare, present)
    recall = recall_score(truth, probabilities.argmax(1), labels=labels, average="macro")
    return balanced_log_loss(truth, probabilities), float(np.mean(aucs)), float(recall)


def figures_of(run: Path) -> tuple[Results, dict[str, np.ndarray]]:
    """Return the results of a run, and arm → (seeds, metrics) on its validation images."""
    results = load_record(run / "metrics.json", Results)
    classes = tuple(results.classes)
    table = pd.read_parquet(run / "predictions.parquet")
    rows, probabilities = load_probabilities(table, "validation", tuple(results.arms), results.run.seeds, classes)
    rare = [classes.index(dx) for dx in results.run.rare_classes]
    truth = labels_of(rows, classes)
    return results, {
        arm: np.array([measure(truth, of_seed, rare) for of_seed in by_seed]) for arm, by_seed in probabilities.items()
    }


def table_of(runs: Sequence[Path]) -> Iterator[str]:
    """Yield the lines of the table.

    Raises:
        UserError: `validation_table.other_split`: the runs differ in their split or seeds.
    """
    first, reference = figures_of(runs[0])
    yield f"| run | arm | {' | '.join(f'{name} | difference' for name in METRICS)} |"
    yield "|---|---|" + "--:|" * (2 * len(METRICS))
    for run in runs:
        results, arms = figures_of(run)
        if (results.run.split_sha256, results.run.seeds) != (first.run.split_sha256, first.run.seeds):
            raise UserError(
                f"{run} and {runs[0]} have different splits or seeds",
                "compare runs of the same split and seeds",
                "validation_table.other_split",
            )
        for arm, values in arms.items():
            mean, by_seed = values.mean(0), values - reference[CONTROL]
            errors = by_seed.std(0, ddof=1) / len(by_seed) ** 0.5 if len(by_seed) > 1 else [None] * len(METRICS)
            cells = (
                f"{value:.3f} | {difference:+.3f}" + (f" ± {error:.3f}" if error is not None else "")
                for value, difference, error in zip(mean, by_seed.mean(0), errors, strict=True)
            )
            yield f"| {run.name} | `{arm}` | {' | '.join(cells)} |".replace(" -", " −")


def main(runs: Sequence[str]) -> None:
    """Print the table."""
    if not runs:
        raise UserError("no run is given", "give the folders of finished runs", "validation_table.no_run")
    print("\n".join(table_of([Path(run) for run in runs])))
    print("\nDifferences: mean over the seeds ± standard error.")


if __name__ == "__main__":
    with exit_on_user_error():
        main(sys.argv[1:])
