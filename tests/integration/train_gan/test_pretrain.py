import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.shared.checkpoint import unpack
from components.shared.errors import UserError
from components.shared.features import load_features
from components.shared.files import file_sha256
from components.shared.image_set import open_pixels
from components.train_gan.pretrain import pretrain
from components.train_gan.train import train


def pretrained(splits: dict[str, Path], folder: Path, **settings: Any) -> dict[str, float]:
    arguments: dict[str, Any] = {
        "classes": ["df", "vasc"],
        "train_set": splits["train"],
        "validation_set": splits["validation"],
        "architecture": "dcgan",
        "kimg": 0.2,
        "seed": 1,
        "features": folder / "features.keras",
        "start": folder / "start",
        "record": folder / "record",
        "progress_page": folder / "progress",
    }
    return pretrain(**arguments | settings)


@pytest.fixture(scope="module")
def shared(splits: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    measured = pretrained(splits, folder)
    assert measured["kid"] == json.loads((folder / "record").read_text())["kid"]["value"][-1]
    return folder


def class_trained(splits: dict[str, Path], shared: Path, folder: Path, **settings: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "classes": ["vasc"],
        "train_set": splits["train"],
        "validation_set": splits["validation"],
        "features": shared / "features.keras",
        "start": shared / "start",
        "architecture": "dcgan",
        "kimg": 0.03,
        "seed": 1,
        "failed_class": "fail",
        "generators": folder / "generators",
        "record": folder / "record",
        "progress_page": folder / "progress",
    }
    train(**arguments | settings)
    (record,) = json.loads((folder / "record").read_text())
    return record


def test_trains_the_ruler_and_one_gan_of_all_rare_classes(splits: dict[str, Path], shared: Path):
    record = json.loads((shared / "record").read_text())
    assert (record["trained_on"], record["real_images"], record["kimg"]) == (["df", "vasc"], 24, 0.224)
    assert record["features_sha256"] == file_sha256(shared / "features.keras")
    with open_pixels(splits["validation"], "validation") as pixels:
        assert load_features(shared / "features.keras")(pixels.images).shape == (20, 224)
    facts, arrays = unpack((shared / "start").read_bytes())
    assert (facts["architecture"], facts["image_size"], facts["kimg"]) == ("dcgan", 32, 0.224)
    assert sum(array.size for array in arrays.values()) == sum(record["parameters"].values())
    page = (shared / "progress").read_text()
    assert page.count("data:image/png") == 1 + len(record["kid"]["kimg"])


def test_a_class_goes_on_from_the_shared_networks(splits: dict[str, Path], shared: Path, tmp_path: Path):
    (tmp_path / "cold").touch()
    warm = class_trained(splits, shared, tmp_path / "warm")
    cold = class_trained(splits, shared, tmp_path / "cold-start", start=tmp_path / "cold")
    assert (warm["start_kimg"], cold["start_kimg"]) == (0.224, 0)
    assert warm["model_sha256"] != cold["model_sha256"]
    assert "begun from a GAN of all rare classes after 0.224 kimg" in (tmp_path / "warm" / "progress").read_text()
    # After one step of a small rate the weights are still near those that it began from.
    import keras

    model = keras.saving.load_model(tmp_path / "warm" / "generators" / "vasc.keras", compile=False)
    arrays = unpack((shared / "start").read_bytes())[1]
    for weight, name in zip(model.trainable_weights[:1], sorted(arrays)[:1], strict=True):
        np.testing.assert_allclose(np.asarray(weight), arrays[name], atol=2e-4)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [(lambda data: data[:-9], "is damaged"), (lambda data: b"x", "is damaged"), (None, "is not of this run's arch")],
)
def test_a_start_that_does_not_fit_is_refused(
    splits: dict[str, Path], shared: Path, tmp_path: Path, damage: Any, sentence: str
):
    settings = {} if damage else {"architecture": "resnet"}
    data = (shared / "start").read_bytes()
    (tmp_path / "start").write_bytes(damage(data) if damage else data)
    with pytest.raises(UserError, match=sentence):
        class_trained(splits, shared, tmp_path / "out", start=tmp_path / "start", **settings)
    assert not (tmp_path / "out" / "record").exists()


def test_without_a_budget_there_is_the_ruler_and_an_empty_start(splits: dict[str, Path], shared: Path, tmp_path: Path):
    assert pretrained(splits, tmp_path, kimg=0.0) == {}
    assert (tmp_path / "start").stat().st_size == 0
    assert file_sha256(tmp_path / "features.keras") == file_sha256(shared / "features.keras")
    assert "No GAN of all rare classes was asked for" in (tmp_path / "progress").read_text()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [({"kimg": -1.0}, "is -1.0"), ({"classes": ["nope"]}, "no training image of the class nope")],
)
def test_a_wrong_setting_is_one_sentence(
    splits: dict[str, Path], tmp_path: Path, settings: dict[str, Any], sentence: str
):
    with pytest.raises(UserError, match=sentence):
        pretrained(splits, tmp_path, **settings)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_start_goes_on_with_the_ruler_that_it_began_with(
    splits: dict[str, Path], shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    kept, again = str(tmp_path / "kept"), tmp_path / "again"
    pretrained(splits, tmp_path / "first", checkpoints=kept)
    with monkeypatch.context() as patch:
        patch.setattr("components.train_gan.pretrain.train_features", None)  # is not called
        pretrained(splits, again, checkpoints=kept)
    assert file_sha256(again / "features.keras") == file_sha256(shared / "features.keras")
    (tmp_path / "kept/shared_pretraining-features/features").write_bytes(b"damaged")
    pretrained(splits, again, checkpoints=kept)
    assert file_sha256(again / "features.keras") == file_sha256(shared / "features.keras")
