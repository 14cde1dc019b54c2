"""What a user may set: the pipeline's parameters, by name, checked before anything is started."""

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from components.shared.batches import AUGMENTATIONS
from components.shared.errors import UserError
from components.train_gan import architectures

PRESETS = Path(__file__).resolve().parent.parent / "presets"
CHOICES = {
    "augmentation": AUGMENTATIONS,
    "gan_architecture": architectures.NAMES,
    "failed_class": ("fail", "continue"),
    "duplicates": ("refuse", "move_to_train"),
    "promote_if": ("improved", "not_worse", "always", "never"),
}
# The phases check their own, on a cluster too; here a mistake comes out before hours of work.
LIMITS: dict[str, tuple[float, float]] = {
    "image_size": (32, 512),
    "max_bad_images": (0, 10**9),
    "synthetic_per_class": (1, 10**6),
    "synthetic_reject": (0, 0.9),
    "gan_kimg": (0.001, 10**6),
    "shared_kimg": (0, 10**6),
    "gans_per_task": (1, 100),
    "classifier_epochs": (1, 10**6),
    "classifier_patience": (1, 10**6),
    "seed": (0, 2**53),  # beyond it, Kubeflow's numbers are no longer whole
    "seeds": (0, 2**53),
}
MAX_SEEDS = 20
MAKES_OWN = ("PYTHON", "VENV", "UV_VERSION")


def words(given: list[str]) -> list[str]:
    """What was written on the command line; with `--make`, what was written behind `make run`.

    Make hands its variables to a command in the environment as they are, while a shell would take a quote, a blank or a
    dollar in them for its own.
    """
    if given != ["--make"]:
        return given
    _, _, overrides = os.environ.get("MAKEFLAGS", "").partition("-- ")
    names = [word.partition("=")[0].rstrip(":+?") for word in re.split(r"(?<!\\)\s+", overrides) if "=" in word]
    return [f"{name}={os.environ[name]}" for name in dict.fromkeys(names) if name not in MAKES_OWN]


def assignments(words: list[str]) -> dict[str, str]:
    """`["PRESET=cpu", "seed=2"]` as a dictionary.

    Raises:
        UserError: a word is not of the form NAME=value, or a name stands twice.
    """
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise UserError(f"{word!r} is not an assignment; write NAME=value.")
        if name in found:
            raise UserError(f"{name} is given twice; give it once.")
        found[name] = value
    return found


def preset(name: str) -> dict[str, Any]:
    """The parameters of a preset.

    Raises:
        UserError: there is none of this name.
    """
    names = sorted(path.stem for path in PRESETS.glob("*.yaml"))
    if name not in names:
        raise UserError(f"PRESET is {name!r}; choose one of {', '.join(names)}.")
    return yaml.safe_load((PRESETS / f"{name}.yaml").read_text(encoding="utf-8"))


def typed(given: Mapping[str, str], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Strings from a command line as the pipeline's parameters.

    Args:
        given: name → text.
        defaults: name → default of every parameter; its type is the parameter's.

    Raises:
        UserError: an unknown name, or a value of another type or outside the choices.
    """
    values: dict[str, Any] = {}
    for name, text in given.items():
        if name not in defaults:
            raise UserError(f"{name} is not a parameter; choose from {', '.join(sorted(defaults))}.")
        kind = type(defaults[name])
        low, high = LIMITS.get(name, (-math.inf, math.inf))
        if kind is list:
            values[name] = _whole_numbers(name, text)
            continue
        try:
            values[name] = kind(text)
            if kind is float and not math.isfinite(values[name]):
                raise ValueError
        except ValueError:
            wanted = {int: "a whole number", float: "a number"}[kind]
            raise UserError(f"{name} is {text!r}; give {wanted}.") from None
        if kind is not str and not low <= values[name] <= high:
            raise UserError(f"{name} is {text}; choose from {low:,} to {high:,}.")
        if values[name] not in CHOICES.get(name, [values[name]]):
            raise UserError(f"{name} is {text!r}; choose one of {', '.join(CHOICES[name])}.")
    return values


def _whole_numbers(name: str, text: str) -> list[int]:
    """`1,2,3` or `[1, 2, 3]` as a list.

    Raises:
        UserError: it isn't one, or a number stands twice or is out of its limits.
    """
    low, high = LIMITS[name]
    try:
        numbers = [int(word) for word in text.strip().removeprefix("[").removesuffix("]").split(",")]
    except ValueError:
        raise UserError(f"{name} is {text!r}; give whole numbers with commas between them, such as 1,2,3.") from None
    if len(set(numbers)) < len(numbers) or len(numbers) > MAX_SEEDS or not all(low <= n <= high for n in numbers):
        raise UserError(f"{name} is {text}; give up to {MAX_SEEDS} different numbers from {low:,} to {high:,}.")
    return numbers


def default_of(entry: Any) -> Any:
    """The default of a parameter in a compiled pipeline as Python's int, float, str or list; the spec keeps all numbers
    as floats."""
    from kfp.pipeline_spec.pipeline_spec_pb2 import ParameterType

    value = entry.default_value
    if entry.parameter_type == ParameterType.LIST:
        return [int(item.number_value) for item in value.list_value.values]
    kinds = {ParameterType.NUMBER_INTEGER: int, ParameterType.NUMBER_DOUBLE: float, ParameterType.STRING: str}
    return kinds[entry.parameter_type](value.string_value if value.HasField("string_value") else value.number_value)
