"""Limits of speed: the rate of matrix multiplication, and the operations in a step of the original networks."""

import math
from collections.abc import Callable

import keras
import numpy as np
from keras import layers, ops


def matrix_product(dtype: str, side: int) -> Callable[[], float]:
    """Build a product of two matrices, (side, side), in `float32` or `bfloat16`; its work is counted in FLOP."""
    rng = np.random.default_rng(0)
    left, right = (ops.cast(ops.convert_to_tensor(rng.standard_normal((side, side))), dtype) for _ in range(2))

    def work() -> float:
        ops.convert_to_numpy(ops.cast(ops.matmul(left, right)[0, 0], "float32"))
        return 2.0 * side**3

    return work


def forward_flop(model: keras.Model) -> list[int]:
    """Return the FLOP of each layer that multiplies matrices, for one image forward; a multiply-add counts as two."""
    found = []
    for layer in model.layers:
        if isinstance(layer, layers.Conv2DTranspose):
            where = layer.input.shape
        elif isinstance(layer, layers.Conv2D | layers.Dense):
            where = layer.output.shape
        else:
            continue
        found.append(2 * math.prod(layer.kernel.shape) * math.prod(where[1:-1]))
    return found


def gan_step_flop(generator: keras.Model, discriminator: keras.Model) -> int:
    """Return the minimum FLOP of a training step per real image.

    Forward once through the generator and twice through the discriminator, for real and synthetic images; backward as
    much again for the gradients of the weights, and as much again for those of the inputs (not noise and real images).
    Both losses share the backward pass through the discriminator: per image, their gradients differ only by a factor.
    """
    g, d = forward_flop(generator), forward_flop(discriminator)
    return 3 * sum(g) - g[0] + 6 * sum(d) - d[0]


def classifier_step_flop(model: keras.Model) -> int:
    """Return the FLOP of a training step per image: forward, and backward for weights and inputs."""
    found = forward_flop(model)
    return 3 * sum(found) - found[0]
