"""Tests and intervals against SciPy, statsmodels, brute force, or a case worked by hand; coverage by simulation."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from benchmarks.coverage import Case, measure
from components.evaluate import inference
from components.evaluate.inference import Bootstrap
from components.evaluate.metrics import SCALARS, Predictions, Sample


def said(labels: np.ndarray, classes: int) -> Predictions:
    """Sure predictions of (seeds, N) labels."""
    probabilities = np.eye(classes)[labels]
    return Predictions(probabilities, probabilities)


def of_one_class(right: np.ndarray, images: int = 1) -> tuple[Sample, Predictions]:
    """Lesions of class `a`, (seeds, L) of which are named right, with so many images each."""
    lesions = right.shape[1]
    sample = Sample(np.zeros(lesions * images, int), np.repeat(np.arange(lesions), images).astype(str), ("a", "b"))
    return sample, said(np.repeat(np.where(right, 0, 1), images, axis=1), 2)


@pytest.mark.parametrize("images", [1, 5])
@pytest.mark.parametrize(("right", "lesions"), [(30, 60), (12, 15), (6, 12)])
def test_the_recall_of_a_class_has_about_wilsons_interval(right: int, lesions: int, images: int) -> None:
    """However many images a lesion has, as long as they agree: the lesion is the unit."""
    sample, predictions = of_one_class(np.arange(lesions)[None, :] < right, images)
    found = Bootstrap(sample, {"x": predictions}, ("a",), 0).difference("recall", "x", label=0)
    low, high = proportion_confint(right, lesions, method="wilson")
    assert found["value"] == pytest.approx(right / lesions)
    assert (found["low"], found["high"]) == pytest.approx((low, high), abs=0.06)


def test_a_class_whose_lesions_all_went_one_way_has_an_interval_with_width() -> None:
    sample, predictions = of_one_class(np.ones((1, 12), bool))
    found = Bootstrap(sample, {"x": predictions}, ("a",), 0).difference("recall", "x", label=0)
    assert found["high"] == 1
    assert 0.6 < found["low"] < 0.85  # Clopper and Pearson: .735
    sample, predictions = of_one_class(np.ones((1, 1), bool))
    found = Bootstrap(sample, {"x": predictions}, ("a",), 0).difference("recall", "x", label=0)
    assert found["low"] < 0.3


def test_a_difference_has_about_the_paired_t_interval() -> None:
    """Many lesions, one seed: the mean of the lesions' differences ± t · s / √L."""
    rng = np.random.default_rng(0)
    control = rng.random(200) < 0.6
    arm = np.where(rng.random(200) < 0.3, rng.random(200) < 0.9, control)
    sample, one = of_one_class(arm[None])
    _, other = of_one_class(control[None])
    found = Bootstrap(sample, {"x": one, "y": other}, ("a",), 0).difference("rare_recall", "x", "y")
    expected = stats.ttest_rel(arm.astype(float), control.astype(float)).confidence_interval()
    assert found["value"] == pytest.approx(arm.mean() - control.mean())
    assert (found["low"], found["high"]) == pytest.approx(tuple(expected), abs=0.015)


def test_where_only_seeds_differ_the_interval_is_students_over_seeds() -> None:
    """Every model names a share of a thousand lesions right; the shares are what differs."""
    shares = np.array([0.5, 0.6, 0.62, 0.7, 0.8])
    right = np.random.default_rng(0).random((5, 1000)) < shares[:, None]
    sample, predictions = of_one_class(right)
    found = Bootstrap(sample, {"x": predictions}, ("a",), 0).difference("rare_recall", "x")
    expected = stats.ttest_1samp(right.mean(1), 0).confidence_interval()
    assert (found["low"], found["high"]) == pytest.approx(tuple(expected), abs=0.03)


def test_arms_that_say_the_same_differ_by_nothing_but_what_could_not_be_seen() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 300)
    probabilities = rng.dirichlet(np.ones(3), (2, 300)) + 0.3 * np.eye(3)[truth]
    probabilities /= probabilities.sum(2, keepdims=True)
    predictions = Predictions(probabilities, probabilities, probabilities[..., 0] > 0.5)
    sample = Sample(truth, np.arange(300).astype(str), ("a", "b", "c"), ("a",))
    draws = Bootstrap(sample, {"x": predictions, "y": predictions}, ("b",), 0)
    for name in SCALARS:
        found = draws.difference(name, "x", "y")
        assert found["value"] == 0
        assert -0.1 < found["low"] <= 0 <= found["high"] < 0.1
        one = draws.difference(name, "x")
        assert one["low"] < one["high"]
        assert one["low"] <= one["value"] <= one["high"]
    for name in ("macro_auc", "macro_f1", "brier", "ece"):  # no two lesions more in these
        assert draws.difference(name, "x", "y") == {"value": 0, "low": 0, "high": 0}


def test_an_interval_of_auc_is_about_the_delong_one() -> None:
    """DeLong's variance (1988), from the placements of positive and negative scores."""
    rng = np.random.default_rng(3)
    truth = np.repeat([0, 1], [150, 60])
    score = rng.normal(truth, 1)
    probabilities = np.column_stack([1 / (1 + np.exp(score)), 1 / (1 + np.exp(-score))])[None]
    sample = Sample(truth, np.arange(210).astype(str), ("a", "b"))
    found = Bootstrap(sample, {"x": Predictions(probabilities, probabilities)}, ("b",), 0).difference("macro_auc", "x")
    above = score[truth == 1][:, None] > score[truth == 0]
    error = np.sqrt(above.mean(1).var(ddof=1) / 60 + above.mean(0).var(ddof=1) / 150)
    assert found["value"] == pytest.approx(above.mean())
    assert (found["low"], found["high"]) == pytest.approx(
        (above.mean() - 1.96 * error, above.mean() + 1.96 * error), abs=0.012
    )


def test_what_has_no_images_has_no_interval() -> None:
    sample, predictions = of_one_class(np.ones((1, 4), bool))
    draws = Bootstrap(sample, {"x": predictions}, ("b",), 0, 50)
    none = {"value": None, "low": None, "high": None}
    assert draws.difference("rare_recall", "x") == none
    assert draws.difference("recall", "x", label=1) == none
    assert draws.difference("macro_auc", "x") == none
    assert draws.difference("malignant_sensitivity", "x") == none


def test_draws_are_stratified_and_paired() -> None:
    """Each class keeps its number of lesions in every draw."""
    sample = Sample(np.repeat([0, 1], [30, 7]), np.arange(37).astype(str), ("a", "b"))
    weights = inference._draw_lesions(sample, 100, np.random.default_rng(0))
    assert (weights[:, :30].sum(1) == 30).all()
    assert (weights[:, 30:].sum(1) == 7).all()
    assert weights.std(0).min() > 0.5


@pytest.mark.parametrize(("gained", "lost"), [(5, 1), (0, 0), (9, 2), (3, 3)])
def test_mcnemar_is_statsmodels(gained: int, lost: int) -> None:
    change = np.array([1.0] * gained + [-1.0] * lost + [0.0] * 4)
    found = inference.mcnemar(change)
    expected = mcnemar([[4, gained], [lost, 3]], exact=True).pvalue if gained + lost else 1.0
    assert (found["lesions_gained"], found["lesions_lost"]) == (gained, lost)
    assert found["p"] == pytest.approx(min(1.0, expected))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=0, max_size=9))
def test_few_lesions_are_permuted_exactly(changes: list[int]) -> None:
    differences = np.array(changes) / 35
    p, arrangements = inference.sign_flip(differences, 0)
    signs = np.array(list(itertools.product([-1, 1], repeat=len(changes))))
    sums = (signs * differences).sum(1) if changes else np.zeros(1)
    expected = (np.abs(sums) >= abs(differences.sum()) - 1e-12).mean()
    assert p == pytest.approx(expected)
    assert arrangements == 2 ** np.count_nonzero(changes)


def test_the_permutation_test_of_one_seed_and_class_is_mcnemars() -> None:
    change = np.array([1.0] * 10 + [-1.0] * 2)
    assert inference.sign_flip(change, 0)[0] == pytest.approx(inference.mcnemar(change)["p"])


def test_many_lesions_are_permuted_at_random() -> None:
    differences = np.random.default_rng(0).normal(0.15, 1, 120)
    p, arrangements = inference.sign_flip(differences, 0)
    assert arrangements == inference.PERMUTATIONS
    assert p == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=0.02)
    assert inference.sign_flip(np.full(40, 0.1), 0)[0] == pytest.approx(2 / inference.PERMUTATIONS)


def test_holm_is_statsmodels() -> None:
    rng = np.random.default_rng(0)
    for count in range(1, 9):
        p_values = (rng.random(count) ** 3).round(2).tolist()  # small ones, and ties
        assert inference.holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1].tolist())


def test_lesions_needed_by_hand() -> None:
    """Connor 1987: (1.95996 √ψ + 0.84162 √(ψ − .01))² / .01."""
    disagree = np.array([1.0, -1.0, 1.0] + [0.0] * 7)  # ψ = .3
    assert inference.lesions_needed(disagree) == 234
    assert inference.lesions_needed(np.zeros(100)) == 77  # 3 / 100 is less than the difference itself: ψ = .1
    assert inference.lesions_needed(np.zeros(12)) == inference.lesions_needed(np.array([1.0, 0, 0, 0]))  # ψ = ¼
    assert inference.lesions_needed(np.zeros(2)) == 391  # ψ = ½


def test_so_many_lesions_have_the_power() -> None:
    """Lesions that differ in 30 %, by .1 more for the arm: McNemar's exact test finds it in about 4 of 5 trials."""
    rng = np.random.default_rng(0)
    table = rng.multinomial(234, [0.2, 0.1, 0.7], 500)
    p_values = [inference.mcnemar(np.repeat([1, -1, 0], row))["p"] for row in table]
    assert np.mean(np.array(p_values) < 0.05) == pytest.approx(0.8, abs=0.07)  # the exact test is a little shy


@pytest.mark.parametrize(
    "case",
    [
        Case((9,), 1, 0.7, 0.0),
        Case((11, 15), 5, 0.6, 0.0, 0.3),
        Case((40,), 3, 0.6, 0.0, 0.6),
        Case((34,), 1, 0.8, -0.1),
    ],
    ids=str,
)
def test_the_interval_covers_the_truth_and_nothing_is_found_where_nothing_is(case: Case) -> None:
    """docs/statistics.md has more trials of more cases: `python -m benchmarks.coverage`."""
    trials = 60
    found = measure(case, trials, draws=100)
    assert found["covered"] >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / trials)
    if case.effect == 0:
        assert found["improved"] + found["worse"] <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / trials)
    else:
        assert found["improved"] <= 0.025


@pytest.mark.parametrize(("effect", "verdict"), [(0.1, "improved"), (-0.1, "worse")])
def test_a_known_effect_is_found_about_as_often_as_it_should_be(effect: float, verdict: str) -> None:
    """Four hundred lesions in each of two rare classes: .10 is about four standard errors, found in 98 % of trials."""
    found = measure(Case((400, 400), 1, 0.6, effect), 6, draws=100)
    assert found[verdict] >= 4 / 6
    assert found[{"improved": "worse", "worse": "improved"}[verdict]] == 0
