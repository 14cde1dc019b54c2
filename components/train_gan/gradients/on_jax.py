"""The gradient step on JAX: functions of the variables' values, which Keras puts in the variables' place."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import keras


def _values(variables: Sequence[Any]) -> list[Any]:
    return [variable.value for variable in variables]


def _pure(function: Callable[..., Any], variables: Sequence[Any]) -> Callable[..., tuple[Any, list[Any]]]:
    """A function of the variables' values and its own arguments, to its result and the variables' new values."""

    def run(values: Sequence[Any], *arguments: Any) -> tuple[Any, list[Any]]:
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            result = function(*arguments)
            return result, _values(variables)

    return run


def gradients(
    losses: Callable[[], tuple[Sequence[Any], Any]], groups: Sequence[Sequence[Any]], variables: Sequence[Any]
) -> tuple[Sequence[Any], Any, list[list[Any]]]:
    """See the package. The passes of the several losses are the same computation, which the compiler does once."""
    before = _values(variables)
    place = {id(variable): index for index, variable in enumerate(variables)}
    run = _pure(losses, variables)
    found = []
    for number, group in enumerate(groups):
        places = [place[id(variable)] for variable in group]

        def one_loss(part: list[Any], number: int = number, places: list[int] = places) -> tuple[Any, Any]:
            values = list(before)
            for index, value in zip(places, part, strict=True):
                values[index] = value
            (all_losses, rest), after = run(values)
            return all_losses[number], (all_losses, rest, after)

        gradient, (all_losses, rest, after) = jax.grad(one_loss, has_aux=True)([before[index] for index in places])
        found.append(gradient)
    _assign(variables, before, after)
    return all_losses, rest, found


def with_input_gradient(function: Callable[[Any], Any], inputs: Any) -> tuple[Any, Any]:
    """See the package."""
    outputs, pull_back = jax.vjp(function, inputs)
    return outputs, pull_back(jnp.ones_like(outputs))[0]


def compiled(step: Callable[..., Any], variables: Sequence[Any]) -> Callable[..., Any]:
    """See the package."""
    run = jax.jit(_pure(step, variables))

    def compiled_step(*arguments: Any) -> Any:
        before = _values(variables)
        result, after = run(before, *arguments)
        _assign(variables, before, after)
        return result

    return compiled_step


def _assign(variables: Sequence[Any], before: Sequence[Any], after: Sequence[Any]) -> None:
    for variable, old, new in zip(variables, before, after, strict=True):
        if new is not old:
            variable.assign(new)
