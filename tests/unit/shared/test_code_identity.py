"""The hash of a phase's code changes with its sources, not with other files."""

import shutil
from pathlib import Path

import pytest

from components.shared import code_identity
from components.shared.code_identity import code_sha256


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
