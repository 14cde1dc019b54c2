"""Class probabilities of the classifiers, and the table that stores them."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from components.evaluate.predict.inputs import Classifier
from components.evaluate.predict.models import load_classifier
from components.shared import keras_setup
from components.shared.errors import UserError
from components.shared.image_set import Pixels
from components.shared.log import log_line
from components.shared.patient_metadata import encode_optional

SUM_TOLERANCE = 1e-3
"""Maximum deviation from 1 of the sum of the probabilities of an image; float32 rounding is far below."""


def predict(
    classifiers: Mapping[str, Sequence[Classifier]], sets: Mapping[str, Pixels]
) -> dict[str, dict[str, np.ndarray]]:
    """Return the class probabilities that each model predicts; each model is loaded once.

    Args:
        classifiers: arm → classifiers, one per seed.
        sets: name → images.

    Returns:
        Set → arm → (seeds, N, classes) float32 in [0, 1].

    Raises:
        UserError: `model.invalid`: a model is damaged, is no classifier of these images, or predicts no probabilities.
    """
    collected: dict[str, dict[str, list[np.ndarray]]] = {name: {arm: [] for arm in classifiers} for name in sets}
    sizes = ", ".join(f"{len(pixels.images):,} {name}" for name, pixels in sets.items())
    header = next(iter(sets.values())).header
    for arm, of_arm in classifiers.items():
        for classifier in of_arm:
            encoding = classifier.record.metadata
            model = load_classifier(classifier.model, header.image_size, len(header.classes), encoding)
            for name, pixels in sets.items():
                codes = encode_optional(encoding, pixels.metadata)
                probabilities = keras_setup.predict_probabilities(model, pixels.images, codes)
                if not is_distribution(probabilities):
                    raise UserError(
                        f"{classifier.model.name} does not return probabilities",
                        "use the unchanged files of one run",
                        "model.invalid",
                        file=classifier.model.name,
                    )
                collected[name][arm].append(probabilities)
        log_line("evaluate", f"{arm}: {len(of_arm)} models, {sizes} images")
    return {name: {arm: np.stack(of_seeds) for arm, of_seeds in by_arm.items()} for name, by_arm in collected.items()}


def predictions_table(
    rows: pd.DataFrame,
    name: str,
    probabilities: Mapping[str, np.ndarray],
    seeds: Sequence[int],
    classes: Sequence[str],
) -> pd.DataFrame:
    """Return a row for each arm, seed and image of a set.

    The columns are image_id, lesion_id, dx, arm, seed, set and p_<class> for each class.

    Args:
        rows: image_id, lesion_id and dx of the set's N images.
        name: name of the set.
        probabilities: arm → (seeds, N, classes).
        seeds, classes: names of these axes.
    """
    columns = [f"p_{dx}" for dx in classes]
    return pd.concat(
        [
            rows.assign(arm=arm, seed=seed, set=name, **dict(zip(columns, of_seed.T, strict=True)))
            for arm, by_seed in probabilities.items()
            for seed, of_seed in zip(seeds, by_seed, strict=True)
        ]
    )


def is_distribution(probabilities: np.ndarray) -> bool:
    """Return whether each row of (…, classes) values is a probability distribution."""
    return bool(
        np.isfinite(probabilities).all()
        and (probabilities >= 0).all()
        and (np.abs(probabilities.sum(-1) - 1) <= SUM_TOLERANCE).all()
    )


def load_probabilities(
    table: pd.DataFrame, name: str, arms: Sequence[str], seeds: Sequence[int], classes: Sequence[str]
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Return the rows and probabilities of a set: the inverse of `predictions_table`.

    Raises:
        UserError: `predictions.invalid`: an image of an arm or seed is missing or repeated, a class is unknown, or a
            row is not a probability distribution.
    """
    columns = [f"p_{dx}" for dx in classes]
    try:
        of_set = table[table["set"] == name]
        parts = dict(iter(of_set.groupby(["arm", "seed"])))
        first = parts[arms[0], seeds[0]]
        names = first["image_id"]
        probabilities = {
            arm: np.stack(
                [parts[arm, seed].set_index("image_id").loc[names, columns].to_numpy(float) for seed in seeds]
            )
            for arm in arms
        }
        if not names.is_unique:
            raise ValueError("repeated image")
        rows = first[["image_id", "lesion_id", "dx"]].reset_index(drop=True)
        values = np.stack([probabilities[arm] for arm in arms])
        valid = bool(
            len(of_set) == len(rows) * len(arms) * len(seeds)
            and rows["dx"].isin(list(classes)).all()
            and rows["lesion_id"].notna().all()
            and is_distribution(values)
        )
    except (KeyError, ValueError, TypeError):
        valid = False
    if not valid:
        raise UserError(
            f"predictions.parquet has no valid probabilities of the {name} images",
            "use the unchanged files of one run",
            "predictions.invalid",
            set=name,
        )
    return rows, probabilities
