"""Faster equivalents of Keras layers."""

from typing import Any

import keras
import numpy as np
from keras import layers, ops


def _random_bits(shape: tuple[int, ...], seed: Any) -> Any:
    """Return uniform uint16 in [0, 2¹⁶) of a shape with an even number of elements.

    Args:
        shape: without unknown dimensions.
        seed: (2,) uint32.
    """
    if keras.backend.backend() == "jax":
        import jax

        return jax.random.bits(jax.random.wrap_key_data(ops.cast(seed, "uint32")), shape, "uint16")
    import tensorflow as tf

    words = tf.random.stateless_uniform((int(np.prod(shape)) // 2,), tf.cast(seed, tf.int64), None, None, tf.uint32)
    return tf.reshape(tf.bitcast(words, tf.uint16), shape)


class Dropout(layers.Layer):
    """Dropout with 16 random bits per element instead of a float.

    On a CPU, most of the cost of dropout is the random numbers. Half precision has too few digits for the exact rate
    (at .3 it keeps .695).

    Args:
        rate: share of the elements that is set to 0, in [0, 1); the others are scaled by 1/(1 − rate).
        seed: seed of the random numbers; None for a random one.
    """

    def __init__(self, rate: float, seed: int | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self.rate = rate
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Return a tensor of the same shape and dtype; the input itself, unless training."""
        if not training or not self.rate:
            return inputs
        bits = _random_bits(tuple(inputs.shape), self.seed_generator.next())
        is_kept = bits >= np.uint16(round(self.rate * 2**16))
        return ops.where(is_kept, inputs * ops.cast(1 / (1 - self.rate), inputs.dtype), ops.zeros_like(inputs))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the configuration; called by Keras."""
        return super().get_config() | {"rate": self.rate}
