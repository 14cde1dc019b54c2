"""The gradient step on JAX: pure functions of the variables' values, which Keras substitutes for the variables."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import keras


def _values(variables: Sequence[Any]) -> list[Any]:
    return [variable.value for variable in variables]


def _pure(function: Callable[..., Any], variables: Sequence[Any]) -> Callable[..., tuple[Any, list[Any]]]:
    """Return a pure function: (values of the variables, arguments) → (result, new values of the variables)."""

    def run(values: Sequence[Any], *arguments: Any) -> tuple[Any, list[Any]]:
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            result = function(*arguments)
            return result, _values(variables)

    return run


def gradients(
    generate: Callable[[], Any],
    score: Callable[[Any], tuple[tuple[Any, Any], Any, Any]],
    groups: tuple[Sequence[Any], Sequence[Any]],
    variables: Sequence[Any],
) -> tuple[tuple[Any, Any], Any, list[list[Any]]]:
    """See the package.

    If two losses are differentiated, the compiler merges their forward passes, which are equal.
    """
    before = _values(variables)
    index_of = {id(variable): index for index, variable in enumerate(variables)}
    indices = [[index_of[id(variable)] for variable in group] for group in groups]

    def replaced(values: Sequence[Any], group: int, part: Sequence[Any]) -> list[Any]:
        result = list(values)
        for index, value in zip(indices[group], part, strict=True):
            result[index] = value
        return result

    def part_of(values: Sequence[Any], group: int) -> list[Any]:
        return [values[index] for index in indices[group]]

    images, pull_back, between = jax.vjp(
        lambda part: _pure(generate, variables)(replaced(before, 0, part)), part_of(before, 0), has_aux=True
    )

    def one_loss(which: int, part: list[Any], shown: Any) -> tuple[Any, Any]:
        (losses, ratio, rest), after = _pure(score, variables)(replaced(between, 1, part), shown)
        return losses[which], (losses, ratio, rest, after)

    discriminators = part_of(between, 1)
    (of_discriminator, of_images), (losses, ratio, rest, after) = jax.grad(
        lambda part, shown: one_loss(1, part, shown), (0, 1), has_aux=True
    )(discriminators, images)
    if ratio is None:
        of_images = jax.grad(lambda shown: one_loss(0, discriminators, shown)[0])(images)
    else:
        of_images = of_images * ratio.reshape((-1, *[1] * (images.ndim - 1))).astype(images.dtype)
    _assign(variables, before, after)
    return losses, rest, [pull_back(of_images)[0], of_discriminator]


def with_input_gradient(function: Callable[[Any], Any], inputs: Any) -> tuple[Any, Any]:
    """See the package."""
    outputs, pull_back = jax.vjp(function, inputs)
    return outputs, pull_back(jnp.ones_like(outputs))[0]


def compiled(
    steps: Sequence[Callable[[Any, Any, bool], None]], states: Sequence[Sequence[Any]], lazy: bool
) -> Callable[[Sequence[Any], Sequence[Any], Any], None]:
    """See the package.

    The values of several GANs are stacked, and the step of the first GAN is mapped over the stack.
    """
    step = _pure(steps[0], states[0])

    def loop(values: list[Any], images: Any, rows: Any, penalised: Any) -> list[Any]:
        def one(values: list[Any], shown: tuple[Any, Any]) -> tuple[list[Any], None]:
            own_rows, own_penalised = shown
            if not lazy:
                return step(values, images, own_rows, True)[1], None
            with_penalty, without = (
                lambda now, penalise=penalise: step(now, images, own_rows, penalise)[1] for penalise in (True, False)
            )
            return jax.lax.cond(own_penalised, with_penalty, without, values), None

        return jax.lax.scan(one, values, (rows, penalised))[0]

    together = len(states) > 1
    fast = jax.jit(jax.vmap(loop, (0, 0, 0, None)) if together else loop, donate_argnums=0)

    def run(images: Sequence[Any], rows: Sequence[Any], penalised: Any) -> None:
        if not together:
            after = [fast(_values(states[0]), images[0], jnp.asarray(rows[0], "int32"), jnp.asarray(penalised))]
        else:
            values = [jnp.stack(each) for each in zip(*(_values(state) for state in states), strict=True)]
            shown = jnp.stack([jnp.asarray(each) for each in images]), jnp.asarray(rows, "int32")
            stacked = fast(values, *shown, jnp.asarray(penalised))
            after = [[value[i] for value in stacked] for i in range(len(states))]
        for state, values in zip(states, after, strict=True):
            for variable, value in zip(state, values, strict=True):
                variable.assign(value)

    return run


def _assign(variables: Sequence[Any], before: Sequence[Any], after: Sequence[Any]) -> None:
    for variable, old, new in zip(variables, before, after, strict=True):
        if new is not old:
            variable.assign(new)
