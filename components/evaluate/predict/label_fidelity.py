"""Label fidelity: how often classifiers trained on real images alone recognise the class of synthetic images."""

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from components.evaluate.predict.inputs import Classifier, Inputs
from components.evaluate.predict.neighbours import decode_table
from components.shared import keras_setup
from components.shared.arms import CONTROL, parse_synthetic_key
from components.shared.image_set import iter_tables, open_pixels
from components.shared.log import log_line
from components.shared.patient_metadata import encode_missing

ARM = CONTROL
"""The arm whose classifiers are used: the counterpart of augmented that was trained on real images alone."""
MAX_IMAGES = 1_000
"""Maximum number of synthetic images per class that are classified."""


def _predict_without_metadata(classifier: Classifier, model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Return (N,) int, the predicted classes; metadata are missing, because synthetic images have no patient."""
    encoding = classifier.record.metadata
    codes = encode_missing(encoding, len(images)) if encoding else None
    return keras_setup.predict_probabilities(model, images, codes).argmax(axis=1)


def _predict_validation(inputs: Inputs, probabilities: np.ndarray) -> np.ndarray:
    """Return (seeds, N) int, the predicted classes of the validation images, without their metadata.

    Args:
        inputs: inputs of the run.
        probabilities: (seeds, N, classes) with their metadata.
    """
    classifiers = inputs.classifiers[ARM]
    if not any(classifier.record.metadata for classifier in classifiers):
        return probabilities.argmax(axis=2)
    with open_pixels(inputs.sets["validation"], "validation") as pixels:
        return np.stack(
            [
                _predict_without_metadata(it, keras.saving.load_model(it.model, compile=False), pixels.images)
                for it in classifiers
            ]
        )


def _share_assigned(classifier: Classifier, model: keras.Model, path: Path, dx: str, label: int) -> float:
    """Return the share of the first images of a class, at most `MAX_IMAGES`, that a classifier assigns to it.

    One row group is decoded at a time. The images have the order of their noise, which is random, so the first ones
    represent all of them.
    """
    assigned, left = [], MAX_IMAGES
    for table in iter_tables(path, dx):
        images = np.stack(decode_table(table.slice(0, left)))
        assigned += (_predict_without_metadata(classifier, model, images) == label).tolist()
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
            shares[key].append(_share_assigned(classifier, model, inputs.synthetic_sets[key], classes[label], label))
    if shares:
        log_line("evaluate", f"label fidelity of the synthetic images of {', '.join(shares)}")
    predicted, truth = _predict_validation(inputs, probabilities), validation["dx"].to_numpy()
    recalls = {key: (predicted[:, truth == classes[label]] == label) for key, label in labels.items()}
    return {
        key: (float(np.mean(of_seeds)), float(recalls[key].mean()) if recalls[key].size else None)
        for key, of_seeds in shares.items()
    }
