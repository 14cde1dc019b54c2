"""How near a GAN's images are to real ones, by one ruler for a whole run: a small classifier, trained here, on the
training split alone."""

from pathlib import Path

import keras
import numpy as np
from keras import layers

from components.shared import keras_setup
from components.shared.batches import endless_batches, random_dihedral
from components.shared.errors import UserError
from components.shared.image_set import open_pixels
from components.shared.log import Progress

BATCH = 64
PASSES = 16
MOST_STEPS = 800
NEIGHBOURS = 5
FLOOR = 0.1
"""A feature's standard deviation counts as at least this share of the median one."""
ENOUGH = 8
"""With fewer validation images of a class than this, they are joined by its training images in what is measured."""


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


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Euclidean distances between the rows of (M, d) and of (N, d): (M, N) float64, good to about 1e-6 of the length of
    a row."""
    squared = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T
    return np.sqrt(np.maximum(squared, 0))


def neighbour_radii(real: np.ndarray, k: int) -> np.ndarray:
    """How far each row of (M, d) is from its k-th nearest other one, or from the farthest, if there are fewer: (M,)."""
    apart = distances(real, real)
    np.fill_diagonal(apart, 0)
    return np.sort(apart, axis=1)[:, min(k, len(real) - 1)]


def density_and_coverage(real: np.ndarray, fake: np.ndarray, k: int = NEIGHBOURS) -> tuple[float, float]:
    """Density and coverage (Naeem et al., arXiv 2002.09797). Around each real image lies a ball that reaches to its
    k-th nearest other one.

    Args:
        real: (M, d) float, M ≥ 2; where M ≤ k, balls reach to the farthest real image, and M - 1 stands for k.
        fake: (N, d) float, N ≥ 1.
        k: neighbours.

    Returns:
        Density: in how many balls a synthetic image lies, mean, over k; 0 or more, and about 1 for real images.
        Coverage: the share of balls in which a synthetic image lies, in [0, 1].
    """
    k = min(k, len(real) - 1)
    inside = distances(real, fake) < neighbour_radii(real, k)[:, None]
    return float(inside.sum() / (k * len(fake))), float(inside.any(axis=1).mean())


def texture(real: np.ndarray, fake: np.ndarray) -> float:
    """How much fine detail synthetic images have, as a share of that of real ones: 1 where it is as much, near 0 where
    they are smooth, more where they have noise or a pattern. KID is of a classifier's features and hardly sees it.

    The power of the grey images at each wavelength from 2 to 6 pixels (Durall et al., arXiv 2003.01826), mean over the
    images; ratio of the two; geometric mean over the wavelengths.

    Args:
        real: (M, S, S, 3) uint8, M ≥ 1, S ≥ 6.
        fake: (N, S, S, 3) uint8, N ≥ 1.
    """
    side = real.shape[1]
    window = np.outer(np.hanning(side), np.hanning(side))  # else the image's edges count as detail
    cycles = np.fft.fftfreq(side, 1 / side)
    radius = np.hypot(cycles, cycles[:, None]).astype(int)
    rounding = (window**2).sum() / 12  # the power of rounding to whole grey levels: an even image has no less

    def power(images: np.ndarray) -> np.ndarray:
        whole = np.zeros((side, side))
        for image in images:
            grey = image.mean(axis=2)
            whole += np.abs(np.fft.fft2((grey - grey.mean()) * window)) ** 2
        rings = np.bincount(radius.ravel(), whole.ravel() / len(images)) / np.bincount(radius.ravel())
        return rings[side // 6 + 1 : side // 2 + 1] + rounding

    return float(np.exp(np.log(power(fake) / power(real)).mean()))


def _network(classes: int, image_size: int) -> tuple[keras.KerasTensor, keras.KerasTensor, keras.KerasTensor]:
    """Input (N, S, S, 3) in [0, 255]; what the images are seen by (N, 224): the mean over the image of every channel of
    three convolutions, from fine texture to coarse form; class probabilities (N, classes)."""
    inputs = keras.Input((image_size, image_size, 3))
    x = layers.Rescaling(1 / 127.5, -1)(inputs)
    seen = []
    for filters, stride in ((32, max(2, image_size // 32)), (64, 2), (128, 2)):
        x = layers.Conv2D(filters, 2 * stride - 1, stride, "same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
        seen.append(layers.GlobalAveragePooling2D()(x))
    features = layers.Concatenate()(seen)
    return inputs, features, layers.Dense(classes, activation="softmax")(features)


def train_features(train_set: str | Path, seed: int, path: str | Path, label: str) -> None:
    """Trains the classifier, on every class alike and on images in all their eight positions, and saves it as a plain
    `.keras` model from (N, S, S, 3) in [0, 255] to features, (N, 224) float32, and class probabilities, (N, classes).

    Each feature is standardised over the training images; then its arcsinh is taken, which leaves small values as they
    are and makes large ones logarithms. Else the cubic kernel of `kid` would see little but the one image that is far
    out: in trials, its distance to blurred, noised or averaged images rose about twofold against its own scatter.

    The same training has the same bytes.

    Args:
        train_set: image set of the split `train`.
        seed: of weights and order.
        path: where the model goes.
        label: phase, for what is said.
    """
    keras_setup.seed_everything(seed)
    with open_pixels(train_set, "train") as pixels:
        classes = len(pixels.header.classes)
        inputs, seen, probabilities = _network(classes, pixels.header.image_size)
        classifier = keras.Model(inputs, probabilities)
        counts = np.bincount(pixels.labels, minlength=classes)
        equal = np.maximum(1, np.rint(counts.max() / counts[pixels.labels])).astype(np.int64)
        steps = min(MOST_STEPS, -(-PASSES * len(pixels.images) // BATCH))
        rate = keras.optimizers.schedules.CosineDecay(2e-3, steps)
        classifier.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
        rng = np.random.default_rng(seed)
        progress = Progress(label, steps, "steps of the small classifier that judges", BATCH, "images")
        for step, rows in zip(range(steps), endless_batches(equal, BATCH, seed), strict=False):
            classifier.train_on_batch(random_dihedral(pixels.images[rows], rng), pixels.labels[rows])
            progress.update(step + 1)
        over = keras_setup.predict_probabilities(keras.Model(inputs, seen), pixels.images).astype(np.float64)
    deviation = over.std(0)
    # One that hardly varies over real images must not outweigh all others in synthetic ones.
    deviation = np.maximum(deviation, FLOOR * np.median(deviation))
    features = keras.ops.arcsinh(layers.Normalization(mean=over.mean(0), variance=deviation**2)(seen))
    keras_setup.save_model(keras.Model(inputs, [features, probabilities]), path)


class Features:
    """A model that `train_features` saved: from (N, S, S, 3) uint8 images to (N, 224) float64 features."""

    def __init__(self, model: keras.Model) -> None:
        self.model = model

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Features alone."""
        return self.both(images)[0]

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """(N, classes) float32, rows sum to 1."""
        return self.both(images)[1]

    def both(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features and probabilities, a batch at a time, so that memory does not grow with the number of images.

        Args:
            images: (N, S, S, 3) uint8, N ≥ 1, may lie in a file.
        """
        starts = range(0, len(images), keras_setup.PREDICTION_BATCH)
        parts = [self.model.predict_on_batch(images[s : s + keras_setup.PREDICTION_BATCH]) for s in starts]
        features, probabilities = (np.concatenate(part) for part in zip(*parts, strict=True))
        return features.astype(np.float64), probabilities


def load_features(path: str | Path) -> Features:
    """Loads what `train_features` saved.

    Raises:
        UserError: it is no such model.
    """
    try:
        model = keras.saving.load_model(path, compile=False)
        if len(model.outputs) != 2:
            raise ValueError(f"{len(model.outputs)} outputs")
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is not the model that judges images; take it from shared_pretraining.") from error
    return Features(model)
