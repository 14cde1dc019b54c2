import json
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

from components.shared.errors import UserError
from components.shared.files import file_sha256
from components.shared.image_set import (
    REAL,
    Header,
    encode_png,
    iter_tables,
    open_pixels,
    pixel_sha256,
    read_header,
    read_rows,
    write_image_set,
)
from components.shared.keras_setup import predict_probabilities
from components.train_classifier import network
from components.train_classifier.train import train


def test_the_original_network_has_its_parameters():
    model = network.build(7, 128)
    assert model.count_params() == 16_877_511
    assert model.output_shape == (None, 7)
    assert network.build(3, 32).count_params() < 2_000_000


def test_the_network_takes_raw_pixels():
    model = network.build(2, 32)
    rescaled = model.layers[0](np.array([0.0, 127.5, 255.0]).reshape(1, 1, 3, 1))
    assert np.asarray(rescaled).ravel().tolist() == pytest.approx([-1, 0, 1])


def run(splits: dict[str, Path], folder: Path, **settings: object) -> dict[str, float]:
    arguments = {
        "arm": "baseline",
        "train_set": splits["train"],
        "validation_set": splits["validation"],
        "epochs": 4,
        "patience": 4,
        "augmentation": "flips_and_rotations",
        "seed": 1,
        "model": folder / "model.keras",
        "record": folder / "record",
        "curves": folder / "curves",
    }
    return train(**(arguments | settings))


@pytest.fixture(scope="module")
def trained(splits: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    folder = tmp_path_factory.mktemp("classifier")
    return folder, run(splits, folder)


def test_the_saved_weights_are_those_of_the_best_epoch(splits: dict[str, Path], trained: tuple[Path, dict[str, float]]):
    folder, measured = trained
    model = keras.saving.load_model(folder / "model.keras")
    with open_pixels(splits["validation"], "validation") as pixels:
        predicted = predict_probabilities(model, pixels.images).argmax(1)
        recalls = [(predicted[pixels.labels == label] == label).mean() for label in range(3)]
    assert np.mean(recalls) == pytest.approx(measured["val_balanced_accuracy"])
    history = json.loads((folder / "record").read_text())["history"]["val_balanced_accuracy"]
    assert measured["val_balanced_accuracy"] == pytest.approx(max(history), abs=1e-6)
    assert history[measured["best_epoch"] - 1] == max(history)


def test_the_saved_model_is_the_plain_network_in_float32(trained: tuple[Path, dict[str, float]]):
    """It opens without this code: nothing of the twin that was trained, nor of its precision, is in it."""
    model = keras.saving.load_model(trained[0] / "model.keras")
    assert [type(layer) for layer in model.layers] == [type(layer) for layer in network.build(3, 32).layers]
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}
    initial = network.build(3, 32)
    moved = [np.abs(a - b).max() for a, b in zip(model.get_weights(), initial.get_weights(), strict=True)]
    assert sum(change > 0 for change in moved) == len(moved) - 4  # all but the biases in front of a normalisation


def test_the_record_says_what_made_the_model(splits: dict[str, Path], trained: tuple[Path, dict[str, float]]):
    folder, _ = trained
    record = json.loads((folder / "record").read_text())
    assert record["model_sha256"] == file_sha256(folder / "model.keras")
    assert record["train_set_sha256"] == file_sha256(splits["train"])
    assert (record["data_sha256"], record["split_sha256"]) == ("d" * 64, "5" * 64)
    assert record["train_rows"] == 84
    assert record["settings"]["augmentation"] == "flips_and_rotations"
    assert "<svg" in (folder / "curves").read_text()


def test_the_same_seed_gives_the_same_bytes(
    splits: dict[str, Path], trained: tuple[Path, dict[str, float]], tmp_path: Path
):
    run(splits, tmp_path)
    assert file_sha256(tmp_path / "model.keras") == file_sha256(trained[0] / "model.keras")


def test_an_epoch_has_as_many_steps_as_real_images_fill(tmp_path: Path, splits: dict[str, Path], capfd):
    """84 real images are 3 batches of 32, however often they are repeated and whatever is added."""
    heavy = tmp_path / "heavy"
    header = Header(("df", "nv", "vasc"), 32, "train", "d" * 64, "5" * 64)
    rows = pd.DataFrame(
        {"image_id": [f"i{n}" for n in range(40)], "dx": ["df", "nv"] * 20, "source": ["real", "dcgan"] * 20}
    )
    black = np.zeros((32, 32, 3), np.uint8)
    with write_image_set(heavy, header) as out:
        out.write(rows.assign(repeat=9, pixel_sha256=pixel_sha256(black)), [encode_png(black)] * 40)
    run(splits, tmp_path, train_set=heavy, epochs=1)
    assert "360 images (20 real), 1 steps an epoch" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"augmentation": "mixup"}, "augmentation is 'mixup'"),
        ({"epochs": 0}, "classifier_epochs is 0"),
        ({"patience": 0}, "classifier_patience is 0"),
    ],
)
def test_a_wrong_setting_is_one_sentence(
    splits: dict[str, Path], tmp_path: Path, settings: dict[str, object], sentence: str
):
    with pytest.raises(UserError, match=sentence):
        run(splits, tmp_path, **settings)
    assert not list(tmp_path.iterdir())


def test_a_validation_set_of_another_split_is_refused(splits: dict[str, Path], tmp_path: Path):
    with pytest.raises(UserError, match="give the split 'validation'"):
        run(splits, tmp_path, validation_set=splits["test"])


def test_the_record_says_which_images_were_seen(splits: dict[str, Path], trained: tuple[Path, dict[str, float]]):
    seen = json.loads((trained[0] / "record").read_text())["seen"]
    rows = pd.concat(read_rows(splits[split], split) for split in ("train", "validation"))
    assert seen == sorted(rows["pixel_sha256"].str[:16])
    assert not set(seen) & set(read_rows(splits["test"], "test")["pixel_sha256"].str[:16])


@pytest.mark.parametrize("source", [REAL, "dcgan"])
def test_a_validation_image_among_the_training_images_is_refused(splits: dict[str, Path], tmp_path: Path, source: str):
    """By its pixels: as a synthetic image, or as a real one with another name and lesion."""
    with write_image_set(tmp_path / "train", read_header(splits["train"])) as out:
        for group in iter_tables(splits["train"]):
            out.write_table(group)
        rows = pd.read_parquet(splits["validation"]).head(1)
        png = [rows["image"].iloc[0]["bytes"]]
        renamed = rows.drop(columns=["image", "split"]).assign(image_id="other", lesion_id="other", source=source)
        out.write(renamed, png)
    with pytest.raises(UserError, match=r"holds 1 (training|synthetic) image in validation \(validation-df-0\)"):
        run({**splits, "train": tmp_path / "train"}, tmp_path)
    assert not (tmp_path / "model.keras").exists()
