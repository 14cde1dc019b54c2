"""Label fidelity with classifiers whose answers are known."""

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

from components.evaluate.predict import label_fidelity
from components.evaluate.predict.inputs import Inputs, read_inputs
from components.shared.image_set import ROW_GROUP, encode_png, pixel_sha256, read_header, write_image_set
from tests.integration.evaluate.conftest import RunFolders

CLASSES = ("df", "nv", "vasc")
DARK, MEDIUM, BRIGHT = 40, 120, 200


def save_threshold_classifier(path: Path, threshold: float) -> None:
    """Save a classifier that calls an image df if its mean grey level is above the threshold, and nv otherwise."""
    inputs = keras.Input((32, 32, 3))
    mean = keras.layers.GlobalAveragePooling2D()(inputs)
    scores = keras.layers.Dense(3, "softmax")
    model = keras.Model(inputs, scores(mean))
    scores.set_weights([np.outer(np.ones(3) / 3, [1, -1, 0]), np.array([-threshold, threshold, -1e3])])
    model.save(path)


def write_grey_levels(path: Path, header_of: Path, levels: list[int]) -> None:
    """Write uniform images of the class df."""
    images = [np.full((32, 32, 3), level, np.uint8) for level in levels]
    with write_image_set(path, read_header(header_of)) as out:
        for start in range(0, len(images), ROW_GROUP):
            part = images[start : start + ROW_GROUP]
            names = [f"df-{start + n}" for n in range(len(part))]
            rows = {"image_id": names, "dx": "df", "source": "gan", "pixel_sha256": list(map(pixel_sha256, part))}
            out.write(pd.DataFrame(rows), list(map(encode_png, part)))


@pytest.fixture
def inputs(run: RunFolders, tmp_path: Path) -> Inputs:
    """The run with two oversampled classifiers: one calls medium and bright images df, one bright ones only."""
    arguments = run.arguments
    names = ("training_data", "test_data", "synthetic_images", "classifiers")
    found = read_inputs(*(arguments[name] for name in names))
    models = []
    for classifier, threshold in zip(found.classifiers["oversampled"], (80, 160), strict=True):
        models.append(replace(classifier, model=tmp_path / f"{threshold}.keras"))
        save_threshold_classifier(models[-1].model, threshold)
    return replace(found, classifiers={"oversampled": models}, synthetic_sets={"df": tmp_path / "df.parquet"})


def probabilities_of(predicted: list[list[int]]) -> np.ndarray:
    return np.eye(3)[np.array(predicted)]


def test_measure_is_the_share_of_images_assigned_to_the_class_mean_over_seeds(inputs: Inputs, run: RunFolders) -> None:
    train_set = run.arguments["training_data"] / "train.parquet"
    write_grey_levels(inputs.synthetic_sets["df"], train_set, [DARK, DARK, MEDIUM, BRIGHT, BRIGHT])
    validation = pd.DataFrame({"dx": ["df", "nv", "df", "df", "vasc"]})
    predicted = probabilities_of([[0, 0, 0, 1, 0], [0, 1, 2, 1, 2]])
    shares = label_fidelity.measure(inputs, validation, predicted, CLASSES)
    assert shares == {"df": (pytest.approx((3 / 5 + 2 / 5) / 2), pytest.approx((2 / 3 + 1 / 3) / 2))}


def test_measure_uses_the_first_images_of_several_row_groups(inputs: Inputs, run: RunFolders) -> None:
    train_set = run.arguments["training_data"] / "train.parquet"
    counted = [BRIGHT] * 300 + [MEDIUM] * 100 + [DARK] * (label_fidelity.MAX_IMAGES - 400)
    write_grey_levels(inputs.synthetic_sets["df"], train_set, counted + [BRIGHT] * 150)
    shares = label_fidelity.measure(inputs, pd.DataFrame({"dx": ["nv"]}), probabilities_of([[0], [0]]), CLASSES)
    assert shares["df"] == (pytest.approx((0.4 + 0.3) / 2), None)


def test_measure_without_synthetic_images_is_empty(inputs: Inputs) -> None:
    without = replace(inputs, qualities={}, synthetic_sets={})
    assert label_fidelity.measure(without, pd.DataFrame({"dx": ["df"]}), probabilities_of([[0], [0]]), CLASSES) == {}
    none = replace(inputs, qualities={"df": inputs.qualities["df"].model_copy(update={"images": 0})})
    assert label_fidelity.measure(none, pd.DataFrame({"dx": ["df"]}), probabilities_of([[0], [0]]), CLASSES) == {}
