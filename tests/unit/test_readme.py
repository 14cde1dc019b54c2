"""README and reference pages match the code."""

import re
from pathlib import Path

import pytest

from components.placement import override_options
from components.shared.parameters import defaults
from counterweight.run import PER_TASK, arguments
from scripts.generate import FILES

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_readme_has_at_most_120_lines():
    assert len(README.splitlines()) <= 120


def test_readme_commands_are_make_targets():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"make ([a-z-]+)", "\n".join(re.findall(r"^    make .*|`make [^`]*`", README, re.M))))
    assert {"run", "test", "submit", "push"} <= targets
    assert not [target for target in targets if not re.search(rf"^{target}:", makefile, re.M)]


def test_readme_links_exist():
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / link).exists(), link


@pytest.mark.parametrize("name", FILES)
def test_generated_file_matches_the_code(name: str):
    assert (ROOT / name).read_text(encoding="utf-8") == FILES[name](), "run `make generate`"


def test_readme_shows_the_name_of_the_run_that_its_first_command_starts():
    """The name depends on the parameters and options: a change of one needs a new run of the demo in the README."""
    override_options(PER_TASK)
    run_id, _, _ = arguments([], defaults())
    assert f"report: runs/{run_id}/report.html" in README
