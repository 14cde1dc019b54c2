"""Create a phase in a copy of the repository, and check what was created."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.new_phase import add_resources

ROOT = Path(__file__).resolve().parents[3]
BIN = Path(sys.executable).parent
PYTEST = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider")
TESTS = ("tests/unit/count_images", "tests/unit/test_placement.py", "tests/integration/test_boundaries.py")
IGNORED = shutil.ignore_patterns("__pycache__", "recordings")
CREATED = [
    "components/count_images/component.py",
    "components/count_images/count_images.py",
    "components/count_images/Dockerfile",
    "tests/unit/count_images/test_count_images.py",
]


def do(copy: Path, *command: str | Path) -> tuple[int, str]:
    """Return exit code and output of a command in the copy."""
    done = subprocess.run(command, cwd=copy, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with a new phase."""
    folder = tmp_path_factory.mktemp("copy") / "repository"
    for name in ("benchmarks", "components", "counterweight", "manifests", "scripts", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=IGNORED)
    for name in ("docker", "presets"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("pipeline.py", "pyproject.toml", "uv.lock", ".yamllint.yaml"):
        shutil.copyfile(ROOT / name, folder / name)
    code, output = do(folder, sys.executable, "-m", "scripts.new_phase", "NAME=count_images")
    assert code == 0, output
    assert [line.partition("created: ")[2] for line in output.splitlines()[:4]] == CREATED
    return folder


@pytest.mark.parametrize(
    "command",
    [
        [BIN / "ruff", "check", "."],
        [BIN / "ruff", "format", "--check", "."],
        [BIN / "mypy", "components/count_images"],
        [BIN / "hadolint", "components/count_images/Dockerfile"],
        [BIN / "yamllint", "--strict", "manifests/placement.yaml"],
        [*PYTEST, *TESTS, "-k", "count_images or every_phase"],
        [sys.executable, "-c", "from components.count_images.component import count_images"],
    ],
    ids=lambda command: " ".join(str(word).rpartition("/")[2] for word in command[-2:]),
)
def test_new_phase_passes_the_checks(copy: Path, command: list[str | Path]):
    code, output = do(copy, *command)
    assert code == 0, output


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("count_images", "phase.exists"),
        ("Count", "phase.invalid_name"),
        ("import", "phase.invalid_name"),
        ("", "phase.invalid_name"),
    ],
)
def test_new_phase_with_an_unusable_name_fails(copy: Path, name: str, code: str):
    program = f"from scripts.new_phase import *\ntry: create({name!r})\nexcept UserError as error: print(error.code)"
    assert do(copy, sys.executable, "-c", program) == (0, f"{code}\n")


def test_add_resources_adds_an_entry_after_the_last_phase():
    text = "phases:\n  publish: {cpu: 1}\n  notify: {cpu: 1}\n\nqueue: ''\n"
    lines = add_resources(text, "count_images").splitlines()
    assert lines[3].startswith("  count_images: {cpu: ")
    assert [*lines[:3], *lines[4:]] == text.splitlines()
