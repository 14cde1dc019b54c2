"""README and reference pages match the code."""

import re
from pathlib import Path

import pytest

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
