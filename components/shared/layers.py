"""Layers that do what a Keras layer does in less time."""

from typing import Any

import keras
import numpy as np
from keras import layers, ops


def _random_bits(shape: tuple[int, ...], seed: Any) -> Any:
    """uint16 of the shape, uniform in [0, 2¹⁶); the shape has an even number of elements.

    Args:
        shape: known numbers.
        seed: (2,) uint32.
    """
    if keras.backend.backend() == "jax":
        import jax

        return jax.random.bits(jax.random.wrap_key_data(ops.cast(seed, "uint32")), shape, "uint16")
    import tensorflow as tf

    words = tf.random.stateless_uniform((int(np.prod(shape)) // 2,), tf.cast(seed, tf.int64), None, None, tf.uint32)
    return tf.reshape(tf.bitcast(words, tf.uint16), shape)


class Dropout(layers.Layer):
    """Keras' dropout, by 16 random bits for an element instead of a float: on a CPU their making is most of its cost,
    and half precision has too few digits for a fair draw (at .3 it keeps .695).

    Args:
        rate: the share that is set to 0, in [0, 1); what is kept is scaled by 1/(1 − rate).
        seed: of the draws; random where it is None.
    """

    def __init__(self, rate: float, seed: int | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self.rate = rate
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Same shape and dtype; as it is, unless training."""
        if not training or not self.rate:
            return inputs
        bits = _random_bits(tuple(inputs.shape), self.seed_generator.next())
        kept = bits >= np.uint16(round(self.rate * 2**16))
        return ops.where(kept, inputs * ops.cast(1 / (1 - self.rate), inputs.dtype), ops.zeros_like(inputs))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The input's."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """As Keras asks."""
        return super().get_config() | {"rate": self.rate}
