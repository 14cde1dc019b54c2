"""Pin the image that all others start from: `python -m scripts.pin_base_image [name|check|sha256:…]`, or `make pin`.

    name      print its name and tag, whose digest CI reads from the registry
    check     fail unless docker/Dockerfile names a digest (the default)
    sha256:…  write this digest into docker/Dockerfile

Exit codes: 0 done, 2 no digest is named, or the argument is invalid.
"""

import re
import sys
from pathlib import Path

from components.shared.errors import UserError
from components.shared.files import write_text
from counterweight.exit_codes import run_command

DOCKERFILE = Path(__file__).resolve().parents[1] / "docker" / "Dockerfile"
LINE = re.compile(r"^ARG PYTHON_IMAGE=(?P<name>[^@\s]+)(?P<digest>@sha256:[0-9a-f]{64})?$", re.MULTILINE)


def read(dockerfile: Path = DOCKERFILE) -> tuple[str, str]:
    """Return name and tag, and `@` and digest, which is empty if none is named."""
    found = LINE.search(dockerfile.read_text(encoding="utf-8"))
    if found is None:
        raise UserError(
            f"{dockerfile.name} has no valid line `ARG PYTHON_IMAGE=…`", "write a name and a tag there", "pin.no_image"
        )
    return found["name"], found["digest"] or ""


def pin(digest: str, dockerfile: Path = DOCKERFILE) -> None:
    """Write a digest.

    Raises:
        UserError: `pin.invalid_digest`.
    """
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise UserError(
            f"{digest[:99]!r} is not a digest", "give sha256: and 64 hexadecimal digits", "pin.invalid_digest"
        )
    name, _ = read(dockerfile)
    write_text(dockerfile, LINE.sub(f"ARG PYTHON_IMAGE={name}@{digest}", dockerfile.read_text(encoding="utf-8")))


def run(words: list[str], dockerfile: Path = DOCKERFILE) -> None:
    """Run the command."""
    action = words[0] if words else "check"
    name, digest = read(dockerfile)
    if action == "name":
        print(name)
    elif action != "check":
        pin(action, dockerfile)
    elif not digest:
        raise UserError(
            f"docker/Dockerfile names {name} without a digest",
            "commit the line that the workflow base-image prints",
            "pin.missing",
            image=name,
        )
    else:
        print(f"pinned: {name}{digest}")


if __name__ == "__main__":
    sys.exit(run_command(lambda: run(sys.argv[1:])))
