"""The hash of a phase's code changes with its sources, not with other files."""

import shutil
from pathlib import Path

import pytest

from components.shared import code_identity
from components.shared.code_identity import COMPONENTS, code_sha256


def test_code_sha256_is_the_same_in_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    original = code_sha256("evaluate")
    monkeypatch.setattr(code_identity, "COMPONENTS", tmp_path)
    for folder in ("evaluate", "shared"):
        shutil.copytree(COMPONENTS / folder, tmp_path / folder)
    ignored = [line for line in (COMPONENTS.parent / ".dockerignore").read_text().splitlines() if line[:1] not in "#!"]
    removed = [path for line in ignored if line != "*" for path in tmp_path.glob(line.removeprefix("components/"))]
    assert {path.name for path in removed} >= {"component.py", "Dockerfile"}
    for path in removed:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert code_sha256("evaluate") == original


def test_code_sha256_depends_on_the_sources_of_the_phase_and_of_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for folder in ("evaluate", "shared", "publish"):
        shutil.copytree(code_identity.COMPONENTS / folder, tmp_path / folder)
    original = code_sha256("evaluate")
    monkeypatch.setattr(code_identity, "COMPONENTS", tmp_path)
    assert code_sha256("evaluate") == original
    (tmp_path / "evaluate" / "notes.txt").write_text("x")
    (tmp_path / "publish" / "publish.py").write_text("")
    assert code_sha256("evaluate") == original
    for path in ("evaluate/report/templates/report.css", "shared/arms.py"):
        before = code_sha256("evaluate")
        with (tmp_path / path).open("a") as file:
            file.write("\n")
        assert code_sha256("evaluate") != before
