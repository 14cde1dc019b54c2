"""DiffAugment (Zhao et al., arXiv 2006.10738): what the discriminator sees is augmented, real and synthetic images
alike, by operations that let the generator's gradient through. So a hundred images last longer, and the augmentation
does not leak into what is generated."""

from typing import Any

from keras import ops

NAMES = ("none", "diffaugment")
DRAWS = 7
"""Random numbers for an image: brightness, saturation, contrast, translation and cutout, each down and across."""
TRANSLATION = 8
"""An image is moved by up to one part in so many of its side."""
CUTOUT = 2
"""The square that is cut out has one part in so many of the side."""


def diffaugment(images: Any, draws: Any) -> Any:
    """Changes colours, moves (what enters is 0), and cuts out a square (to 0).

    Args:
        images: (N, S, S, 3) float in [-1, 1].
        draws: (N, 7) float in [0, 1), uniform: they decide.

    Returns:
        (N, S, S, 3) of the same dtype; colours may leave [-1, 1].
    """
    side = images.shape[1]
    draws = ops.cast(draws, images.dtype)
    brightness, saturation, contrast = (ops.reshape(draws[:, i], (-1, 1, 1, 1)) for i in range(3))
    images = images + brightness - 0.5
    grey = ops.mean(images, axis=3, keepdims=True)
    images = (images - grey) * (2 * saturation) + grey
    mean = ops.mean(images, axis=(1, 2, 3), keepdims=True)
    images = (images - mean) * (contrast + 0.5) + mean

    # Moving is a product with a shifted identity matrix, down and across: cheap, deterministic, the same everywhere.
    furthest = side // TRANSLATION
    moves = ops.floor(draws[:, 3:5] * (2 * furthest + 1)) - furthest
    index = ops.arange(side, dtype=images.dtype)
    shifts = ops.cast(index[None, None, :] == index[None, :, None] - moves[:, :, None, None], images.dtype)
    images = ops.einsum("nij,njwc->niwc", shifts[:, 0], images)
    images = ops.einsum("nij,nhjc->nhic", shifts[:, 1], images)

    cut = side // CUTOUT
    starts = ops.floor(draws[:, 5:7] * (side + 1 - cut % 2)) - cut // 2
    inside = (index[None, None] >= starts[:, :, None]) & (index[None, None] < starts[:, :, None] + cut)
    hole = inside[:, 0, :, None] & inside[:, 1, None, :]
    return images * (1 - ops.cast(hole, images.dtype))[..., None]


def random_dihedral(images: Any, draws: Any) -> Any:
    """Puts each square image into one of its eight positions (flips and quarter turns).

    Args:
        images: (N, S, S, C), any dtype.
        draws: (N, 3) float in [0, 1), uniform: they decide.
    """
    chosen = ops.reshape(draws < 0.5, (-1, 3, 1, 1, 1))
    images = ops.where(chosen[:, 0], ops.flip(images, 1), images)
    images = ops.where(chosen[:, 1], ops.flip(images, 2), images)
    return ops.where(chosen[:, 2], ops.transpose(images, (0, 2, 1, 3)), images)
