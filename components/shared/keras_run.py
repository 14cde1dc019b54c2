"""What every phase that trains or predicts with Keras does the same way."""

import platform

import keras
import numpy as np

PREDICTION_BATCH = 256


def start(seed: int) -> None:
    """Makes the process repeatable: seeds Python, NumPy and the backend, and asks the backend for deterministic
    kernels."""
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def versions() -> dict[str, str]:
    """Python, Keras, NumPy and backend versions, for the record of a model."""
    backend = keras.backend.backend()
    return {
        "python": platform.python_version(),
        "keras": keras.__version__,
        "numpy": np.__version__,
        backend: __import__(backend).__version__,
    }


def probabilities(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """A classifier's class probabilities, a batch at a time, so that memory does not grow with the number of images.

    Args:
        model: takes (N, H, W, 3) in [0, 255].
        images: (N, H, W, 3) uint8, may lie in a file.

    Returns:
        (N, classes) float32, rows sum to 1.
    """
    starts = range(0, len(images), PREDICTION_BATCH)
    return np.concatenate([model.predict_on_batch(images[s : s + PREDICTION_BATCH]) for s in starts])
