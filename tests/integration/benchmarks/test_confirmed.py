"""Tests of recipes on pooled folds: Holm's correction, and the figures of the sensitivity."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from benchmarks import kept_folds
from benchmarks.confirmed import Recipe, decide_all, load_recipe, tables, validation_lesions
from components.shared.records import Verdict
from counterweight.reevaluate import open_published, pool_folds
from tests.helpers.errors import raises_user_error
from tests.helpers.published_fold import write_fold


@dataclass(frozen=True)
class Decided:
    """A recipe that is established if it is corrected for at most this number of hypotheses."""

    at_most: int
    verdict: Verdict = "improved"

    def decide(self, hypotheses: int) -> Verdict:
        return self.verdict if hypotheses <= self.at_most else "no evidence"


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (Decided(2), Decided(1), [("improved", 2), ("improved", 1)]),
        (Decided(1), Decided(2, "worse"), [("improved", 1), ("worse", 2)]),
        (Decided(1), Decided(1), [("no evidence", 2), ("no evidence", 2)]),
        (Decided(2), Decided(0), [("improved", 2), ("no evidence", 1)]),
        (Decided(2), Decided(2), [("improved", 2), ("improved", 2)]),
    ],
)
def test_a_recipe_is_corrected_for_those_that_are_not_established(
    first: Decided, second: Decided, expected: list[tuple[str, int]]
) -> None:
    decided = decide_all({"first": first, "second": second})  # type: ignore[dict-item]
    assert list(decided.items()) == list(zip(("first", "second"), expected, strict=True))


@pytest.fixture(scope="module")
def folds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two folds whose augmented arm is better than its control."""
    folder = tmp_path_factory.mktemp("folds")
    return [
        write_fold(folder / "two", "2/2", range(240, 600), skill=0.9),
        write_fold(folder / "one", "1/2", range(240), skill=0.9),
    ]


@pytest.fixture(scope="module")
def recipe(folds: list[Path]) -> Recipe:
    return load_recipe(folds)


def test_a_single_recipe_has_the_figures_and_the_verdict_of_the_report(folds: list[Path], recipe: Recipe) -> None:
    results, _ = pool_folds([open_published(str(fold), fold) for fold in folds])
    found, effect = recipe.differ(), results.effect
    assert found.value == pytest.approx(effect.value)
    # The report resamples a third arm, too, which changes the random numbers of the resamples.
    assert (found.low, found.high) == pytest.approx((effect.low, effect.high), abs=0.02)
    assert recipe.decide(1) == results.verdict == "improved"
    corrected = recipe.differ(level=0.025)
    assert corrected.low is not None
    assert found.low is not None
    assert corrected.low < found.low


def test_figures_of_the_sensitivity_are_those_of_the_parts(folds: list[Path], recipe: Recipe) -> None:
    two, one = ({run.record.split: run.results.effect for run in [open_published(str(fold), fold)]} for fold in folds)
    effects = one | two
    assert recipe.by_fold("rare_recall") == pytest.approx([effects["1/2"].value, effects["2/2"].value])
    aucs = [effects[split].by_metric["macro_auc"].gan for split in ("1/2", "2/2")]
    assert recipe.by_fold("macro_auc") == pytest.approx([it.value for it in aucs if it], abs=1e-6)
    inside = recipe.restrict(recipe.fold == "1/2")
    assert set(inside.sample.lesion) == {f"test-{number}" for number in range(240)}
    assert inside.differ().value == pytest.approx(effects["1/2"].value)


def test_tables_name_each_recipe_and_its_correction(recipe: Recipe) -> None:
    lines = list(tables({"first": recipe, "second": recipe}, {f"test-{number}" for number in range(240)}))
    text = "\n".join(lines)
    found, unseen = recipe.differ(level=0.025), recipe.restrict(recipe.fold == "2/2").differ()
    assert text.count("| improved |") == 2
    assert f"| first | {found.value:+.3f} | {found.low:+.3f} to {found.high:+.3f} |" in text
    assert f"| second: lesions that the design has not seen | {unseen.value:+.3f} |" in text
    folds = recipe.by_fold("rare_recall")
    half = 12.7062 * folds.std(ddof=1) / np.sqrt(2)
    expected = f"| first: mean of the folds | {folds.mean():+.3f} | {folds.mean() - half:+.3f} to"
    assert expected.replace("-", "−") in text
    assert not [line for line in tables({"first": recipe}, set()) if "not seen" in line]


def test_lesions_of_validation_are_those_of_all_runs(folds: list[Path]) -> None:
    expected = {f"validation-{start}-{number}" for start in (0, 240) for number in range(40)}
    assert validation_lesions(folds) == expected


def test_kept_folds_have_the_tables_of_the_runs(
    folds: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = {f"test-{number}" for number in range(300)}
    monkeypatch.setattr(kept_folds, "FOLDS", ("1", "2"))
    monkeypatch.setattr(kept_folds, "validation_lesions", lambda runs: seen if runs == folds[:1] else set())
    work, recipes = tmp_path / "work", {name: load_recipe(folds) for name in kept_folds.RECIPES}
    given = {"KEPT": str(tmp_path / "kept"), "WORK": str(work), "DESIGN": str(folds[0])}
    for name in recipes:
        shutil.copytree(folds[1], work / name / "fold-1")
    kept_folds.main(given)
    assert capsys.readouterr().out == "kept fold 1\nmissing: fold 2\n"
    for name in recipes:
        shutil.copytree(folds[0], work / name / "fold-2")
    kept_folds.main(given)
    expected = "\n".join(tables(recipes, seen))
    assert capsys.readouterr().out == f"kept fold 2\n{expected}\n"
    shutil.rmtree(work)
    kept_folds.main({"KEPT": given["KEPT"]})
    assert capsys.readouterr().out == f"{expected}\n"


def test_keep_refuses_runs_with_different_controls(folds: list[Path], tmp_path: Path) -> None:
    with raises_user_error("kept_folds.other_control"):
        kept_folds.keep({"one": folds[0], "two": folds[1]}, set(), tmp_path / "kept")
    assert not list(tmp_path.iterdir())
