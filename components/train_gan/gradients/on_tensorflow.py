"""The gradient step on TensorFlow."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf


def gradients(
    generate: Callable[[], Any],
    score: Callable[[Any], tuple[tuple[Any, Any], Any, Any]],
    groups: tuple[Sequence[Any], Sequence[Any]],
    variables: Sequence[Any],
) -> tuple[tuple[Any, Any], Any, list[list[Any]]]:
    """See the package."""
    with tf.GradientTape() as generator_tape:
        images = generate()
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(images)
        losses, ratio, rest = score(images)
    if ratio is None:
        of_images, of_discriminator = tape.gradient(losses[0], images), tape.gradient(losses[1], groups[1])
    else:
        *of_discriminator, of_images = tape.gradient(losses[1], [*groups[1], images])
        of_images *= tf.reshape(ratio, [-1, *[1] * (len(images.shape) - 1)])
    return losses, rest, [generator_tape.gradient(images, groups[0], of_images), of_discriminator]


def with_input_gradient(function: Callable[[Any], Any], inputs: Any) -> tuple[Any, Any]:
    """See the package."""
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = function(inputs)
    return outputs, tape.gradient(outputs, inputs)


def compiled(
    steps: Sequence[Callable[[Any, Any, bool], None]], states: Sequence[Sequence[Any]], lazy: bool
) -> Callable[[Sequence[Any], Sequence[Any], Any], None]:
    """See the package.

    The GANs are computed one after another: TensorFlow cannot batch functions that change variables. XLA is used only
    on a GPU: on a CPU, its convolutions are slower than those of TensorFlow.
    """
    gpu = bool(tf.config.list_physical_devices("GPU"))

    def compile_loop(step: Callable[[Any, Any, bool], None]) -> Callable[[Any, Any, Any], None]:
        @tf.function(jit_compile=gpu, reduce_retracing=True)
        def loop(images: Any, rows: Any, penalised: Any) -> None:
            for i in tf.range(tf.shape(rows)[0]):
                if not lazy or penalised[i]:
                    step(images, rows[i], True)
                else:
                    step(images, rows[i], False)

        return loop

    loops = [compile_loop(step) for step in steps]

    def run(images: Sequence[Any], rows: Sequence[Any], penalised: Any) -> None:
        for loop, own_images, own_rows in zip(loops, images, rows, strict=True):
            loop(tf.convert_to_tensor(own_images), tf.constant(own_rows, tf.int32), tf.constant(penalised))

    return run
