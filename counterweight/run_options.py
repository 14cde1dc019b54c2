"""Options of the commands that use a published run: `RUN=… NAME=value`, without loading Keras."""

import os
from collections.abc import Sequence
from pathlib import Path

from components.shared.errors import UserError
from components.shared.records import path_below
from components.shared.stores.addresses import parse as parse_address
from counterweight import parameters
from counterweight.run import check_writable

LARGEST = 10**9


def missing_option(option: str, hint: str) -> UserError:
    """Return the error for a required option that is not given."""
    return UserError(f"{option} is missing", hint, "option.missing", option=option)


def expand(text: str) -> str:
    """Return a location with `~` replaced by the user's home folder."""
    return text.strip() if "://" in text else os.path.expanduser(text.strip())  # noqa: PTH111 (Path's own may raise)


def check_run(place: str) -> None:
    """Check that a published run is an existing folder, or a valid address.

    Raises:
        UserError: `option.invalid`, or `storage.invalid_address`.
    """
    if "://" in place:
        parse_address(place)
    elif "\0" in place or not Path(place).is_dir():
        raise UserError(
            f"RUN is {place}, but this folder does not exist",
            "give the folder of a published run",
            "option.invalid",
            option="RUN",
        )


def read_options(words: list[str], names: Sequence[str], **required: str) -> dict[str, str]:
    """Return option → value, empty if it is not given; RUN, DATA and OUT with `~` replaced.

    Args:
        words: assignments.
        names: the options of the command; RUN is one, and must be given.
        **required: other options that must be given, with the hint for one that is missing.

    Raises:
        UserError: an option is missing, RUN does not exist, or `storage.invalid_address`.
    """
    given = parameters.assignments(words)
    options = {name: given.get(name, "").strip() for name in names}
    for name in {"RUN", "DATA", "OUT"} & set(names):
        options[name] = expand(options[name])
    for name, hint in {"RUN": "give the folder of a published run", **required}.items():
        if not options[name]:
            raise missing_option(name, hint)
    check_run(options["RUN"])
    return options


def read_number(options: dict[str, str], name: str, default: int, least: int = 0, most: int = LARGEST) -> int:
    """Return the whole number of an option.

    Raises:
        UserError: `option.invalid`.
    """
    text = options[name] or str(default)
    if not text.isascii() or not text.isdecimal() or len(text) > 10 or not least <= int(text) <= most:
        raise UserError(
            f"{name} is {text!r}", f"give a whole number from {least} to {most}", "option.invalid", option=name
        )
    return int(text)


def output_file(place: str, default: str) -> Path:
    """Return the file of the option OUT, whose folder can be written.

    Args:
        place: the option; may be empty.
        default: the file without it.

    Raises:
        UserError: `option.invalid`: OUT is an address; or as in `check_writable`.
    """
    if "://" in place or "\0" in place:
        raise UserError(f"OUT is {place!r}", "name a file in a folder on this machine", "option.invalid", option="OUT")
    file = Path(expand(place or default)).resolve()
    check_writable(file.parent, "OUT")
    return file


def choose_output(options: dict[str, str], default: str) -> Path:
    """Return the folder of the results, by default a folder in the run.

    Raises:
        UserError: OUT is missing for a run in object storage, is an address, or is the run or the data; or the default
            is a link that leads out of the run.
    """
    run, out = options["RUN"], options["OUT"]
    if not out and "://" in run:
        raise missing_option("OUT", "give a folder for the results")
    if "://" in out:
        raise UserError(f"OUT is {out}", "give a folder on this machine", "option.invalid", option="OUT")
    folder = Path(out).resolve() if out else path_below(run, default)
    for name in ("RUN", "DATA"):
        place = options.get(name, "")
        if place and "://" not in place and Path(place).resolve() == folder:
            raise UserError(
                f"OUT is {out}, which is the folder of {name}",
                "choose another folder for the results",
                "option.invalid",
                option="OUT",
            )
    return folder
