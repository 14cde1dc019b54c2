"""Parameters and options from the command line and from presets, as text and as checked values."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from components.placement import FILE_VARIABLE, placement
from components.shared import parameters
from components.shared.errors import UserError

PRESETS = Path(__file__).resolve().parent.parent / "presets"
MAKE_VARIABLES = ("PYTHON", "VENV", "UV_VERSION")
"""Variables of the Makefile that are not passed to the command."""
ALIASES = {"DATA": "data", "EXTERNAL": "data_external", "OUT": "output"}
"""Word that names a place → the parameter that it sets; an empty one is refused."""


def words(given: list[str]) -> list[str]:
    """Return the words of the command line; for `--make`, those after `make run`.

    The Makefile passes the values unchanged in the environment; a shell would interpret quotes, blanks and dollars.

    Raises:
        UserError: `arguments.not_exported`: Make does not pass a variable with this name.
    """
    if given != ["--make"]:
        return given
    _, _, overrides = os.environ.get("MAKEFLAGS", "").partition("-- ")
    names = [word.partition("=")[0].rstrip(":+?") for word in re.split(r"(?<!\\)\s+", overrides) if "=" in word]
    if unnamed := [name for name in names if name not in os.environ]:
        raise UserError(
            f"make does not pass {unnamed[0]}=… to the command, because of its name",
            f"write {unnamed[0].replace('-', '_').replace('.', '_')}=…",
            "arguments.not_exported",
            name=unnamed[0],
        )
    return [f"{name}={os.environ[name]}" for name in dict.fromkeys(names) if name not in MAKE_VARIABLES]


def assignments(words: list[str]) -> dict[str, str]:
    """Return `["PRESET=cpu", "random_seed=2"]` as a dictionary.

    Raises:
        UserError: `arguments.not_an_assignment`, `arguments.repeated` or `arguments.empty`.
    """
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise UserError(
                f"{word!r} is not an assignment", "write NAME=value", "arguments.not_an_assignment", word=word
            )
        if name in found:
            raise UserError(f"{name} is given twice", "give it once", "arguments.repeated", name=name)
        if name in ALIASES and not value.strip():  # an unset variable of a script must not start a run on demo data
            raise UserError(f"{name} is empty", f"give {name} a value, or leave it out", "arguments.empty", name=name)
        found[name] = value
    return found


def preset_names() -> list[str]:
    """Return the names of the presets."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def preset(name: str) -> dict[str, Any]:
    """Return the parameters that a preset sets, checked.

    Raises:
        UserError: `preset.unknown`, or a value of it is invalid.
    """
    if name not in preset_names():
        raise UserError(
            f"PRESET is {name!r}", f"choose one of {', '.join(preset_names())}", "preset.unknown", name=name
        )
    values = yaml.safe_load((PRESETS / f"{name}.yaml").read_text(encoding="utf-8"))
    checked = parameters.check(values)
    return {key: checked[key] for key in values}


def use_placement(given: dict[str, str]) -> None:
    """Remove PLACEMENT from the arguments of a command, and let `placement` read that file from now on."""
    if file := given.pop("PLACEMENT", ""):
        os.environ[FILE_VARIABLE] = file
        placement.cache_clear()


OF_DEMO = ("synthetic_classes", "positive_classes")
"""Parameters by which a preset may name classes of the demo data."""


def choose_preset(name: str, data: str) -> tuple[str, dict[str, Any], str]:
    """Return name and parameters of the preset for some data, and a sentence on the choice.

    Args:
        name: of the preset; empty for the one that suits the data: `demo` for generated images, else `cpu`.
        data: the parameter `data`; empty for the preset's.

    Raises:
        UserError: as in `preset`.
    """
    other = data not in ("", "demo")
    chosen = name or ("cpu" if other else "demo")
    values = preset(chosen)
    text = f"preset {chosen}" + ("" if name else f", chosen for {'data other than demo' if other else 'the demo data'}")
    for key in OF_DEMO:
        if other and values.pop(key, None) is not None:
            text += f" ({key} not applied: it names demo classes)"
    return chosen, values, text


def split_options(given: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the assignments to parameters, by the parameters' names, and those to options of the compiled pipeline.

    Raises:
        UserError: `arguments.repeated`: a parameter is given by both of its names.

    Example:
        >>> split_options({"DATA": "demo", "gans_per_task": "1"})
        ({'data': 'demo'}, {'gans_per_task': '1'})
    """
    for word, name in ALIASES.items():
        if word in given and name in given:
            raise UserError(
                f"{word} and {name} are the same parameter", "give one of them", "arguments.repeated", name=name
            )
    named = {ALIASES.get(word, word): value for word, value in given.items()}
    options = {name: value for name, value in named.items() if name in parameters.Options.model_fields}
    return {name: value for name, value in named.items() if name not in options}, options


def table(model: Any = parameters.Parameters) -> str:
    """Return name, default, allowed values and description of each parameter as a Markdown table, for the docs."""
    rows = ["| parameter | default | allowed | |", "|---|---|---|---|"]
    for name, text in parameters.descriptions(model).items():
        rows.append(f"| `{name}` | `{_default(name, model)}` | {parameters.allowed(name, model)} | {text} |")
    return "\n".join(rows) + "\n"


def describe_option(name: str, model: Any) -> tuple[str, str]:
    """Return metavar and text of a parameter for the help of a command."""
    is_choice = name in parameters.choices(model)
    text = parameters.descriptions(model)[name] if is_choice else parameters.help_text(name, model)
    return parameters.metavar(name, model), f"{text} [default: {_default(name, model)}]"


def _default(name: str, model: Any) -> str:
    default = parameters.defaults(model)[name]
    return ",".join(map(str, default)) if isinstance(default, list) else str(default)
