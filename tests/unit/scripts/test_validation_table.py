import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss, recall_score, roc_auc_score

from components.shared.errors import UserError
from scripts import validation_table
from tests.helpers.published_run import IMAGES, write_run


def cells_of(runs: list[Path]) -> dict[tuple[str, str], list[str]]:
    """Return (run, arm) → the cells of its row."""
    lines = list(validation_table.table_of(runs))[2:]
    cells = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in lines]
    return {(row[0], row[1]): row[2:] for row in cells}


def interval_of(cell: str) -> tuple[float, float, float]:
    """Return value, low and high of a cell."""
    found = re.fullmatch(r"(\S+) \((\S+) to (\S+)\)", cell.replace("−", "-"))
    assert found, cell
    value, low, high = map(float, found.groups())
    return value, low, high


def test_figures_are_those_of_scikit_learn(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    table = pd.read_parquet(run / "predictions.parquet")
    classes, figures = list(IMAGES), []
    for _, rows in table[(table["set"] == "validation") & (table["arm"] == "baseline")].groupby("seed"):
        scores = rows[[f"p_{dx}" for dx in classes]].to_numpy()
        weight = 1 / rows["dx"].map(IMAGES)
        aucs = [roc_auc_score(rows["dx"] == dx, scores[:, label]) for label, dx in enumerate(classes)]
        predicted = np.array(classes)[scores.argmax(1)]
        rare = list(validation_table.load_run(run)[0].run.rare_classes)
        recall = recall_score(rows["dx"], predicted, labels=rare, average="macro")
        loss = log_loss(rows["dx"], scores, sample_weight=weight, labels=classes)
        figures.append((loss, np.mean(aucs), recall, recall_score(rows["dx"], predicted, average="macro")))
    assert cells_of([run])["run", "baseline"][::2] == [f"{value:.3f}" for value in np.mean(figures, axis=0)]


def test_differences_are_those_to_the_control_of_the_first_run(tmp_path: Path) -> None:
    """The control of the first run differs by 0 from itself; a better arm of another run has a lower loss."""
    runs = [write_run(tmp_path / "first"), write_run(tmp_path / "second", skill=3.0)]
    cells = cells_of(runs)
    assert cells["first", "oversampled"][1] == "+0.000 (+0.000 to +0.000)"
    value, low, high = interval_of(cells["second", "augmented@1"][1])
    assert low < value < high < 0
    expected = float(cells["second", "augmented@1"][0]) - float(cells["first", "oversampled"][0])
    assert value == pytest.approx(expected, abs=0.0011)  # of two rounded figures


def test_images_of_runs_are_paired_by_their_ids(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "first"), write_run(tmp_path / "second", skill=3.0)]
    expected = cells_of(runs)
    path = runs[1] / "predictions.parquet"
    pd.read_parquet(path).sample(frac=1, random_state=1).to_parquet(path, index=False)
    assert cells_of(runs) == expected


def test_runs_of_another_split_are_refused(tmp_path: Path) -> None:
    """Their validation images differ."""
    runs = [write_run(tmp_path / "first"), write_run(tmp_path / "second", split_sha256="f" * 64)]
    with pytest.raises(UserError, match="different splits or seeds"):
        list(validation_table.table_of(runs))


def test_one_seed_has_an_interval_over_the_choice_of_lesions(tmp_path: Path) -> None:
    cells = cells_of([write_run(tmp_path / "run", seeds=1, skill=1.5)])
    for cell in cells["run", "augmented@1"][1::2]:
        value, low, high = interval_of(cell)
        assert low < value < high
