"""A published run of one fold of a k-fold run, without models: results, simulated predictions and a manifest."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from components.evaluate.predict.probabilities import predictions_table
from components.evaluate.results import calibrate_arms, compare_on
from components.evaluate.statistics.compare import count_images
from components.shared.records import ModelCurves, Results, RunRecord, write_record
from tests.helpers.published_run import write_manifest

ARMS = ("baseline", "oversampled", "augmented@1")
CLASSES = ("df", "mel", "nv")


def write_fold(folder: Path, split: str, lesions: range, skill: float = 0.5, **details: Any) -> Path:
    """Write a run.

    Args:
        folder: to create.
        split: its fold, such as `1/2`.
        lesions: numbers of its test lesions, of one image each and of the classes in turn.
        skill: of the augmented arms; the others have 0.5.
        **details: replace fields of `run` in the results.
    """
    rng = np.random.default_rng(lesions.start)
    seeds, rare, malignant = [1, 2], ["df", "mel"], ["mel"]

    def simulate(name: str, numbers: range) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
        ids = [f"{name}-{number}" for number in numbers]
        rows = pd.DataFrame({"image_id": ids, "lesion_id": ids, "dx": [CLASSES[number % 3] for number in numbers]})
        truth = rows["dx"].map(CLASSES.index).to_numpy()
        raw = {
            arm: rng.dirichlet(np.ones(3), (2, len(ids))) + np.eye(3)[truth] * (skill if "@" in arm else 0.5)
            for arm in ARMS
        }
        return rows, {arm: values / values.sum(2, keepdims=True) for arm, values in raw.items()}

    tests, validation = simulate("test", lesions), simulate(f"validation-{lesions.start}", range(40))
    splits = {name: count_images(tests[0], CLASSES) for name in ("train", "test")}
    splits["validation"] = count_images(validation[0], CLASSES)
    images = {dx: counts.images for dx, counts in splits["train"].items()}
    calibrations = calibrate_arms(*validation, CLASSES, malignant, images)
    compared = compare_on(*tests, calibrations, CLASSES, malignant, rare, seeds, 1)
    model = ModelCurves(epochs=1, real_views=1.0, validated_epochs=[1], history={}, seconds=1.0)
    trained = {"train_rows": 9, "models": {"1": model, "2": model}}
    arms = {arm: figures.model_copy(update=trained) for arm, figures in compared.arms.items()}
    run = {
        "data": "x", "data_sha256": "d", "split_sha256": split.replace("/", "-"), "split": split, "seed": 1,
        "seeds": seeds, "image_size": 32, "rare_classes": rare, "rebalanced_classes": rare, "malignant": malignant,
        "settings": {}, "parameters": {"data_split": split, "gan_kimg": 3.0}, "versions": {},
        "pretraining_s": 60.0 + lesions.start,
    } | details  # fmt: skip
    results = Results(
        run=RunRecord(**run),
        classes=list(CLASSES),
        splits=splits,
        arms=arms,
        effect=compared.effect,
        verdict=compared.verdict,
        synthetic={},
        external=None,
    )
    folder.mkdir()
    write_record(folder / "metrics.json", results)
    tables = [
        predictions_table(*part, seeds, CLASSES)
        for part in ((tests[0], "test", tests[1]), (validation[0], "validation", validation[1]))
    ]
    pd.concat(tables).to_parquet(folder / "predictions.parquet")
    return write_manifest(folder)
