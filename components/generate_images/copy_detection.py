"""Detect synthetic images that replicate a training image.

Pixels are compared, not features: the feature extractor separates kinds of lesions, and misses a copy with a little
noise or a different brightness. `docs/concepts/synthetic-images.md` has the measured detection rates.
"""

import numpy as np

from components.shared.dihedral import iter_positions

PATTERN_SIZE_PX = 32
FINE_SIGMA_PX, COARSE_SIGMA_PX = 1.0, 4.0
"""Standard deviations of the two Gaussians whose difference is compared. The first removes noise; the second removes
what all lesions of a class share, such as a dark spot in the middle."""
MAX_SHIFT_PX = 2
"""Shifts of a copy that are compensated, down and across, in pixels of the pattern."""
FALSE_POSITIVE_RATE = 0.01
MIN_HELD_OUT_IMAGES = 100
"""Minimum number of held-out images from which the first percentile can be estimated."""
BLOCK_IMAGES = 64
MIN_THRESHOLD, MAX_THRESHOLD = 0.01, 0.2
"""A nearer pair is one image, even if its lesions differ; a pair farther apart is never a copy."""


def _patterns(images: np.ndarray) -> np.ndarray:
    """Return the grey images, band-passed between the two Gaussians: (N, 32, 32) float32."""
    size = images.shape[1]
    centres = (np.arange(size) + 0.5) * PATTERN_SIZE_PX / size - 0.5
    grey = images.mean(axis=3, dtype=np.float32)
    blurred = []
    for sigma in (FINE_SIGMA_PX, COARSE_SIGMA_PX):
        weights = np.exp(-(((centres - np.arange(PATTERN_SIZE_PX)[:, None]) / sigma) ** 2) / 2)
        weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
        blurred.append(weights @ grey @ weights.T)
    return np.asarray(blurred[0] - blurred[1])


def _windows(patterns: np.ndarray, down: int, across: int) -> np.ndarray:
    """Return a shifted window of each pattern as a unit vector with mean 0: (N, 196).

    The window excludes the border that a shift loses. Every second pixel is enough, since the finest detail is removed.
    """
    inner = PATTERN_SIZE_PX - 2 * MAX_SHIFT_PX
    window = patterns[:, down : down + inner : 2, across : across + inner : 2].reshape(len(patterns), -1)
    window = window - window.mean(axis=1, keepdims=True)
    return np.asarray(window / np.maximum(np.linalg.norm(window, axis=1, keepdims=True), 1e-3))


def estimate_threshold(distances: np.ndarray) -> float:
    """Return the threshold below which the next distance of the same kind is with a probability of 1 %.

    It is an unbiased first percentile (Hyndman & Fan 1996, type 6). Of fewer than 99 distances it is the smallest, and
    the probability is 1 / (N + 1).

    Args:
        distances: (N,) from real images to the training images. Distances below 0.01 are excluded: they belong to one
            image that has two lesion ids. Infinite ones are excluded, too.

    Returns:
        From 0.01 to 0.2.
    """
    known = distances[np.isfinite(distances) & (distances >= MIN_THRESHOLD)]
    if not len(known):
        return MIN_THRESHOLD
    return min(MAX_THRESHOLD, float(np.quantile(known, FALSE_POSITIVE_RATE, method="weibull")))


class CopyCheck:
    """Compare images with the training images of a class.

    Args:
        training: (N, S, S, 3) uint8, N ≥ 1.
        lesions: (N,) their lesions.
        held_out: (M, S, S, 3) uint8 real images of other lesions.

    Attributes:
        threshold: an image with a smaller distance is a copy. It is estimated from the distances of the held-out images
            to the training images. With fewer than 100 held-out images, the distances of the training images to those
            of other lesions are included. Images of one lesion are alike, so the effective number of distances is that
            of lesions.
    """

    def __init__(self, training: np.ndarray, lesions: np.ndarray, held_out: np.ndarray) -> None:
        def blocks(images: np.ndarray) -> list[slice]:
            return [slice(start, start + BLOCK_IMAGES) for start in range(0, len(images), BLOCK_IMAGES)]

        self._training = np.concatenate(
            [_windows(_patterns(training[rows]), MAX_SHIFT_PX, MAX_SHIFT_PX) for rows in blocks(training)]
        )
        nearest = [self.nearest(held_out[rows])[0] for rows in blocks(held_out)]
        if len(held_out) < MIN_HELD_OUT_IMAGES:
            for rows in blocks(training):
                apart = self.distances(training[rows])[0]
                apart[lesions[rows, None] == lesions] = np.inf
                nearest.append(apart.min(axis=1))
        self.threshold = estimate_threshold(np.concatenate(nearest))

    def distances(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return each image's distance to each training image, and the position in which the two agree best."""
        distances = np.full((len(images), len(self._training)), np.inf, np.float32)
        positions = np.zeros(distances.shape, np.int8)
        shifts = list(np.ndindex(2 * MAX_SHIFT_PX + 1, 2 * MAX_SHIFT_PX + 1))
        for position, patterns in enumerate(iter_positions(_patterns(images))):
            windows = np.concatenate([_windows(patterns, *shift) for shift in shifts])
            correlation = (windows @ self._training.T).reshape(len(shifts), *distances.shape).max(axis=0)
            is_nearer = 1 - correlation < distances
            distances[is_nearer], positions[is_nearer] = 1 - correlation[is_nearer], position
        return np.maximum(distances, 0), positions

    def nearest(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the nearest training image of each image.

        The distance of two images is 1 minus the correlation of their patterns, minimised over the eight positions and
        small shifts: 0 for the same image, independent of brightness and contrast, and about 1 for unrelated images.

        Args:
            images: (N, S, S, 3) uint8, N ≥ 1; memory grows with N times the number of training images.

        Returns:
            (N,) float32 distances in [0, 2], (N,) rows of the training images, and (N,) int8 the positions (indices in
            the order of `iter_positions`) in which the images agree best with them.
        """
        distances, positions = self.distances(images)
        rows = np.arange(len(images))
        nearest = distances.argmin(axis=1)
        return distances[rows, nearest], nearest, positions[rows, nearest]
