"""DiffAugment (Zhao et al., arXiv 2006.10738): augmentation of the discriminator's input, real and synthetic.

Its operations are differentiable, so the generator learns through them. With it, a GAN trains on a hundred images, and
the augmentation does not appear in the samples.
"""

from typing import Any

from keras import ops

NAMES = ("none", "diffaugment")
RANDOM_VALUES = 7
"""Random values for each image: brightness, saturation, contrast, and two each for translation and cutout."""
TRANSLATION_DIVISOR = 8
"""An image is translated by at most this part of its side."""
CUTOUT_DIVISOR = 2
"""The side of the square that is cut out is this part of the image's side."""


def diffaugment(images: Any, values: Any) -> Any:
    """Change colours, translate the image (filled with 0), and set a square to 0.

    Args:
        images: (N, S, S, 3) float in [-1, 1].
        values: (N, 7) float in [0, 1), uniform; they determine the result.

    Returns:
        (N, S, S, 3) of the same dtype; colours may leave [-1, 1].
    """
    side = images.shape[1]
    values = ops.cast(values, images.dtype)
    brightness, saturation, contrast = (ops.reshape(values[:, i], (-1, 1, 1, 1)) for i in range(3))
    images = images + brightness - 0.5
    grey = ops.mean(images, axis=3, keepdims=True)
    images = (images - grey) * (2 * saturation) + grey
    mean = ops.mean(images, axis=(1, 2, 3), keepdims=True)
    images = (images - mean) * (contrast + 0.5) + mean

    # A translation is a product with a shifted identity matrix on each axis: fast, and deterministic on all hardware.
    max_shift = side // TRANSLATION_DIVISOR
    shifts = ops.floor(values[:, 3:5] * (2 * max_shift + 1)) - max_shift
    index = ops.arange(side, dtype=images.dtype)
    matrices = ops.cast(index[None, None, :] == index[None, :, None] - shifts[:, :, None, None], images.dtype)
    images = ops.einsum("nij,njwc->niwc", matrices[:, 0], images)
    images = ops.einsum("nij,nhjc->nhic", matrices[:, 1], images)

    cut = side // CUTOUT_DIVISOR
    starts = ops.floor(values[:, 5:7] * (side + 1 - cut % 2)) - cut // 2
    inside = (index[None, None] >= starts[:, :, None]) & (index[None, None] < starts[:, :, None] + cut)
    square = inside[:, 0, :, None] & inside[:, 1, None, :]
    return images * (1 - ops.cast(square, images.dtype))[..., None]


def random_dihedral(images: Any, values: Any) -> Any:
    """Flip and rotate each square image into one of its eight positions.

    Args:
        images: (N, S, S, C), any dtype.
        values: (N, 3) float in [0, 1), uniform; they determine the position.
    """
    chosen = ops.reshape(values < 0.5, (-1, 3, 1, 1, 1))
    images = ops.where(chosen[:, 0], ops.flip(images, 1), images)
    images = ops.where(chosen[:, 1], ops.flip(images, 2), images)
    return ops.where(chosen[:, 2], ops.transpose(images, (0, 2, 1, 3)), images)
