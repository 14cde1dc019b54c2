"""A published run is read back: complete, with a changed file, with a missing one, and none at all."""

from pathlib import Path

import pytest

from components.publish.publish import publish
from components.shared.records import Advice
from scripts.verify_published import main


@pytest.fixture
def output(tmp_path: Path) -> Path:
    sources = {"report.html": tmp_path / "a", "models/b": tmp_path / "b"}
    for path in sources.values():
        path.write_text(f"content of {path.name}")
    advice = Advice(arm="augmented@1", verdict="worse")
    publish(str(tmp_path / "out" / "run-1"), sources, tmp_path / "artifact", "worse", advice)
    return tmp_path / "out"


def test_verify_of_a_complete_run_succeeds(output: Path, capsys: pytest.CaptureFixture[str]):
    assert main(str(output)) == 0
    assert main(str(output / "run-1")) == 0
    assert "verified: 1 run in" in capsys.readouterr().out


def test_verify_of_a_damaged_run_names_the_files(output: Path, capsys: pytest.CaptureFixture[str]):
    (output / "run-1" / "report.html").write_text("another")
    (output / "run-1" / "models" / "b").unlink()
    assert main(str(output)) == 1
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "error: models/b is missing",
        "error: report.html differs from the manifest",
    ]


def test_verify_without_a_manifest_fails(tmp_path: Path):
    assert main(str(tmp_path)) == 1
