"""The gradient step on TensorFlow."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf


def gradients(
    losses: Callable[[], tuple[Sequence[Any], Any]], groups: Sequence[Sequence[Any]], variables: Sequence[Any]
) -> tuple[Sequence[Any], Any, list[list[Any]]]:
    """See the package."""
    with tf.GradientTape(persistent=True) as tape:
        values, rest = losses()
    return values, rest, [tape.gradient(value, group) for value, group in zip(values, groups, strict=True)]


def with_input_gradient(function: Callable[[Any], Any], inputs: Any) -> tuple[Any, Any]:
    """See the package."""
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = function(inputs)
    return outputs, tape.gradient(outputs, inputs)


def compiled(step: Callable[..., Any], variables: Sequence[Any]) -> Callable[..., Any]:
    """See the package. XLA, where there is a GPU: on a CPU its convolutions are slower than TensorFlow's own."""
    return tf.function(step, jit_compile=bool(tf.config.list_physical_devices("GPU")))
