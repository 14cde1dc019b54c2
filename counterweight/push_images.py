"""Build missing images, push them to a registry, and write docker/digests.json, which `compile` reads."""

import contextlib
from typing import TextIO

from components.shared.errors import UserError
from counterweight import parameters
from counterweight.build_images import build, choose_phases, push


def run(words: list[str], out: TextIO) -> None:
    """Run the command.

    Raises:
        UserError: `images.no_registry`, or as in `choose_phases`, `build` and `push`.
    """
    given = parameters.assignments(words)
    phases, gpu = choose_phases(given)
    if not given.get("REGISTRY"):
        raise UserError("REGISTRY is missing", "run `make push REGISTRY=host/path`", "images.no_registry")
    with contextlib.redirect_stdout(out):
        build(phases, gpu, given.get("PYTHON_IMAGE", ""), must_be_pinned=True)
        push(given["REGISTRY"], phases, gpu)
