"""`compile` as a command: with another placement file."""

import subprocess
import sys
from pathlib import Path

import pytest

from components.placement import DEFAULT

ROOT = DEFAULT.parent.parent


@pytest.mark.parametrize("option", ["--placement", "PLACEMENT"])
def test_compile_with_another_placement_file_uses_it(tmp_path: Path, option: str):
    text = DEFAULT.read_text(encoding="utf-8").replace("type: nvidia.com/gpu ", "type: example.com/gpu ")
    (tmp_path / "other.yaml").write_text(text, encoding="utf-8")
    words = {"--placement": ["--placement", "other.yaml"], "PLACEMENT": ["PLACEMENT=other.yaml"]}[option]
    done = compile_in(tmp_path, *words)
    assert (done.returncode, done.stdout) == (0, "build/pipeline.yaml\n")
    assert "example.com/gpu" in (tmp_path / "build/pipeline.yaml").read_text(encoding="utf-8")


def test_compile_with_a_missing_placement_file_is_a_user_error(tmp_path: Path):
    done = compile_in(tmp_path, "--placement", "missing.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: missing.yaml cannot be read as YAML")
    assert not (tmp_path / "build").exists()


def compile_in(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "counterweight", "compile", *words]
    return subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": str(ROOT), "PATH": ""}, capture_output=True, text=True
    )
