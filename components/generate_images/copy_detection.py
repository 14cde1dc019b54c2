"""The copy check: is a synthetic image a training image again?

It compares pictures, not features: those of the ruler tell kinds of lesions apart, and find neither a copy with a
little noise nor one in another light. How sure the check is was measured: `docs/synthetic.md`.
"""

from collections.abc import Iterator

import numpy as np

SIDE = 32
FINE, COARSE = 1.0, 4.0
"""Standard deviations, in 32nds of the side, of the two Gaussians whose difference is compared: without what is finer,
a copy's noise goes, and without what is coarser, what all lesions of a class share: a dark spot in the middle."""
REACH = 2
"""A copy may have moved by so many 32nds of the side, down and across."""
ENOUGH = 100
"""With fewer held-out images than this there is no first percentile to speak of."""
PART = 64
"""Images that are compared at a time."""
SAME, OTHER = 0.01, 0.2
"""Below the first two images are one picture, whatever lesions they are said to be of; above the second they are not,
however few there were to tell a threshold from."""


def positions(images: np.ndarray) -> Iterator[np.ndarray]:
    """(N, S, S, …) images in each of their eight positions, by flips and quarter turns, the first as they are."""
    for turned in (images, images.swapaxes(1, 2)):
        for flipped in (turned, turned[:, ::-1]):
            yield flipped
            yield flipped[:, :, ::-1]


def _patterns(images: np.ndarray) -> np.ndarray:
    """(N, 32, 32) float32: the grey images between two Gaussians' widths."""
    size = images.shape[1]
    at = (np.arange(size) + 0.5) * SIDE / size - 0.5
    grey = images.mean(axis=3, dtype=np.float32)
    blurred = []
    for width in (FINE, COARSE):
        weights = np.exp(-(((at - np.arange(SIDE)[:, None]) / width) ** 2) / 2)
        weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
        blurred.append(weights @ grey @ weights.T)
    return np.asarray(blurred[0] - blurred[1])


def _windows(patterns: np.ndarray, down: int, across: int) -> np.ndarray:
    """Every second pixel, since the finest is gone, without the border that a movement loses; moved, and as unit
    vectors around 0: (N, 196)."""
    inner = SIDE - 2 * REACH
    window = patterns[:, down : down + inner : 2, across : across + inner : 2].reshape(len(patterns), -1)
    window = window - window.mean(axis=1, keepdims=True)
    return np.asarray(window / np.maximum(np.linalg.norm(window, axis=1, keepdims=True), 1e-3))


class CopyCheck:
    """Compares images with the training images of a class.

    Args:
        training: (N, S, S, 3) uint8, N ≥ 1.
        lesions: (N,) their lesions.
        held_out: (M, S, S, 3) uint8 real images of other lesions.

    Attributes:
        threshold: a distance below it accuses. It is the first percentile of the held-out images' distances to the
            training images. Where they are fewer than 100, each training image's distance to those of other lesions
            joins in. At least 0.01, and pairs nearer than that, one picture under two lesions' names, do not count; at
            most 0.2.
    """

    def __init__(self, training: np.ndarray, lesions: np.ndarray, held_out: np.ndarray) -> None:
        self._training = _windows(_patterns(training), REACH, REACH)
        nearest = [self.nearest(held_out[start : start + PART])[0] for start in range(0, len(held_out), PART)]
        if len(held_out) < ENOUGH:
            apart = np.concatenate([self._distances(training[s : s + PART])[0] for s in range(0, len(training), PART)])
            apart[lesions[:, None] == lesions] = np.inf
            nearest.append(apart.min(axis=1))
        known = np.concatenate(nearest)
        known = known[np.isfinite(known) & (known >= SAME)]
        self.threshold = min(OTHER, float(np.quantile(known, 0.01))) if len(known) else SAME

    def _distances(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of each image from each training image, in the position that fits best, and the number of that position."""
        found = np.full((len(images), len(self._training)), np.inf, np.float32)
        position = np.zeros(found.shape, np.int8)
        moves = list(np.ndindex(2 * REACH + 1, 2 * REACH + 1))
        for number, turned in enumerate(positions(_patterns(images))):
            windows = np.concatenate([_windows(turned, *move) for move in moves])
            likeness = (windows @ self._training.T).reshape(len(moves), *found.shape).max(axis=0)
            better = 1 - likeness < found
            found[better], position[better] = 1 - likeness[better], number
        return np.maximum(found, 0), position

    def nearest(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The nearest training image of each.

        The distance of two images is 1 less the correlation of their patterns: 0 for the same picture, whatever its
        light, and about 1 for unlike ones; the least over the eight positions and over small movements.

        Args:
            images: (N, S, S, 3) uint8, N ≥ 1; memory grows with N times the number of training images.

        Returns:
            (N,) float32 distances in [0, 2], (N,) rows of the training images, and (N,) int8, in which of its
            `positions` the image is most like it.
        """
        distance, position = self._distances(images)
        rows = np.arange(len(images))
        nearest = distance.argmin(axis=1)
        return distance[rows, nearest], nearest, position[rows, nearest]
