"""Seeds, saving, prediction and sampling with Keras, the same in every phase."""

import json
import platform
import re
import zipfile
from pathlib import Path

import keras
import numpy as np

from components.shared.files import atomic_write
from components.shared.machine_limits import limit_threads, usable_cpus

PREDICTION_BATCH = 256
SAMPLING_BATCH = 64


limit_threads(usable_cpus())


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and the backend, and use deterministic kernels (those of JAX are deterministic on a CPU)."""
    keras.backend.clear_session()  # otherwise layer names depend on earlier models of the process
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def library_versions() -> dict[str, str]:
    """Return the versions of Python, Keras, NumPy and the backend, for the record of a model."""
    backend = keras.backend.backend()
    return {
        "python": platform.python_version(),
        "keras": keras.__version__,
        "numpy": np.__version__,
        backend: __import__(backend).__version__,
    }


def save_model(model: keras.Model, path: str | Path) -> None:
    """Save a plain `.keras` file atomically, with the same bytes for the same model.

    Keras writes the time and memory addresses into the file. With them, the same training would have another hash each
    time, and so would every synthetic image that identifies its model by this hash.
    """
    with atomic_write(path) as part:
        model.save(part)
        with zipfile.ZipFile(part) as file:
            members = {name: file.read(name) for name in file.namelist()}
        members["metadata.json"] = json.dumps({**json.loads(members["metadata.json"]), "date_saved": ""}).encode()
        numbers: dict[bytes, int] = {}
        members["config.json"] = re.sub(
            rb'(?<="shared_object_id": )\d+',
            lambda address: b"%d" % numbers.setdefault(address[0], len(numbers)),
            members["config.json"],
        )
        with zipfile.ZipFile(part, "w") as file:
            for name, data in members.items():
                file.writestr(zipfile.ZipInfo(name), data)  # the default time of ZipInfo is 1980


def predict_probabilities(model: keras.Model, images: np.ndarray, metadata: np.ndarray | None = None) -> np.ndarray:
    """Return class probabilities; computed in batches, so that memory does not grow with the number of images.

    Args:
        model: takes (N, H, W, 3) in [0, 255], and (N, D) if metadata are given.
        images: (N, H, W, 3) uint8; may be memory-mapped.
        metadata: (N, D) float32, its second input; None for a model of images alone.

    Returns:
        (N, classes) float32, rows sum to 1.
    """
    parts = (slice(start, start + PREDICTION_BATCH) for start in range(0, len(images), PREDICTION_BATCH))
    if metadata is None:
        return np.concatenate([model.predict_on_batch(images[part]) for part in parts])
    return np.concatenate([model.predict_on_batch([images[part], metadata[part]]) for part in parts])


def to_pixels(images: np.ndarray) -> np.ndarray:
    """Convert floats in [-1, 1] of any shape to uint8 in [0, 255]; NaN becomes 0."""
    images = np.nan_to_num(np.asarray(images, np.float32), nan=-1.0)
    return np.clip(np.rint((images + 1) * 127.5), 0, 255).astype(np.uint8)


def sample_images(generator: keras.Model, noise: np.ndarray) -> np.ndarray:
    """Return the images of a generator for some noise, sampled in batches of `SAMPLING_BATCH`.

    Args:
        generator: from (N, latent) to (N, S, S, 3) in [-1, 1].
        noise: (N, latent) float32, standard normal.

    Returns:
        (N, S, S, 3) uint8.
    """
    starts = range(0, len(noise), SAMPLING_BATCH)
    return np.concatenate([to_pixels(generator.predict_on_batch(noise[s : s + SAMPLING_BATCH])) for s in starts])
