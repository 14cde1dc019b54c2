"""Confirmation on five folds: which are run, of which commit, and when the recipes are tested."""

import subprocess
from pathlib import Path

import pytest

from benchmarks import confirm
from tests.helpers.errors import raises_user_error
from tests.helpers.published_run import write_run

ARMS = ("baseline", "oversampled", "augmented@0.5")


@pytest.fixture
def design(tmp_path: Path) -> Path:
    """A finished run that decided about the design."""
    return write_run(tmp_path / "design", arms=ARMS)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Settings of the runs, each of which leaves a manifest alone."""
    started: list[dict[str, str]] = []

    def run(out: Path, settings: dict[str, str], log: Path) -> None:
        assert log.parent.is_dir()
        started.append(settings | {"OUT": str(out)})
        out.mkdir(parents=True)
        (out / "manifest.json").touch()

    monkeypatch.setattr(confirm, "run_pipeline", run)
    monkeypatch.setattr(confirm, "read_commit", lambda _: "0" * 40)
    return started


def test_confirm_runs_the_named_folds_of_each_recipe_and_tests_none_before_all_have_finished(
    runs: list[dict[str, str]],
    design: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    loaded: list[list[Path]] = []

    def stop(folds: list[Path]) -> None:
        loaded.append(folds)
        raise InterruptedError

    monkeypatch.setattr(confirm, "load_recipe", stop)
    work = tmp_path / "work"
    given = {"DATA": "images", "DESIGN": str(design), "WORK": str(work), "data_image_size": "64"}
    first, second = confirm.RECIPES
    confirm.main(given | {"PARTS": "2, 4,2"})
    *_, last = capsys.readouterr().out.splitlines()
    unfinished = [f"{name}/fold-{part}" for name in (first, second) for part in (1, 3, 5)]
    assert last == f"not finished: {', '.join(unfinished)}"
    assert not loaded
    with pytest.raises(InterruptedError):
        confirm.main(given | {"PARTS": "1,3,5"})
    assert [settings["data_split"] for settings in runs[::2]] == ["2/5", "4/5", "1/5", "3/5", "5/5"]
    assert runs[0]["OUT"] == str(work / first / "fold-2")
    assert runs[1]["OUT"] == str(work / second / "fold-2")
    assert {settings["data_image_size"] for settings in runs} == {"64"}
    assert {settings["classifier_seeds"] for settings in runs} == {"1,2,3,4,5"}
    assert loaded == [[work / first / f"fold-{n}" for n in range(1, 6)]]


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"DESIGN": "run"}, "option.missing"),
        ({"DATA": "images"}, "option.missing"),
        ({"DATA": "images", "DESIGN": "run", "PARTS": "1,6"}, "benchmark.unknown_choice"),
        ({"DATA": "images", "DESIGN": "run", "data_split": "1/5"}, "confirm.data_split"),
        ({"DATA": "images", "DESIGN": "absent"}, "run.missing_file"),
    ],
)
def test_confirm_refuses_missing_data_and_other_folds(
    runs: list[dict[str, str]], tmp_path: Path, given: dict[str, str], code: str
) -> None:
    with raises_user_error(code):
        confirm.main({"WORK": str(tmp_path / "work"), **given})
    assert not runs
    assert not (tmp_path / "work").exists()


def test_confirm_refuses_runs_of_another_commit(
    runs: list[dict[str, str]], design: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"DATA": "images", "DESIGN": str(design), "WORK": str(tmp_path / "work"), "PARTS": "1"}
    confirm.main(given)
    monkeypatch.setattr(confirm, "read_commit", lambda _: "1" * 40)
    with raises_user_error("confirm.commit"):
        confirm.main(given)
    assert len(runs) == 2


def test_the_commit_of_a_changed_clone_is_refused(tmp_path: Path) -> None:
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "file").write_text("one")
    for words in (["init", "-q"], ["add", "file"], ["commit", "-qm", "one"]):
        subprocess.run([*git, *words], cwd=tmp_path, check=True)
    assert len(confirm.read_commit(tmp_path)) == 40
    (tmp_path / "file").write_text("two")
    with raises_user_error("confirm.changes"):
        confirm.read_commit(tmp_path)
