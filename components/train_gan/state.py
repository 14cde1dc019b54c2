"""State of a GAN's training: its variables, its history, and copies of both."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from components.shared.checkpoint import number, numbered
from components.train_gan.gan import GAN

SavedState = tuple[dict[str, Any], dict[str, np.ndarray]]
"""JSON values and arrays by name: the arguments of `checkpoint.pack`."""


@dataclass
class History:
    """The state of a training besides its variables; JSON values, except for the arrays.

    Attributes:
        step: steps taken; with the seed, it determines the position in the data and in all random numbers.
        losses: (kimg, generator's, discriminator's).
        kid: (kimg, value) of each snapshot.
        best_kimg: budget at the snapshot with the lowest KID.
        spread: the largest spread of a snapshot's samples.
        rolled_back_kimg: where training diverged and was rolled back, or None.
        seconds: training time of all processes, without steps that were rolled back.
        precision: the Keras dtype policy; several if training resumed on other hardware.
        grid_kimg: when the grids were sampled.
        grids: (16, S, S, 3) uint8, of the same noise.
        best: the weights of the best snapshot.
    """

    step: int = 0
    losses: list[tuple[float, float, float]] = field(default_factory=list)
    kid: list[tuple[float, float]] = field(default_factory=list)
    best_kimg: float = 0.0
    spread: float = 0.0
    rolled_back_kimg: float | None = None
    seconds: float = 0.0
    precision: list[str] = field(default_factory=list)
    grid_kimg: list[float] = field(default_factory=list)
    grids: list[np.ndarray] = field(default_factory=list)
    best: list[np.ndarray] = field(default_factory=list)


ARRAY_FIELDS = ("grids", "best")
"""The fields of a history that hold arrays."""


def capture_state(gan: GAN, history: History) -> SavedState:
    """Return a copy of all state, which `restore_state` restores."""
    values = {key: list(value) if isinstance(value, list) else value for key, value in vars(history).items()}
    arrays = number("state", gan.state)
    for key in ARRAY_FIELDS:
        arrays |= number(key, values.pop(key))
    return values, arrays


def restore_state(gan: GAN, saved: SavedState) -> History:
    """Set the variables of the GAN to a captured state, and return the history of that state."""
    values, arrays = saved
    lists: dict[str, Any] = {key: numbered(key, arrays) for key in ARRAY_FIELDS}
    for variable, value in zip(gan.state, numbered("state", arrays), strict=True):
        variable.assign(value)
    copied: dict[str, Any] = {key: list(value) if isinstance(value, list) else value for key, value in values.items()}
    return History(**copied, **lists)


def join_states(current: SavedState, good: SavedState) -> SavedState:
    """Join the current state and the one for a rollback into one; if they are the same object, it is stored once."""
    parts = {"good": good} if current is good else {"good": good, "current": current}
    arrays = {f"{part}/{name}": array for part, (_, held) in parts.items() for name, array in held.items()}
    return {part: values for part, (values, _) in parts.items()}, arrays


def split_states(joined: SavedState) -> tuple[SavedState, SavedState]:
    """Return the two arguments of `join_states`."""
    all_values, arrays = joined
    parts = {
        part: (values, {name[len(part) + 1 :]: array for name, array in arrays.items() if name.startswith(f"{part}/")})
        for part, values in all_values.items()
    }
    return parts.get("current", parts["good"]), parts["good"]
