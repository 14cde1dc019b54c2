"""Demo images, their feature extractor, and generators whose images are known."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

from components.generate_images.generate import generate
from components.prepare_data.prepare import prepare
from components.shared import keras_setup
from components.shared.files import file_sha256
from components.shared.image_set import decode_png, open_pixels, read_header, read_rows
from components.shared.records import (
    FailedGan,
    SampleQuality,
    SyntheticSources,
    TrainedGan,
    load_record,
    write_record,
)
from components.train_features.train import train

LATENT = 6


@dataclass(frozen=True)
class Demo:
    """The demo data after prepare_data.

    Attributes:
        rare_data, features: what train_features wrote.
        images: split → class → images.
        lesions: class → lesions of the training images.
    """

    rare_data: Path
    features: Path
    images: dict[str, dict[str, np.ndarray]]
    lesions: dict[str, np.ndarray]


@pytest.fixture(scope="session")
def demo(demo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp("demo")
    training_data, test_data = folder / "training_data", folder / "test_data"
    prepare(
        data=str(demo_folder),
        split="random",
        duplicates="move_to_train",
        image_size=32,
        rare="akiec,bcc,df,mel,nv,vasc",
        max_bad_images=0,
        seed=1,
        training_data=training_data,
        test_data=test_data,
        data_profile=folder / "profile.html",
    )
    train_set, rare_data = training_data / "train.parquet", folder / "rare_data"
    train(training_data, 1, folder / "features.keras", rare_data)
    sets = {
        "train": train_set,
        "validation": training_data / "validation.parquet",
        "test": test_data / "test.parquet",
    }
    images = {}
    for split, path in sets.items():
        with open_pixels(path, split) as pixels:
            dx = np.array(pixels.header.classes)[pixels.labels]
            images[split] = {name: np.array(pixels.images[dx == name]) for name in pixels.header.classes}
    rows = read_rows(train_set, "train", ["dx", "lesion_id"])
    lesions = {str(name): of_class["lesion_id"].to_numpy() for name, of_class in rows.groupby("dx")}
    return Demo(rare_data, folder / "features.keras", images, lesions)


def build_choosing(pool: np.ndarray) -> keras.Model:
    """Return a generator that maps each noise vector to an image of the pool."""
    n, size = pool.shape[:2]
    inputs = keras.Input((LATENT,))
    choice = keras.layers.Dense(n, "softmax", use_bias=False)
    pixels = keras.layers.Dense(size * size * 3, use_bias=False)
    model = keras.Model(inputs, keras.layers.Reshape((size, size, 3))(pixels(choice(inputs))))
    choice.set_weights([1e4 * np.random.default_rng(0).normal(size=(LATENT, n))])
    pixels.set_weights([pool.reshape(n, -1) / 127.5 - 1])
    return model


def build_untrained(size: int = 32) -> keras.Model:
    """Return a generator with random weights."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((LATENT,))
    x = keras.layers.Dense(size * size * 3, "tanh", kernel_initializer="random_normal")(inputs)
    return keras.Model(inputs, keras.layers.Reshape((size, size, 3))(x * 5))


def add_gan(gans: Path, dx: str, model: keras.Model, rare_data: Path, **changes: Any) -> TrainedGan:
    """Save a generator and its record in a folder, as train_gan does, and return the record."""
    models = gans / "models"
    models.mkdir(parents=True, exist_ok=True)
    keras_setup.save_model(model, models / f"gan-{dx}.keras")
    header = read_header(rare_data / "train.parquet")
    values: dict[str, Any] = {
        "dx": dx, "architecture": "dcgan", "classes": list(header.classes), "image_size": header.image_size,
        "data_sha256": header.data_sha256, "split_sha256": header.split_sha256, "recipe": {}, "latent": LATENT,
        "kimg": 20.0, "start_kimg": 0.0, "best_kimg": 12.5, "real_images": 1, "precision": "float32",
        "parameters": {"generator": 1, "discriminator": 1}, "rolled_back_kimg": None,
        "losses": {"kimg": [20.0], "generator": [1.0], "discriminator": [1.0]},
        "kid": {"kimg": [20.0], "value": [0.1], "against": "validation", "images": {"validation": 9, "synthetic": 9}},
        "versions": {}, "seconds": 1.0, "model_sha256": file_sha256(models / f"gan-{dx}.keras"), "seen": [],
        "settings": {}, "snapshots": [],
    }  # fmt: skip
    record = TrainedGan(**(values | changes))
    write_record(models / f"gan-{dx}.json", record)
    return record


def add_failed_gan(gans: Path, dx: str, rare_data: Path, failed: str) -> None:
    """Write the record of a class whose GAN failed."""
    (gans / "models").mkdir(parents=True, exist_ok=True)
    header = read_header(rare_data / "train.parquet")
    record = FailedGan(
        dx=dx,
        architecture="dcgan",
        classes=list(header.classes),
        image_size=header.image_size,
        data_sha256=header.data_sha256,
        split_sha256=header.split_sha256,
        failed=failed,
    )
    write_record(gans / "models" / f"gan-{dx}.json", record)


@dataclass(frozen=True)
class Generated:
    """The folder that generate_images wrote."""

    folder: Path

    def path(self, dx: str, suffix: str) -> Path:
        return self.folder / "synthetic" / f"{dx}.{suffix}"

    def rows(self, dx: str) -> pd.DataFrame:
        return pd.read_parquet(self.path(dx, "parquet"))

    def images(self, dx: str) -> np.ndarray:
        return np.stack([decode_png(image["bytes"]) for image in self.rows(dx)["image"]])

    def quality(self, dx: str) -> SampleQuality:
        return load_record(self.path(dx, "json"), SampleQuality)

    def page(self, dx: str) -> str:
        return self.path(dx, "html").read_text()


def run(gans: Path, features: Path, rare_data: Path, out: Path, **changes: Any) -> Generated:
    """Generate 40 images of each class in a folder, of which a fifth was rejected, unless `changes` differ."""
    sources = out.with_name(f"{out.name}-sources")
    sources.mkdir(exist_ok=True)
    if not (sources / "sources.json").exists():
        write_record(sources / "sources.json", SyntheticSources(sources={}))
    classes = sorted(path.stem.removeprefix("gan-") for path in gans.glob("models/gan-*.json"))
    settings: Mapping[str, Any] = {"classes": classes, "sources": sources, "count": 40, "reject": 0.2, "seed": 1}
    generate(gans=gans, features=features, rare_data=rare_data, **{**settings, **changes}, synthetic=out)
    return Generated(out)
