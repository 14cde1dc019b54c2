"""Create a phase from `scripts/phase_template`: `python -m scripts.new_phase NAME=count_images`."""

import keyword
import re
import sys
from pathlib import Path

from components.shared.errors import UserError
from components.shared.files import write_text
from counterweight import parameters
from counterweight.exit_codes import run_command

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = ROOT / "scripts" / "phase_template"
PLACEMENT = "manifests/placement.yaml"
RESOURCES = '{cpu: "1", memory: 1Gi, retries: 1, timeout_h: 1}'
FILES = {
    "component.py": "components/new_phase/component.py",
    "new_phase.py": "components/new_phase/new_phase.py",
    "Dockerfile": "components/new_phase/Dockerfile",
    "test_new_phase.py": "tests/unit/new_phase/test_new_phase.py",
}
"""File of the template → its path in the repository; `new_phase` is replaced in path and content."""


def check_name(name: str) -> None:
    """Check the name of a new phase.

    Raises:
        UserError: `phase.invalid_name` or `phase.exists`.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or len(name) > 30 or keyword.iskeyword(name):
        hint = "use a verb and a noun, such as count_images: at most 30 lower-case letters, digits and underscores"
        raise UserError(f"NAME is {name!r}", hint, "phase.invalid_name", name=name)
    if any((ROOT / folder / name).exists() for folder in ("components", "tests/unit")):
        raise UserError(f"the phase {name} exists", "choose another name", "phase.exists", name=name)


def add_resources(placement: str, name: str) -> str:
    """Return a placement file with an entry for a phase after the last one."""
    *_, last = re.finditer(r"^  [a-z_0-9]+: \{cpu: .*\n", placement, re.MULTILINE)
    return f"{placement[: last.end()]}  {name}: {RESOURCES}\n{placement[last.end() :]}"


def create(name: str) -> list[str]:
    """Create a phase, and return the paths of its files.

    Raises:
        UserError: `phase.invalid_name` or `phase.exists`.
    """
    check_name(name)
    created = []
    for source, target in FILES.items():
        path = target.replace("new_phase", name)
        write_text(ROOT / path, (TEMPLATE / source).read_text(encoding="utf-8").replace("new_phase", name))
        created.append(path)
    placement = ROOT / PLACEMENT
    write_text(placement, add_resources(placement.read_text(encoding="utf-8"), name))
    return created


def run(words: list[str]) -> None:
    """Run the command.

    Raises:
        UserError: `phase.invalid_name`, `phase.exists`, or an argument is invalid.
    """
    name = parameters.assignments(words).get("NAME", "")
    for path in create(name):
        print(f"created: {path}")
    print(f"changed: {PLACEMENT}\nnext: add its task to pipeline.py (docs/guides/extending.md)")


if __name__ == "__main__":
    sys.exit(run_command(lambda: run(parameters.words(sys.argv[1:]))))
