"""The training steps of the product, called as its phases call them."""

from collections.abc import Callable
from dataclasses import replace

import keras
import numpy as np
import pandas as pd

from components.shared import keras_setup
from components.shared.image_set import METADATA, REAL, Header, Pixels
from components.shared.precision import has_gpu, policy
from components.train_classifier import train as train_classifier
from components.train_classifier.networks import cnn
from components.train_gan import architectures
from components.train_gan.gan import Together
from components.train_gan.loop import BATCH_SIZE, MAX_STEPS_PER_CALL, Training


def pixels_of(images: np.ndarray, labels: np.ndarray) -> Pixels:
    """Return a decoded image set of (N, S, S, 3) uint8 images and (N,) integer labels."""
    classes = tuple(f"c{label}" for label in range(int(labels.max()) + 1))
    ones = np.ones(len(images), np.int64)
    header = Header(classes, images.shape[1], "train")
    metadata = pd.DataFrame(None, range(len(images)), list(METADATA))
    return Pixels(images, labels.astype(np.int64), ones, np.full(len(images), REAL), ones.astype(str), header, metadata)


def gan(
    image_size: int, images: np.ndarray, steps: int, architecture: str, precision: str = "automatic"
) -> Callable[[], float]:
    """Build the GAN's steps with their input path, by the architecture's recipe; without the eight snapshots.

    Args:
        image_size: S.
        images: (N, S, S, 3) uint8 to train on; on a GPU they are in its memory, as in training.
        steps: in a call.
        architecture: see `architectures`.
        precision: as in a recipe.
    """
    nets = architectures.load(architecture)
    recipe = replace(nets.RECIPE, precision=precision)
    pixels = pixels_of(images, np.zeros(len(images), np.int64))
    held_out = pixels_of(images[:16], np.zeros(16, np.int64))

    def features(shown: np.ndarray) -> np.ndarray:
        return np.zeros((len(shown), 2))

    training = Training("bench", architecture, nets, recipe, pixels, held_out, features, 1e6, 1, {})  # type: ignore[arg-type]
    together = Together([training.gan])
    resident = keras.ops.convert_to_tensor(images) if has_gpu() else None

    done = 0

    def work() -> float:
        nonlocal done
        for first in range(done, done + steps, MAX_STEPS_PER_CALL):
            rows = training.next_rows(min(MAX_STEPS_PER_CALL, done + steps - first))
            if resident is None:
                together.advance([pixels.images[rows.ravel()]], [np.arange(rows.size).reshape(rows.shape)], first)
            else:
                together.advance([resident], [rows], first)
        assert np.asarray(training.gan.finite)  # waits for the last step
        done += steps
        return steps * BATCH_SIZE

    return work


def classifier(
    image_size: int, images: np.ndarray, labels: np.ndarray, steps: int, precision: str = "automatic"
) -> Callable[[], float]:
    """Build the classifier's training with its input path.

    Args:
        image_size: S.
        images: (N, S, S, 3) uint8.
        labels: (N,) integers.
        steps: in a call.
        precision: `automatic` or `float32`.
    """
    keras_setup.seed_everything(1)
    pixels = pixels_of(images, labels)
    model = cnn.build(len(pixels.header.classes), image_size)
    trained = train_classifier.compile_model(model, policy(precision))
    order = train_classifier.batches(pixels, 1, 1)

    def work() -> float:
        trained.fit(order, steps_per_epoch=steps, epochs=1, verbose=0)
        return steps * BATCH_SIZE

    return work
