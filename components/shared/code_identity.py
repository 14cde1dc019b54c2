"""The identity of the code of a phase: a hash of its source files."""

import hashlib
from pathlib import Path

COMPONENTS = Path(__file__).resolve().parent.parent
SUFFIXES = (".py", ".j2", ".css")
SPECIFICATION = "component.py"
"""The interface of a phase in the pipeline, which images do not contain; see `.dockerignore`."""


def code_sha256(phase: str) -> str:
    """Return the SHA-256 of the source files of a phase and of `shared`, the same in a container as in a checkout.

    Args:
        phase: name of the phase.
    """
    digest = hashlib.sha256()
    for folder in (phase, "shared"):
        for path in sorted((COMPONENTS / folder).rglob("*")):
            if path.suffix in SUFFIXES and path.name != SPECIFICATION and path.is_file():
                digest.update(f"{path.relative_to(COMPONENTS).as_posix()}\0{path.stat().st_size}\0".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()
