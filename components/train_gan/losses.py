"""What generator and discriminator minimise, from the discriminator's logits of real and synthetic images."""

from collections.abc import Callable
from typing import Any

from keras import ops


def bce(real: Any, fake: Any) -> tuple[Any, Any]:
    """Binary cross-entropy, the generator's in its non-saturating form (Goodfellow et al., arXiv 1406.2661)."""
    return ops.mean(ops.softplus(-fake)), ops.mean(ops.softplus(-real)) + ops.mean(ops.softplus(fake))


def hinge(real: Any, fake: Any) -> tuple[Any, Any]:
    """Hinge loss (Lim and Ye, arXiv 1705.02894)."""
    return -ops.mean(fake), ops.mean(ops.relu(1 - real)) + ops.mean(ops.relu(1 + fake))


def relativistic(real: Any, fake: Any) -> tuple[Any, Any]:
    """Relativistic pairing: each synthetic image against one real image (R3GAN, Huang et al., arXiv 2501.05441)."""
    return ops.mean(ops.softplus(real - fake)), ops.mean(ops.softplus(fake - real))


LOSSES: dict[str, Callable[[Any, Any], tuple[Any, Any]]] = {"bce": bce, "hinge": hinge, "relativistic": relativistic}
"""Each from (N, 1) logits of real and (N, 1) of synthetic images to the generator's and the discriminator's loss."""
