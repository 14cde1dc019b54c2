"""Where a GAN's training stands: what it knows beside its variables, and a moment of both."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from components.train_gan.gan import GAN

Moment = tuple[dict[str, Any], dict[str, np.ndarray]]
"""Facts as JSON values, and arrays by name."""


@dataclass
class History:
    """What training knows beside its variables; JSON values, but for the arrays.

    Attributes:
        step: how many are done: with the seed, it gives the place in the data and in all random numbers.
        losses: (kimg, generator's, discriminator's).
        kid: (kimg, value) of each snapshot.
        best_kimg: of the snapshot with the lowest KID.
        spread: the most that a snapshot's samples varied.
        rolled_back_kimg: where training diverged and was rolled back, or None.
        seconds: of all processes that trained, without what was rolled back.
        precision: the Keras dtype policy; several where training went on on another kind of machine.
        grid_kimg: when the grids were drawn.
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


ARRAYS = ("grids", "best")
"""The fields of a history that hold arrays."""


def capture_state(gan: GAN, history: History) -> Moment:
    """A copy of everything, from which `restore_state` makes it again."""
    facts = {key: list(value) if isinstance(value, list) else value for key, value in vars(history).items()}
    lists = {"state": [np.array(variable) for variable in gan.state]} | {key: facts.pop(key) for key in ARRAYS}
    return facts, {f"{key}/{i:04d}": array for key, arrays in lists.items() for i, array in enumerate(arrays)}


def restore_state(gan: GAN, moment: Moment) -> History:
    """Puts the capture_state values into the GAN, and gives the history."""
    facts, arrays = moment
    names = sorted(arrays)
    lists: dict[str, Any] = {key: [arrays[n] for n in names if n.startswith(f"{key}/")] for key in ("state", *ARRAYS)}
    for variable, value in zip(gan.state, lists.pop("state"), strict=True):
        variable.assign(value)
    copied: dict[str, Any] = {key: list(value) if isinstance(value, list) else value for key, value in facts.items()}
    return History(**copied, **lists)


def join_states(now: Moment, good: Moment) -> Moment:
    """The present and the one to go back to as one moment; the same one is held once."""
    parts = {"good": good} if now is good else {"good": good, "now": now}
    arrays = {f"{part}/{name}": array for part, (_, held) in parts.items() for name, array in held.items()}
    return {part: facts for part, (facts, _) in parts.items()}, arrays


def split_states(both: Moment) -> tuple[Moment, Moment]:
    """The two moments that `join_states` was given."""
    facts, arrays = both
    parts = {
        part: (held, {name[len(part) + 1 :]: array for name, array in arrays.items() if name.startswith(f"{part}/")})
        for part, held in facts.items()
    }
    return parts.get("now", parts["good"]), parts["good"]
