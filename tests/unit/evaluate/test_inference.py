"""Tests and intervals against SciPy, statsmodels, brute force, or cases by hand; coverage by simulation."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from benchmarks.coverage import Case, measure, simulate
from components.evaluate.statistics import inference
from components.evaluate.statistics.compare import lesion_differences
from components.evaluate.statistics.inference import WITHOUT_INTERVAL, Bootstrap
from components.evaluate.statistics.metrics import SCALARS, Predictions, Sample
from components.shared.records import Difference


def certain(labels: np.ndarray, classes: int) -> Predictions:
    """Return predictions of probability 1 for (seeds, N) labels."""
    probabilities = np.eye(classes)[labels]
    return Predictions(probabilities, probabilities)


def of_one_class(right: np.ndarray, images: int = 1) -> tuple[Sample, Predictions]:
    """Return lesions of class `a`, (seeds, L) of which are classified correctly, with `images` images each."""
    lesions = right.shape[1]
    sample = Sample(np.zeros(lesions * images, int), np.repeat(np.arange(lesions), images).astype(str), ("a", "b"))
    return sample, certain(np.repeat(np.where(right, 0, 1), images, axis=1), 2)


@pytest.mark.parametrize("images", [1, 5])
@pytest.mark.parametrize(("right", "lesions"), [(30, 60), (12, 15), (6, 12)])
def test_difference_recall_of_a_class_has_about_wilsons_interval(right: int, lesions: int, images: int) -> None:
    """The lesion is the unit, for any number of images."""
    sample, predictions = of_one_class(np.arange(lesions)[None, :] < right, images)
    found = Bootstrap(sample, {"x": predictions}, ("a",), 0).difference("recall", "x", label=0)
    low, high = proportion_confint(right, lesions, method="wilson")
    assert found.value == pytest.approx(right / lesions)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.06)


def test_difference_class_with_one_result_has_an_interval_with_width() -> None:
    sample, predictions = of_one_class(np.ones((1, 12), bool))
    found = Bootstrap(sample, {"x": predictions}, ("a",), 0).difference("recall", "x", label=0)
    assert found.high == 1
    assert 0.6 < found.low < 0.85  # Clopper and Pearson: .735
    sample, predictions = of_one_class(np.ones((1, 1), bool))
    found = Bootstrap(sample, {"x": predictions}, ("a",), 0).difference("recall", "x", label=0)
    assert found.low < 0.3


def test_difference_of_arms_has_about_the_paired_t_interval() -> None:
    """Many lesions, one seed: the mean of the lesions' differences ± t · s / √L."""
    rng = np.random.default_rng(0)
    control = rng.random(200) < 0.6
    arm = np.where(rng.random(200) < 0.3, rng.random(200) < 0.9, control)
    sample, one = of_one_class(arm[None])
    _, other = of_one_class(control[None])
    found = Bootstrap(sample, {"x": one, "y": other}, ("a",), 0).difference("rare_recall", "x", "y")
    expected = stats.ttest_rel(arm.astype(float), control.astype(float)).confidence_interval()
    assert found.value == pytest.approx(arm.mean() - control.mean())
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.015)


def test_difference_only_seeds_differ_gives_students_interval_over_seeds() -> None:
    """Every model classifies its own share of a thousand lesions correctly."""
    shares = np.array([0.5, 0.6, 0.62, 0.7, 0.8])
    right = np.random.default_rng(0).random((5, 1000)) < shares[:, None]
    sample, predictions = of_one_class(right)
    found = Bootstrap(sample, {"x": predictions}, ("a",), 0).difference("rare_recall", "x")
    expected = stats.ttest_1samp(right.mean(1), 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.03)


def test_difference_equal_arms_is_zero_within_its_interval() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 300)
    probabilities = rng.dirichlet(np.ones(3), (2, 300)) + 0.3 * np.eye(3)[truth]
    probabilities /= probabilities.sum(2, keepdims=True)
    predictions = Predictions(probabilities, probabilities, probabilities[..., 0] > 0.5)
    sample = Sample(truth, np.arange(300).astype(str), ("a", "b", "c"), ("a",))
    bootstrap = Bootstrap(sample, {"x": predictions, "y": predictions}, ("b",), 0)
    for name in set(SCALARS) - set(WITHOUT_INTERVAL):
        found = bootstrap.difference(name, "x", "y")
        assert found.value == 0
        assert found.low <= 0 <= found.high
        assert found.low > -0.5  # of two seeds of independent arms
        one = bootstrap.difference(name, "x")
        assert one.low < one.high
        assert one.low <= one.value <= one.high
    for name in ("macro_f1", "brier"):  # these have no pseudo-lesions
        assert bootstrap.difference(name, "x", "y") == Difference(value=0, low=0, high=0)


def test_difference_calibration_error_has_no_interval() -> None:
    """Regression: a calibrated arm, whose true error is 0, had an interval of .013 to .046."""
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), 300)
    truth = (probabilities.cumsum(1) < rng.random((300, 1))).sum(1)
    arms = {"x": Predictions(probabilities[None], probabilities[None])}
    bootstrap = Bootstrap(Sample(truth, np.arange(300).astype(str), ("a", "b", "c")), arms, ("b",), 0, 50)
    for name in WITHOUT_INTERVAL:
        found = bootstrap.difference(name, "x")
        assert found.value > 0
        assert (found.low, found.high) == (None, None)


def test_difference_perfect_auc_of_few_positives_has_an_interval_with_width() -> None:
    """Regression: [1.0, 1.0] for nine positive images."""
    truth = np.repeat([0, 1], [200, 9])
    score = truth + np.random.default_rng(0).uniform(0, 0.5, 209)
    probabilities = np.column_stack([1 - score / 2, score / 2])[None]
    sample = Sample(truth, np.arange(209).astype(str), ("a", "b"))
    found = Bootstrap(sample, {"x": Predictions(probabilities, probabilities)}, ("b",), 0).difference("macro_auc", "x")
    assert (found.value, found.high) == (1, 1)
    assert 0.8 < found.low < 0.99


@pytest.mark.parametrize("positives", [9, 30])
def test_difference_interval_of_a_high_auc_covers_it(positives: int) -> None:
    """Regression: with a true AUC of .98 the interval covered it in .76 (9 positives) and .89 (30) of worlds."""
    rng, trials, covered = np.random.default_rng(1), 120, 0
    truth = np.repeat([0, 1], [200, positives])
    sample = Sample(truth, np.arange(len(truth)).astype(str), ("a", "b"))
    shift = np.sqrt(2) * stats.norm.ppf(0.98)
    for trial in range(trials):
        score = 1 / (1 + np.exp(-rng.normal(shift * truth, 1)))
        probabilities = np.column_stack([1 - score, score])[None]
        bootstrap = Bootstrap(sample, {"x": Predictions(probabilities, probabilities)}, ("b",), trial, 150)
        found = bootstrap.difference("macro_auc", "x")
        covered += found.low <= 0.98 <= found.high
    # Of 120 worlds, three standard deviations of a share of .95 below it.
    assert covered / trials >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / trials)


def test_difference_auc_has_about_delongs_interval() -> None:
    """DeLong's variance (1988), from the placements of positive and negative scores."""
    rng = np.random.default_rng(3)
    truth = np.repeat([0, 1], [150, 60])
    score = rng.normal(truth, 1)
    probabilities = np.column_stack([1 / (1 + np.exp(score)), 1 / (1 + np.exp(-score))])[None]
    sample = Sample(truth, np.arange(210).astype(str), ("a", "b"))
    found = Bootstrap(sample, {"x": Predictions(probabilities, probabilities)}, ("b",), 0).difference("macro_auc", "x")
    above = score[truth == 1][:, None] > score[truth == 0]
    error = np.sqrt(above.mean(1).var(ddof=1) / 60 + above.mean(0).var(ddof=1) / 150)
    assert found.value == pytest.approx(above.mean())
    # Two pseudo-lesions among 60 widen it by some √(62 / 60) and their own spread, √.5 / 62, in squares.
    widest = 1.96 * np.hypot(error * np.sqrt(62 / 60), np.sqrt(0.5) / 62)
    for end, sign in (("low", -1), ("high", 1)):
        assert (
            1.96 * error * 0.9 <= sign * (getattr(found, end) - above.mean()) <= widest * 1.15
        )  # 2,000 resamples: ± 6 %


def test_difference_class_without_images_has_no_interval() -> None:
    sample, predictions = of_one_class(np.ones((1, 4), bool))
    bootstrap = Bootstrap(sample, {"x": predictions}, ("b",), 0, 50)
    none = Difference(value=None, low=None, high=None)
    assert bootstrap.difference("rare_recall", "x") == none
    assert bootstrap.difference("recall", "x", label=1) == none
    assert bootstrap.difference("macro_auc", "x") == none
    assert bootstrap.difference("malignant_sensitivity", "x") == none


def test_resample_lesions_keeps_each_class_size() -> None:
    """Each class keeps its number of lesions in every resample."""
    sample = Sample(np.repeat([0, 1], [30, 7]), np.arange(37).astype(str), ("a", "b"))
    weights = inference._resample_lesions(sample, 100, np.random.default_rng(0))
    assert (weights[:, :30].sum(1) == 30).all()
    assert (weights[:, 30:].sum(1) == 7).all()
    assert weights.std(0).min() > 0.5


@pytest.mark.parametrize(("gained", "lost"), [(5, 1), (0, 0), (9, 2), (3, 3)])
def test_mcnemar_agrees_with_statsmodels(gained: int, lost: int) -> None:
    change = np.array([1.0] * gained + [-1.0] * lost + [0.0] * 4)
    found = inference.mcnemar(change)
    expected = mcnemar([[4, gained], [lost, 3]], exact=True).pvalue if gained + lost else 1.0
    assert (found.lesions_gained, found.lesions_lost) == (gained, lost)
    assert found.p == pytest.approx(min(1.0, expected))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=0, max_size=9))
def test_sign_flip_few_lesions_are_permuted_exactly(changes: list[int]) -> None:
    differences = np.array(changes) / 35
    p, arrangements = inference.sign_flip(differences, 0)
    signs = np.array(list(itertools.product([-1, 1], repeat=len(changes))))
    sums = (signs * differences).sum(1) if changes else np.zeros(1)
    expected = (np.abs(sums) >= abs(differences.sum()) - 1e-12).mean()
    assert p == pytest.approx(expected)
    assert arrangements == 2 ** np.count_nonzero(changes)


def test_sign_flip_one_seed_and_class_agrees_with_mcnemar() -> None:
    change = np.array([1.0] * 10 + [-1.0] * 2)
    assert inference.sign_flip(change, 0)[0] == pytest.approx(inference.mcnemar(change).p)


def test_sign_flip_many_lesions_are_permuted_at_random() -> None:
    differences = np.random.default_rng(0).normal(0.15, 1, 120)
    p, arrangements = inference.sign_flip(differences, 0)
    assert arrangements == inference.PERMUTATIONS
    assert p == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=0.02)
    assert inference.sign_flip(np.full(40, 0.1), 0)[0] == pytest.approx(2 / inference.PERMUTATIONS)


def test_holm_agrees_with_statsmodels() -> None:
    rng = np.random.default_rng(0)
    for count in range(1, 9):
        p_values = (rng.random(count) ** 3).round(2).tolist()  # small ones, and ties
        assert inference.holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1].tolist())


def test_lesions_needed_agrees_with_cases_by_hand() -> None:
    """Connor 1987: (1.95996 √ψ + 0.84162 √(ψ − .01))² / .01."""
    disagree = np.array([1.0, -1.0, 1.0] + [0.0] * 7)  # ψ = .3
    assert inference.lesions_needed(disagree) == 234
    assert inference.lesions_needed(np.zeros(100)) == 77  # 3 / 100 is less than the difference itself: ψ = .1
    assert inference.lesions_needed(np.zeros(12)) == inference.lesions_needed(np.array([1.0, 0, 0, 0]))  # ψ = ¼
    assert inference.lesions_needed(np.zeros(2)) == 391  # ψ = ½


def test_lesions_needed_more_variance_from_seeds_than_the_effect_allows_is_none() -> None:
    """With t of 4 degrees of freedom: (.10 / (2.776 + .941))² = 7.24e-4 is the most that seeds may take."""
    disagree = np.array([1.0, -1.0, 1.0] + [0.0] * 7)
    assert inference.lesions_needed(disagree, 7.3e-4, 4) is None
    assert inference.lesions_needed(disagree, 6.24e-4, 4) == pytest.approx(0.3 / 1.0e-4, rel=0.02)
    assert inference.lesions_needed(disagree, 1e-9, 1e9) == pytest.approx(0.3 / (0.1 / 2.8016) ** 2, abs=1)


def test_lesions_needed_detectable_effect_is_found() -> None:
    """Regression: 160 lesions and three seeds were called enough for .10, which was found in .19 of worlds."""
    rng, detectable = np.random.default_rng(0), 0
    for trial in range(20):
        sample, arms, *_ = simulate(Case((160,), 3, 0.6, 0.1, 0.3), rng)
        bootstrap = Bootstrap(sample, arms, sample.classes[:-1], trial, 20)
        differences = lesion_differences(sample, arms["augmented@1"], arms["oversampled"])
        needed = inference.lesions_needed(differences, *bootstrap.seed_noise("recall", 0))
        detectable += needed is not None and needed <= 160
    # The variance of two or three trainings is itself uncertain, and sometimes small by chance.
    assert detectable <= 4


def test_lesions_needed_gives_the_power() -> None:
    """Lesions that differ in 30 %, by .1 more for the arm: McNemar's exact test finds it in about 4 of 5 trials."""
    rng = np.random.default_rng(0)
    table = rng.multinomial(234, [0.2, 0.1, 0.7], 500)
    p_values = [inference.mcnemar(np.repeat([1, -1, 0], row)).p for row in table]
    assert np.mean(np.array(p_values) < 0.05) == pytest.approx(0.8, abs=0.07)  # the exact test is conservative


@pytest.mark.parametrize(
    "case",
    [
        Case((9,), 1, 0.7, 0.0),
        Case((11, 15), 5, 0.6, 0.0, 0.3),
        Case((40,), 3, 0.6, 0.0, 0.6),
        Case((60,), 3, 0.6, 0.0, 0.3, 5.0),  # arms with different offsets
        Case((34,), 1, 0.8, -0.1),
        Case((40,), 3, 0.6, 0.0, 0.3, controls=2, doses=0),  # the luckiest of three remedies
        Case((40,), 3, 0.6, 0.0, 0.3, 5.0, controls=2, doses=0),
    ],
    ids=str,
)
def test_difference_interval_covers_the_truth_and_rejects_no_null_effect(case: Case) -> None:
    """`python -m benchmarks.coverage` has more trials of more cases."""
    trials = 40
    found = measure(case, trials, draws=80)
    limit = 3 * np.sqrt(0.05 * 0.95 / trials)  # three standard deviations of a share of .05
    assert found["covered"] >= 0.95 - limit
    if case.effect == 0:
        assert found["improved"] + found["worse"] <= 0.05 + limit
    else:
        assert found["improved"] <= 0.025
    if case.seeds == 1:
        assert found["improved"] + found["worse"] == 0


def test_differences_of_all_arms_cover_the_truth_after_the_choice() -> None:
    """Gains and the difference to the best control, which the luckiest training decides; see `benchmarks.coverage`."""
    trials = 25
    found = measure(Case((40,), 3, 0.6, 0.0, 0.3, controls=2, doses=2, gain=0.1, lead=0.1), trials, draws=60)
    limit = 3 * np.sqrt(0.05 * 0.95 / trials)
    assert found["gains_covered"] >= 0.95 - limit
    assert found["beyond_covered"] >= 0.95 - limit
    assert 0.34 < found["best_found"] < 1  # better than by chance, and not always


@pytest.mark.parametrize(("effect", "verdict"), [(0.2, "improved"), (-0.2, "worse")])
def test_difference_large_effect_is_found(effect: float, verdict: str) -> None:
    """120 lesions, three seeds: .20 is some four standard errors."""
    found = measure(Case((120,), 3, 0.6, effect), 6, draws=80)
    assert found[verdict] >= 4 / 6
    assert found[{"improved": "worse", "worse": "improved"}[verdict]] == 0
