"""Demo images, the run's ruler, and generators whose images are known."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from components.prepare_data.prepare import prepare
from components.shared import keras_setup
from components.shared.features import train_features
from components.shared.files import file_sha256
from components.shared.image_set import open_pixels, read_header, read_rows

LATENT = 6


@dataclass(frozen=True)
class Demo:
    """Paths of the image sets by split and of the ruler; images by split and class; lesions of the training images."""

    paths: dict[str, Path]
    ruler: Path
    images: dict[str, dict[str, np.ndarray]]
    lesions: dict[str, np.ndarray]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp("demo")
    names = ("train", "validation", "test", "external_set", "splits", "data_profile")
    paths = {name: folder / name for name in names}
    prepare("demo", "random", "none", "move_to_train", 32, "auto", 0, 1, **paths)
    train_features(paths["train"], 1, folder / "ruler.keras", "test")
    images = {}
    for split in ("train", "validation", "test"):
        with open_pixels(paths[split], split) as pixels:
            dx = np.array(pixels.header.classes)[pixels.labels]
            images[split] = {name: np.array(pixels.images[dx == name]) for name in pixels.header.classes}
    rows = read_rows(paths["train"], "train", ["dx", "lesion_id"])
    lesions = {str(name): of_class["lesion_id"].to_numpy() for name, of_class in rows.groupby("dx")}
    return Demo(paths, folder / "ruler.keras", images, lesions)


def choosing(pool: np.ndarray) -> keras.Model:
    """A generator that gives the images of a pool, one for each noise."""
    n, size = pool.shape[:2]
    inputs = keras.Input((LATENT,))
    choice = keras.layers.Dense(n, "softmax", use_bias=False)
    pixels = keras.layers.Dense(size * size * 3, use_bias=False)
    model = keras.Model(inputs, keras.layers.Reshape((size, size, 3))(pixels(choice(inputs))))
    choice.set_weights([1e4 * np.random.default_rng(0).normal(size=(LATENT, n))])
    pixels.set_weights([pool.reshape(n, -1) / 127.5 - 1])
    return model


def noisy(size: int) -> keras.Model:
    """A generator that has learnt nothing."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((LATENT,))
    x = keras.layers.Dense(size * size * 3, "tanh", kernel_initializer="random_normal")(inputs)
    return keras.Model(inputs, keras.layers.Reshape((size, size, 3))(x * 5))


def add(folder: Path, dx: str, model: keras.Model, train_set: Path) -> dict[str, Any]:
    """Saves a generator as train_gan does, and returns its record."""
    keras_setup.save_model(model, folder / f"{dx}.keras")
    header = read_header(train_set)
    return {
        "dx": dx,
        "architecture": "dcgan",
        "latent": LATENT,
        "kimg": 20.0,
        "best_kimg": 12.5,
        "real_images": 1,
        "model_sha256": file_sha256(folder / f"{dx}.keras"),
        "classes": header.classes,
        "image_size": header.image_size,
        "data_sha256": header.data_sha256,
        "split_sha256": header.split_sha256,
    }
