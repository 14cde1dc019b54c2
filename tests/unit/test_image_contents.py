"""Each base image has the packages that the modules of its phases import, and no other direct dependency."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PHASES = sorted(path.parent.name for path in (ROOT / "components").glob("*/component.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
COMPILED = {"components/container_images.py", "components/placement.py"}
"""Read when the pipeline is compiled, not in an image."""
NOT_IMPORTED = {
    "kfp": "the command of a task runs the component's body with it",
    "tensorflow": "the backend of Keras",
    "tensorflow-cpu": "the backend of Keras",
    "scipy": "scikit-learn depends on it",
    "markupsafe": "Jinja depends on it",
}
"""Packages that an image may have although no module of its phases imports them → reason."""
NOT_INSTALLED = {"jax": "imported with the backend jax only, which a GPU image has"}
"""Packages that are imported although an image may lack them → reason."""
GOOGLE = {"cloud": "google-cloud-storage", "auth": "google-cloud-storage", "api_core": "google-cloud-storage"}
"""Parts of the namespace `google` → the direct dependency that requires them."""
REQUIRED_BY = {"google-crc32c": "google-cloud-storage", "h5py": "keras"}
"""Other packages that are imported → the direct dependency that requires them."""


def groups_of(phase: str) -> tuple[str, ...]:
    """Return the dependency groups of a phase's image."""
    return tuple((ROOT / "components" / phase / "Dockerfile").read_text(encoding="utf-8").splitlines()[1].split()[2:])


def direct_dependencies(groups: tuple[str, ...]) -> set[str]:
    """Return the names of all packages that groups, or the project itself, list."""
    lines = list(PROJECT["project"]["dependencies"])
    waiting = list(groups)
    while waiting:
        for entry in PROJECT["dependency-groups"][waiting.pop()]:
            if isinstance(entry, dict):
                waiting.append(entry["include-group"])
            else:
                lines.append(entry)
    return {re.split(r"[ ;\[<>=]", line)[0] for line in lines}


def imports(path: Path) -> Iterator[str]:
    """Yield the dotted names that a module imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_files(name: str) -> list[Path]:
    """Return the files that are executed by the import of a module of this project."""
    parts = name.split(".")
    found = []
    for end in range(1, len(parts) + 1):
        place = ROOT.joinpath(*parts[:end])
        found += [path for path in (place / "__init__.py", place.with_suffix(".py")) if path.is_file()]
    return found


def imported_by(phase: str) -> set[str]:
    """Return the names that a phase's component imports, directly or through modules of this project."""
    waiting, seen, names = [ROOT / "components" / phase / "component.py"], set(), set()
    while waiting:
        path = waiting.pop()
        if path in seen or str(path.relative_to(ROOT)) in COMPILED:
            continue
        seen.add(path)
        for name in imports(path):
            names.add(name)
            if name.startswith("components."):
                waiting += module_files(name)
    return names


def packages_of(names: set[str]) -> set[str]:
    """Return the distributions that contain modules, or the direct dependencies that require them."""
    owners = packages_distributions()
    found = set()
    for name in names:
        top, *rest = name.split(".")
        if top in sys.stdlib_module_names or top == "components":
            continue
        if top == "google":
            found.add(GOOGLE[rest[0]])
        elif top not in NOT_IMPORTED:
            owner = owners.get(top, [top])[0].lower().replace("_", "-")
            found.add(REQUIRED_BY.get(owner, owner))
    return found


@pytest.mark.parametrize("groups", sorted({groups_of(phase) for phase in PHASES}), ids=" ".join)
def test_base_image_has_the_packages_that_its_phases_import_and_no_other(groups: tuple[str, ...]):
    """Phases of the same groups share a base image, which a node downloads once."""
    phases = [phase for phase in PHASES if groups_of(phase) == groups]
    used = set.union(*(packages_of(imported_by(phase)) for phase in phases))
    installed = direct_dependencies(groups)
    assert installed - used <= NOT_IMPORTED.keys(), phases
    assert used - installed <= NOT_INSTALLED.keys(), phases


@pytest.mark.parametrize("phase", PHASES)
def test_image_has_the_folders_that_its_phase_imports_and_no_other(phase: str):
    text = (ROOT / "components" / phase / "Dockerfile").read_text(encoding="utf-8")
    folders = {name.split(".")[1] for name in imported_by(phase) if name.startswith("components.")}
    assert set(re.findall(r"^COPY components/(\w+) ", text, re.MULTILINE)) == folders - {"container_images"} | {phase}


def test_every_dependency_of_a_group_is_found():
    """The test above is blind without these."""
    assert direct_dependencies(("storage",)) == {"pydantic", "numpy", "google-cloud-storage", "requests", "obstore"}
    assert packages_of(imported_by("notify")) == {"pydantic"}
    assert {"pyarrow", "google-cloud-storage", "obstore"} <= packages_of(imported_by("publish"))
