"""Confirmation on five folds: which are run, and when they are pooled."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks import confirm
from tests.helpers.errors import raises_user_error


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Settings of the runs, each of which leaves a manifest alone."""
    started: list[dict[str, str]] = []

    def run(out: Path, settings: dict[str, str]) -> None:
        started.append(settings)
        out.mkdir(parents=True)
        (out / "manifest.json").touch()

    monkeypatch.setattr(confirm, "run_pipeline", run)
    return started


def test_confirm_runs_the_named_folds_and_pools_none_before_all_have_finished(
    runs: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pooled: list[Any] = []

    def stop(folds: list[Path], folder: Path) -> None:
        pooled.append((folds, folder))
        raise InterruptedError

    monkeypatch.setattr(confirm, "pool", stop)
    given = {"DATA": "images", "WORK": str(tmp_path), "data_image_size": "64"}
    confirm.main(given | {"PARTS": "2, 4,2"})
    assert capsys.readouterr().out == "not finished: fold-1, fold-3, fold-5\n"
    assert not pooled
    with pytest.raises(InterruptedError):
        confirm.main(given | {"PARTS": "1,3,5"})
    assert [settings["data_split"] for settings in runs] == ["2/5", "4/5", "1/5", "3/5", "5/5"]
    assert {settings["data_image_size"] for settings in runs} == {"64"}
    assert {settings["classifier_seeds"] for settings in runs} == {"1,2,3,4,5"}
    assert pooled == [([tmp_path / f"fold-{n}" for n in range(1, 6)], tmp_path / "pooled")]


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({}, "option.missing"),
        ({"DATA": "images", "PARTS": "1,6"}, "benchmark.unknown_choice"),
        ({"DATA": "images", "data_split": "1/5"}, "confirm.data_split"),
    ],
)
def test_confirm_refuses_missing_data_and_other_folds(
    runs: list[dict[str, str]], tmp_path: Path, given: dict[str, str], code: str
) -> None:
    with raises_user_error(code):
        confirm.main({"WORK": str(tmp_path), **given})
    assert not runs
