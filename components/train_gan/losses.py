"""Losses of generator and discriminator, from the discriminator's logits, and the gradient penalty."""

from collections.abc import Callable
from typing import Any, NamedTuple

from keras import ops

MAX_DIFFERENCE = 80.0
"""Upper bound of a difference of logits in a ratio, which keeps it finite: e⁸⁰ is 10³⁴."""


class Loss(NamedTuple):
    """A pair of losses.

    Attributes:
        pair: from (N, 1) logits of real and (N, 1) of synthetic images to the generator's and the discriminator's loss.
        ratio: from the same, for each synthetic image, (N, 1): the derivative of the generator's loss by its logit,
            divided by that of the discriminator's loss. With it, one backward pass through the discriminator
            serves both.
    """

    pair: Callable[[Any, Any], tuple[Any, Any]]
    ratio: Callable[[Any, Any], Any]


def bce(real: Any, fake: Any) -> tuple[Any, Any]:
    """Return binary cross-entropy, non-saturating for the generator (Goodfellow et al., arXiv 1406.2661)."""
    return ops.mean(ops.softplus(-fake)), ops.mean(ops.softplus(-real)) + ops.mean(ops.softplus(fake))


def relativistic(real: Any, fake: Any) -> tuple[Any, Any]:
    """Return the relativistic pairing loss of pairs of a real and a synthetic image (R3GAN, arXiv 2501.05441)."""
    return ops.mean(ops.softplus(real - fake)), ops.mean(ops.softplus(fake - real))


def _ratio(difference: Any) -> Any:
    """Return −σ(d)/σ(−d) = −eᵈ."""
    return -ops.exp(ops.minimum(difference, MAX_DIFFERENCE))


LOSSES = {
    "bce": Loss(bce, lambda real, fake: _ratio(-fake)),
    "relativistic": Loss(relativistic, lambda real, fake: _ratio(real - fake)),
}


def penalty(gradient: Any) -> Any:
    """Return the zero-centred gradient penalty (Mescheder et al., arXiv 1801.04406), without its weight γ/2.

    Args:
        gradient: (N, H, W, 3), of each image's logit with respect to that image.

    Returns:
        Mean over the images of the gradient's squared norm.
    """
    return ops.mean(ops.sum(ops.square(gradient), axis=(1, 2, 3)))
