"""Images of the report: planted copies, known decisions, lesions instead of images."""

import base64
import io
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.evaluate.predict.inputs import Classifier, Inputs
from components.evaluate.predict.neighbours import find_nearest
from components.evaluate.report import gallery
from components.evaluate.report.gallery import (
    MAX_SIDE_PX,
    ShownImage,
    collect,
    find_malignant_errors,
    list_images,
    overlay,
)
from components.shared.image_set import (
    decode_png,
    encode_png,
    iter_tables,
    pixel_sha256,
    read_header,
    read_rows,
    write_image_set,
)
from components.shared.records import ClassifierRecord, FailedGan, SampleQuality, Snapshot, TrainedGan

CLASSES = ["df", "nv", "vasc"]


def _images(path: Path, dx: str) -> dict[str, np.ndarray]:
    found = {}
    for table in iter_tables(path, dx):
        for name, image in zip(table["image_id"].to_pylist(), table["image"].to_pylist(), strict=True):
            found[name] = decode_png(image["bytes"])
    return found


@pytest.fixture(scope="module")
def synthetic(splits: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images of noise, and one that copies a training image."""
    copied = _images(splits["train"], "df")["train-df-3"]
    noise = np.random.default_rng(5).integers(0, 256, (12, 32, 32, 3)).astype(np.uint8)
    images = [*noise, copied]
    path = tmp_path_factory.mktemp("synthetic") / "df"
    with write_image_set(path, read_header(splits["train"])) as out:
        rows = {"image_id": [f"made-{n}" for n in range(13)], "dx": "df", "source": "gan"}
        hashes = [pixel_sha256(image) for image in images]
        out.write(pd.DataFrame(rows | {"pixel_sha256": hashes}), [encode_png(image) for image in images])
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    keras.utils.set_random_seed(1)
    for arm in ("baseline", "augmented@1"):
        model = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Rescaling(1 / 255)])
        model.add(keras.layers.Conv2D(8, 3, 2, activation="relu"))
        model.add(keras.layers.Flatten())
        model.add(keras.layers.Dense(3, "softmax"))
        model.save(folder / f"{arm}.keras")
    return {arm: folder / f"{arm}.keras" for arm in ("baseline", "augmented@1")}


@pytest.fixture(scope="module")
def collected(splits: dict[str, Path], synthetic: Path, models: dict[str, Path]) -> gallery.Gallery:
    strip = io.BytesIO()
    Image.new("RGB", (50, 10), (200, 10, 10)).save(strip, "JPEG")
    jpeg = base64.b64encode(strip.getvalue()).decode()
    # Only the fields that `collect` reads.
    trained = TrainedGan.model_construct(dx="df", snapshots=[Snapshot(kimg=4.0, jpeg=jpeg)])
    failed = FailedGan.model_construct(dx="vasc", failed="it diverged")
    images_alone = ClassifierRecord.model_construct(metadata=None)
    truth = read_rows(splits["test"], "test", ["dx"])["dx"].map(CLASSES.index).to_numpy()
    probabilities = np.full((2, len(truth), 3), 0.1)
    probabilities[:, np.arange(len(truth)), truth] = 0.8
    probabilities[:, 2] = [0.05, 0.9, 0.05]  # the second df lesion, in both of its images
    probabilities[:, 3] = [0.2, 0.7, 0.1]
    probabilities[1, 0] = [0.0, 0.0, 1.0]  # another seed: does not count for the first model
    inputs = Inputs(
        sets={"validation": splits["validation"], "test": splits["test"]},
        train_set=splits["train"],
        rare=("df", "vasc"),
        gan_records={"df": trained, "vasc": failed},
        qualities={"df": SampleQuality.model_construct(dx="df", images=13, pairs_jpeg=jpeg)},
        synthetic_sets={"df": synthetic},
        classifiers={arm: [Classifier(path, images_alone)] for arm, path in models.items()},
    )
    return collect(
        inputs,
        CLASSES,
        ["df"],
        dict.fromkeys(("baseline", "oversampled", "augmented@1"), probabilities),
        ["baseline", "oversampled", "augmented@1"],
    )


def test_collect_planted_copy_is_the_nearest_neighbour(collected: gallery.Gallery, splits: dict[str, Path]):
    first, *others = collected.neighbours["df"]
    assert (first.image_id, collected.searched["df"], len(others)) == ("train-df-3", 13, 3)
    assert first.distance == pytest.approx(0, abs=1e-3)
    np.testing.assert_array_equal(first.synthetic.pixels, first.real.pixels)
    np.testing.assert_array_equal(first.real.pixels, _images(splits["train"], "df")["train-df-3"])
    assert all(1 < it.distance < 100 for it in others)  # noise is farther away than neighbouring real images
    assert [it.distance for it in others] == sorted(it.distance for it in others)


def test_collect_samples_are_of_different_lesions(collected: gallery.Gallery, splits: dict[str, Path]):
    images = _images(splits["train"], "nv")
    expected = [images[f"train-nv-{n}"] for n in range(0, 16, 2)]  # two images per lesion
    assert all((one.pixels == other).all() for one, other in zip(collected.real["nv"], expected, strict=True))
    assert len(collected.real["df"]) == len(collected.synthetic["df"]) == 8
    assert "vasc" not in collected.synthetic


def test_collect_decisions_are_the_most_confident_of_the_first_model(
    collected: gallery.Gallery, splits: dict[str, Path]
):
    assert [(it.dx, it.predicted, it.confidence) for it in collected.right] == [(dx, dx, 0.8) for dx in CLASSES]
    (wrong,) = collected.wrong
    assert (wrong.image_id, wrong.dx, wrong.predicted, wrong.confidence) == ("test-df-2", "df", "nv", 0.9)
    assert wrong.others == {"baseline": ("nv", 0.9), "oversampled": ("nv", 0.9)}
    assert (wrong.image.pixels == _images(splits["test"], "df")["test-df-2"]).all()
    assert wrong.heat.pixels.shape == (32, 32, 3)


@pytest.mark.parametrize("is_blank", [False, True])
def test_decisions_state_whether_a_map_is_blank(
    splits: dict[str, Path], models: dict[str, Path], tmp_path: Path, is_blank: bool
):
    model = keras.saving.load_model(models["baseline"])
    kernel, bias = model.layers[1].get_weights()
    model.layers[1].set_weights([np.zeros_like(kernel) if is_blank else np.abs(kernel), bias])
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([np.abs(kernel), bias])  # every feature raises every score
    model.save(tmp_path / "model.keras")
    truth = read_rows(splits["test"], "test", ["dx"])["dx"].map(CLASSES.index).to_numpy()
    probabilities = {"baseline": np.eye(3)[truth][None]}
    decisions = gallery._Decisions(splits["test"], CLASSES, probabilities, ["baseline"])
    first = Classifier(tmp_path / "model.keras", ClassifierRecord.model_construct(metadata=None))
    right, wrong = decisions.most_confident(first)
    assert [it.is_blank for it in right] == [is_blank] * 3
    assert wrong == []


def test_collect_malignant_errors_are_lesions(collected: gallery.Gallery):
    (error,) = collected.malignant_errors
    assert (error.image_id, error.lesion_id, error.predicted) == ("test-df-2", "test-df-lesion-1", "nv")
    assert error.confidence == pytest.approx((0.9 + 0.7) / 2)
    assert error.heat is None


def test_collect_progress_is_read_from_the_records(collected: gallery.Gallery):
    ((kimg, strip),) = collected.progress["df"]
    assert (kimg, strip.pixels.shape) == (4.0, (10, 50, 3))
    assert abs(strip.pixels.astype(int) - (200, 10, 10)).max() < 8
    assert collected.progress["vasc"] == []


def test_list_images_returns_every_image(collected: gallery.Gallery):
    real, synthetic, pairs, strips = 8 * 3, 8, 4 * 2 + 1, 1
    assert len(list_images(collected)) == real + synthetic + pairs + strips + 2 * (3 + 1) + 1


def test_sample_class_large_images_are_shrunk(models: dict[str, Path], make_set: Callable[..., Path], tmp_path: Path):
    path = make_set(tmp_path / "train", "train", {"df": 2}, size=MAX_SIDE_PX + 64)
    (one, _) = gallery._sample_class(path, "df")
    assert one.pixels.shape == (MAX_SIDE_PX, MAX_SIDE_PX, 3)


def test_find_nearest_agrees_with_all_pairs():
    rng = np.random.default_rng(0)
    one, other = rng.normal(0, 1, (150, 7)).astype(np.float32), rng.normal(0, 1, (90, 7)).astype(np.float32)
    distances = np.linalg.norm(one[:, None].astype(float) - other[None], axis=2)
    rows, found = find_nearest(one, other)
    np.testing.assert_array_equal(rows, distances.argmin(1))
    np.testing.assert_allclose(found, distances.min(1), rtol=1e-6)
    forbidden = rng.random((150, 90)) < 0.5
    forbidden[3] = True
    rows, found = find_nearest(one, other, forbidden)
    allowed = np.where(forbidden, np.inf, distances)
    np.testing.assert_allclose(found, allowed.min(1), rtol=1e-6)
    assert found[3] == np.inf


def test_find_malignant_errors_agrees_with_a_case_by_hand():
    truth = np.array([0, 0, 0, 1, 2])
    lesion = np.array(["a", "a", "b", "c", "d"])
    malignant = np.array([True, False, True])
    one = np.array([[0.1, 0.8, 0.1], [0.2, 0.5, 0.3], [0.0, 0.1, 0.9], [1.0, 0.0, 0.0], [0.0, 0.95, 0.05]])
    other = np.array([[0.1, 0.6, 0.3], [0.0, 0.9, 0.1], [0.0, 0.1, 0.9], [1.0, 0.0, 0.0], [0.0, 0.55, 0.45]])
    # Lesion a: nv with mean 0.7, its images 0.7 each; b is taken for another malignant class; c is benign; d: 0.75.
    found = find_malignant_errors(truth, lesion, np.stack([one, other]), malignant)
    assert [(row, rows.tolist()) for row, rows in found] == [(4, [4]), (0, [0, 1])]


def test_overlay_cold_pixels_are_grey_and_hot_ones_coloured():
    pixels = np.full((8, 8, 3), (200, 100, 50), np.uint8)
    heat = np.zeros((8, 8), np.float32)
    heat[:, 4:] = 1
    seen = overlay(pixels, heat).astype(int)
    cold, hot = seen[0, 0], seen[0, 7]
    assert cold.max() - cold.min() < 6
    assert hot[0] - hot[2] > 40
    assert hot.sum() > cold.sum()


def test_shown_images_compare_by_identity():
    pixels = np.zeros((2, 2, 3), np.uint8)
    assert len({ShownImage(pixels), ShownImage(pixels)}) == 2
