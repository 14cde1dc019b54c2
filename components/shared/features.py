"""The feature extractor of a run: a small classifier trained on the training split, whose features compare images."""

from pathlib import Path

import keras
import numpy as np
from keras import layers

from components.shared import keras_setup
from components.shared.batches import endless_batches
from components.shared.dihedral import random_dihedral
from components.shared.errors import UserError
from components.shared.image_set import open_pixels
from components.shared.log import Progress

BATCH_SIZE = 64
EPOCHS = 16
MAX_STEPS = 800
SAMPLE_FILE = "features.npz"
"""File with the features and labels of a sample of the training images, in the folder `rare_data`."""
MIN_RELATIVE_DEVIATION = 0.1
"""A feature's standard deviation is at least this share of the median one."""


def _network(classes: int, image_size: int) -> tuple[keras.KerasTensor, keras.KerasTensor, keras.KerasTensor]:
    """Return the input (N, S, S, 3) in [0, 255], the features (N, 224) and the class probabilities (N, classes).

    The features are the mean over the image of every channel of three convolutions, from fine texture to coarse shape.
    """
    inputs = keras.Input((image_size, image_size, 3))
    x = layers.Rescaling(1 / 127.5, -1)(inputs)
    pooled = []
    for filters, stride in ((32, max(2, image_size // 32)), (64, 2), (128, 2)):
        x = layers.Conv2D(filters, 2 * stride - 1, stride, "same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
        pooled.append(layers.GlobalAveragePooling2D()(x))
    features = layers.Concatenate()(pooled)
    return inputs, features, layers.Dense(classes, activation="softmax")(features)


def train_features(train_set: str | Path, seed: int, path: str | Path, label: str) -> None:
    """Train the feature extractor, with equal weight for every class and images in all eight positions, and save it.

    Images are repeated whole times, so the weight of a class is from two thirds to four thirds of that of the largest.
    The `.keras` model maps (N, S, S, 3) in [0, 255] to features, (N, 224), and class probabilities, (N, classes).
    Features are standardised over the training images and passed through arcsinh: without it, the cubic kernel of `kid`
    is dominated by a single outlier (in trials, arcsinh doubled the distance to blurred or noisy images relative to its
    standard deviation). The same training gives the same bytes.

    Args:
        train_set: image set of the split `train`.
        seed: seed of weights and order.
        path: the file to write.
        label: phase, for progress lines.
    """
    keras_setup.seed_everything(seed)
    with open_pixels(train_set, "train") as pixels:
        classes = len(pixels.header.classes)
        inputs, pooled, probabilities = _network(classes, pixels.header.image_size)
        classifier = keras.Model(inputs, probabilities)
        counts = np.bincount(pixels.labels, minlength=classes)
        repeats = np.maximum(1, np.rint(counts.max() / counts[pixels.labels])).astype(np.int64)
        steps = min(MAX_STEPS, -(-EPOCHS * len(pixels.images) // BATCH_SIZE))
        rate = keras.optimizers.schedules.CosineDecay(2e-3, steps)
        classifier.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
        rng = np.random.default_rng(seed)
        progress = Progress(label, steps, "steps", BATCH_SIZE, "images")
        for step, rows in zip(range(steps), endless_batches(repeats, BATCH_SIZE, seed), strict=False):
            classifier.train_on_batch(random_dihedral(pixels.images[rows], rng), pixels.labels[rows])
            progress.update(step + 1)
        activations = keras_setup.predict_probabilities(keras.Model(inputs, pooled), pixels.images).astype(np.float64)
    deviation = activations.std(0)
    # A feature that hardly varies over real images must not dominate in synthetic ones.
    deviation = np.maximum(deviation, MIN_RELATIVE_DEVIATION * np.median(deviation))
    features = keras.ops.arcsinh(layers.Normalization(mean=activations.mean(0), variance=deviation**2)(pooled))
    keras_setup.save_model(keras.Model(inputs, [features, probabilities]), path)


class Features:
    """The feature extractor: maps (N, S, S, 3) uint8 images to (N, 224) float64 features."""

    def __init__(self, model: keras.Model) -> None:
        self.model = model

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return the features."""
        return self.both(images)[0]

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Return class probabilities, (N, classes) float32; rows sum to 1."""
        return self.both(images)[1]

    def both(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return features and probabilities; computed in batches, so memory does not grow with the number of images.

        Args:
            images: (N, S, S, 3) uint8, N ≥ 1; may be memory-mapped.
        """
        starts = range(0, len(images), keras_setup.PREDICTION_BATCH)
        parts = [self.model.predict_on_batch(images[s : s + keras_setup.PREDICTION_BATCH]) for s in starts]
        features, probabilities = (np.concatenate(part) for part in zip(*parts, strict=True))
        return features.astype(np.float64), probabilities


def load_features(path: str | Path) -> Features:
    """Load the feature extractor that `train_features` saved.

    Raises:
        UserError: the file is not a feature extractor.
    """
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
        if len(model.outputs) != 2:
            raise ValueError(f"{len(model.outputs)} outputs")
    except Exception as error:  # Keras raises undocumented exceptions for a damaged file
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UserError(
            f"{path} is not a feature extractor",
            "use the feature extractor of this run",
            "features.invalid",
            path=str(path),
        ) from error
    return Features(model)
