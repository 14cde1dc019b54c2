"""Training the feature extractor, and the part of the data that the tasks of the rare classes read."""

from pathlib import Path

import numpy as np
import pytest

from components.shared.features import SAMPLE_FILE, load_features
from components.shared.image_set import open_pixels, read_header, read_rows
from components.train_features import train as phase
from components.train_gan import architectures
from components.train_gan.pretrain import pretrain
from components.train_gan.train import train as train_gans
from tests.helpers import tiny_architecture
from tests.integration.train_gan.conftest import SNAPSHOT_IMAGES

RARE = ["df", "vasc"]


@pytest.mark.parametrize("split", ["train", "validation"])
def test_rare_data_has_the_rows_of_the_rare_classes_and_no_others(training_data: Path, rare_data: Path, split: str):
    given, copied = (folder / f"{split}.parquet" for folder in (training_data, rare_data))
    assert read_header(copied) == read_header(given)
    rows, copies = read_rows(given, split), read_rows(copied, split)
    assert set(rows["dx"]) == {"df", "nv", "vasc"}
    assert copies.equals(rows[rows["dx"].isin(RARE)].reset_index(drop=True))
    for dx in RARE:
        with open_pixels(given, split, dx) as all_pixels, open_pixels(copied, split, dx) as pixels:
            assert np.array_equal(pixels.images, all_pixels.images)


def test_rare_data_has_all_rows_if_every_class_has_a_gan(training_data: Path, features: Path, tmp_path: Path):
    phase.write_rare_data(training_data, features, 1, tmp_path / "rare_data", "all")
    for split in ("train", "validation"):
        given, copied = (
            read_rows(folder / f"{split}.parquet", split) for folder in (training_data, tmp_path / "rare_data")
        )
        assert copied.equals(given)


def test_rare_data_has_the_features_of_random_images_of_all_classes(
    training_data: Path, features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(phase, "SAMPLE_IMAGES", 40)
    phase.write_rare_data(training_data, features, 1, tmp_path / "rare_data")
    with np.load(tmp_path / "rare_data" / SAMPLE_FILE) as file:
        sample, labels = file["features"], file["labels"]
    with open_pixels(training_data / "train.parquet", "train") as pixels:
        expected, of_image = load_features(features)(pixels.images), pixels.labels
    assert sample.shape == (40, 224)
    # Batches of another size may round differently: float32, relative to features of about 1.
    nearest = np.abs(sample[:, None] - expected[None]).max(axis=2)
    assert nearest.min(axis=1).max() < 1e-4
    rows = nearest.argmin(axis=1)
    assert np.all(np.diff(rows) > 0), "40 different images, in the order of the training set"
    assert np.array_equal(labels, of_image[rows])
    assert set(labels.tolist()) == {0, 1, 2}


def test_gan_trained_on_rare_data_has_the_same_bytes_as_on_all_classes(
    training_data: Path, rare_data: Path, features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("components.train_gan.loop.SNAPSHOT_IMAGES", SNAPSHOT_IMAGES)
    monkeypatch.setattr(architectures, "load", lambda name: tiny_architecture)
    pretrain(RARE, training_data, features, "dcgan", 0, 1, tmp_path / "start")
    for name, data in (("all", training_data), ("rare", rare_data)):
        train_gans(["vasc"], data, features, tmp_path / "start", "dcgan", 0.064, 1, "fail", tmp_path / name)
    models = [tmp_path / name / "models" / "gan-vasc.keras" for name in ("all", "rare")]
    assert models[0].read_bytes() == models[1].read_bytes()
