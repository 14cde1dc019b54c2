"""Label fidelity: how often classifiers trained on real images alone recognise the class of synthetic images."""

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from components.evaluate.predict.inputs import Inputs
from components.evaluate.predict.neighbours import decode_table
from components.shared import keras_setup
from components.shared.arms import CONTROL, parse_synthetic_key
from components.shared.image_set import iter_tables
from components.shared.log import log_line

ARM = CONTROL
"""The arm whose classifiers are used: the counterpart of augmented that was trained on real images alone."""
MAX_IMAGES = 1_000
"""Maximum number of synthetic images per class that are classified."""


def _share_assigned(model: keras.Model, path: Path, dx: str, label: int) -> float:
    """Return the share of the first images of a class, at most `MAX_IMAGES`, that a classifier assigns to it.

    One row group is decoded at a time. The images have the order of their noise, which is random, so the first ones
    represent all of them.
    """
    assigned, left = [], MAX_IMAGES
    for table in iter_tables(path, dx):
        images = np.stack(decode_table(table.slice(0, left)))
        assigned += (keras_setup.predict_probabilities(model, images).argmax(axis=1) == label).tolist()
        left -= len(images)
        if not left:
            break
    return float(np.mean(assigned))


def measure(
    inputs: Inputs, validation: pd.DataFrame, probabilities: np.ndarray, classes: Sequence[str]
) -> dict[str, tuple[float, float | None]]:
    """Return `synthetic_key` → `label_fidelity` and `validation_recall`, as in `SyntheticDetails`.

    Args:
        inputs: inputs of the run.
        validation: dx of the N real validation images.
        probabilities: (seeds, N, classes) of the classifiers of `ARM` for these images.
        classes: names of the last axis.
    """
    shares: dict[str, list[float]] = {key: [] for key in inputs.synthetic_keys}
    labels = {key: list(classes).index(parse_synthetic_key(key)[1]) for key in shares}
    for classifier in inputs.classifiers[ARM]:
        model = keras.saving.load_model(classifier.model, compile=False)
        for key, label in labels.items():
            shares[key].append(_share_assigned(model, inputs.synthetic_sets[key], classes[label], label))
    if shares:
        log_line("evaluate", f"label fidelity of the synthetic images of {', '.join(shares)}")
    predicted, truth = probabilities.argmax(axis=2), validation["dx"].to_numpy()
    recalls = {key: (predicted[:, truth == classes[label]] == label) for key, label in labels.items()}
    return {
        key: (float(np.mean(of_seeds)), float(recalls[key].mean()) if recalls[key].size else None)
        for key, of_seeds in shares.items()
    }
