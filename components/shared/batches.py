"""The order in which training sees its images."""

from collections.abc import Iterator

import numpy as np

AUGMENTATIONS = ("none", "flips_and_rotations")


def endless_batches(repeat: np.ndarray, batch: int, seed: int) -> Iterator[np.ndarray]:
    """Batches of row numbers without end: shuffled passes, one after another, over rows that count `repeat` times.

    Args:
        repeat: (N,) int, how often each row stands in a pass; at least one row at least once.
        batch: rows in a batch; a batch may reach into the next pass, so that all have this size.
        seed: the same seed gives the same batches.

    Yields:
        (batch,) int64 row numbers.
    """
    rows = np.repeat(np.arange(len(repeat)), repeat)
    rng = np.random.default_rng(seed)
    left = np.empty(0, np.int64)
    while True:
        while len(left) < batch:
            left = np.concatenate([left, rng.permutation(rows)])
        yield left[:batch]
        left = left[batch:]


def random_dihedral(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Puts each square image into one of its eight positions (flips and quarter turns), at random.

    A dermatoscopic image has no "up": all eight are equally true.

    Args:
        images: (N, S, S, C), any dtype.
        rng: decides.

    Returns:
        (N, S, S, C) new array of the same dtype.
    """
    images = images.copy()
    for axes in ((1,), (2,)):
        chosen = rng.random(len(images)) < 0.5
        images[chosen] = np.flip(images[chosen], axes)
    chosen = rng.random(len(images)) < 0.5
    images[chosen] = images[chosen].swapaxes(1, 2)
    return images
