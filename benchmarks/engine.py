"""The product's own training steps, driven as its phases drive them."""

from collections.abc import Callable
from itertools import islice

import keras
import numpy as np

from components.shared import keras_run
from components.shared.image_set import Header, Pixels
from components.train_classifier import network
from components.train_classifier import train as train_classifier
from components.train_gan import architectures, precision
from components.train_gan import train as train_gan
from components.train_gan.gan import GAN

BATCH = 32


def pixels_of(images: np.ndarray, labels: np.ndarray) -> Pixels:
    """An image set as it is once decoded, of (N, S, S, 3) uint8 images and (N,) integer labels."""
    classes = tuple(f"c{label}" for label in range(int(labels.max()) + 1))
    ones = np.ones(len(images), np.int64)
    header = Header(classes, images.shape[1], "train")
    return Pixels(images, labels.astype(np.int64), ones, ones.astype(bool), ones.astype(str), header)


def gan(architecture: str, image_size: int, images: np.ndarray, steps: int = 1) -> Callable[[], float]:
    """Builds the GAN's step with its input path, by the architecture's own recipe.

    Args:
        architecture: a name in `architectures.NAMES`.
        image_size: S.
        images: (N, S, S, 3) uint8 to train on.
        steps: in a call.
    """
    keras_run.start(1)
    nets = architectures.load(architecture)
    recipe = nets.RECIPE
    keras.config.set_dtype_policy(precision.policy(recipe.precision))
    model = GAN(nets.generator(image_size), nets.discriminator(image_size), recipe)
    keras.config.set_dtype_policy("float32")
    model.compile(*(keras.optimizers.Adam(recipe.learning_rate, recipe.beta_1, recipe.beta_2) for _ in "GD"))
    pixels = pixels_of(images, np.zeros(len(images), np.int64))
    shown = train_gan._shown(pixels, recipe, nets.LATENT, 1, 0)

    def work() -> float:
        for given in islice(shown, steps):
            model.step(*given)
        return steps * BATCH

    return work


def classifier(image_size: int, images: np.ndarray, labels: np.ndarray, steps: int = 8) -> Callable[[], float]:
    """Builds the classifier's training with its input path, without augmentation.

    Args:
        image_size: S.
        images: (N, S, S, 3) uint8.
        labels: (N,) integers.
        steps: in a call.
    """
    keras_run.start(1)
    pixels = pixels_of(images, labels)
    model = network.build(len(pixels.header.classes), image_size)
    model.compile(keras.optimizers.Adam(), "sparse_categorical_crossentropy")
    batches = train_classifier._batches(pixels, "none", 1, 1)

    def work() -> float:
        model.fit(batches, steps_per_epoch=steps, epochs=1, verbose=0)
        return steps * BATCH

    return work
