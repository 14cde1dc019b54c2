"""The eight positions of a square image: flips and rotations by 90 degrees (the dihedral group D4), in NumPy.

A dermatoscopic image has no "up": all eight are equally valid.
"""

from collections.abc import Iterator

import numpy as np

POSITIONS = 8


def iter_positions(images: np.ndarray) -> Iterator[np.ndarray]:
    """Yield images in each of their eight positions, the original first.

    Args:
        images: (N, S, S, …), any dtype.

    Yields:
        Views of `images`, of the same shape.
    """
    for transposed in (images, images.swapaxes(1, 2)):
        for flipped in (transposed, transposed[:, ::-1]):
            yield flipped
            yield flipped[:, :, ::-1]


def to_position(image: np.ndarray, position: int) -> np.ndarray:
    """Return one image, (S, S, …), in a position: its index in the order of `iter_positions`."""
    return list(iter_positions(image[None]))[position][0]


def skip_dihedral(count: int, rng: np.random.Generator) -> None:
    """Advance `rng` as `random_dihedral` of `count` images does."""
    rng.random(3 * count)


def random_dihedral(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return each image in a random position.

    Args:
        images: (N, S, S, C), any dtype.
        rng: source of the choice.

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
