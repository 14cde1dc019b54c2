"""How near a GAN's images are to real ones: the kernel distance (KID), in features of a small classifier trained here,
on the training split alone."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from keras import layers

from components.shared import keras_run
from components.shared.batches import endless_batches, flip_and_turn
from components.shared.checkpoint import DamagedError, Store, pack, unpack
from components.shared.image_set import decoded
from components.shared.progress import say

BATCH = 64
PASSES = 5
MOST_STEPS = 400
FLOOR = 0.1
"""A feature's standard deviation counts as at least this share of the median one."""
ENOUGH = 8
"""With fewer validation images of a class than this, KID is measured against its training images as well."""


def kid(real: np.ndarray, fake: np.ndarray) -> float:
    """Kernel Inception Distance's estimator (Bińkowski et al., arXiv 1801.01401) on any features: the unbiased squared
    maximum mean discrepancy with the kernel (x·y/d + 1)³.

    All images are in it at once: a class has tens of them, and subsets of so few would only add noise. Unbiased for
    sets of any and of different sizes, so that it may be below 0.

    Args:
        real: (M, d) float, M ≥ 2.
        fake: (N, d) float, N ≥ 2.
    """

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def mean_of_pairs(a: np.ndarray) -> float:
        values = kernel(a, a)
        return float((values.sum() - np.trace(values)) / (len(a) * (len(a) - 1)))

    real, fake = real.astype(np.float64), fake.astype(np.float64)
    return mean_of_pairs(real) + mean_of_pairs(fake) - 2 * float(kernel(real, fake).mean())


def networks(classes: int, image_size: int) -> tuple[keras.Model, keras.Model]:
    """A classifier, (N, S, S, 3) in [0, 255] → (N, classes) logits, and what it sees the images by, → (N, 224): the
    mean over the image of every channel of its three convolutions, from fine texture to coarse form."""
    inputs = keras.Input((image_size, image_size, 3))
    x = layers.Rescaling(1 / 127.5, -1)(inputs)
    seen = []
    for filters, stride in ((32, max(2, image_size // 32)), (64, 2), (128, 2)):
        x = layers.Conv2D(filters, 2 * stride - 1, stride, "same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
        seen.append(layers.GlobalAveragePooling2D()(x))
    features = layers.Concatenate()(seen)
    return keras.Model(inputs, layers.Dense(classes)(features)), keras.Model(inputs, features)


def features_of(
    train_set: str | Path, seed: int, store: Store | None, name: str, label: str
) -> Callable[[np.ndarray], np.ndarray]:
    """Trains the classifier, or takes it from the store.

    Args:
        train_set: image set of the split `train`.
        seed: of weights and order.
        store: where it is kept for other classes and for a process that goes on; None for nowhere.
        name: in the store; another for everything that decides the result.
        label: phase and class, for what is said.

    Returns:
        A function from (N, S, S, 3) uint8 images to (N, 224) float64 features, each with mean 0 over the training
        images and variance 1, or less for one that varies much less than others.
    """
    kept = None
    try:
        data = store.read(name) if store else None
        kept = unpack(data) if data else None
    except DamagedError as error:
        say(label, f"warning: {name} is damaged ({error}) and is made anew")
    if kept:
        facts, arrays = kept
        classifier, seer = networks(facts["classes"], facts["image_size"])
        classifier.set_weights([arrays[f"weight{i}"] for i in range(len(classifier.weights))])
        mean, deviation = arrays["mean"], arrays["deviation"]
    else:
        say(label, "training a small classifier, by whose features snapshots are judged")
        keras.utils.set_random_seed(seed)
        with decoded(train_set, "train") as pixels:
            facts = {"classes": len(pixels.header.classes), "image_size": pixels.header.image_size}
            classifier, seer = networks(**facts)
            classifier.compile(keras.optimizers.Adam(), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
            counts = np.bincount(pixels.labels, minlength=facts["classes"])
            equal = np.maximum(1, np.rint(counts.max() / counts[pixels.labels])).astype(np.int64)
            steps = min(MOST_STEPS, -(-PASSES * len(pixels.images) // BATCH))
            rng = np.random.default_rng(seed)
            for _, rows in zip(range(steps), endless_batches(equal, BATCH, seed), strict=False):
                classifier.train_on_batch(flip_and_turn(pixels.images[rows], rng), pixels.labels[rows])
            seen = keras_run.probabilities(seer, pixels.images).astype(np.float64)
        mean, deviation = seen.mean(0), seen.std(0)
        # One that hardly varies over real images must not outweigh all others in synthetic ones.
        deviation = np.maximum(deviation, FLOOR * np.median(deviation))
        if store:
            weights = {f"weight{i}": weight for i, weight in enumerate(classifier.get_weights())}
            store.write(name, pack(facts, weights | {"mean": mean, "deviation": deviation}))
    return lambda images: (keras_run.probabilities(seer, images).astype(np.float64) - mean) / deviation
