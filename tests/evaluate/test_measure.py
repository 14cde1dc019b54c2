"""Statistics against scikit-learn, statsmodels' formula, or a case worked by hand."""

import numpy as np
import pytest
from sklearn import metrics

from components.evaluate import measure

CLASSES = ("a", "b", "c")


def one_hot(labels: list[int]) -> np.ndarray:
    return np.eye(3)[labels]


def test_figures_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 200)
    chances = rng.dirichlet(np.ones(3), 200)
    figures = measure.measure(truth, chances, CLASSES)
    predicted = chances.argmax(1)
    assert figures["accuracy"] == pytest.approx(metrics.accuracy_score(truth, predicted))
    assert figures["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(truth, predicted))
    assert figures["macro_auc"] == pytest.approx(metrics.roc_auc_score(truth, chances, multi_class="ovr"))
    assert list(figures["recall"].values()) == pytest.approx(
        metrics.recall_score(truth, predicted, average=None).tolist()
    )
    assert np.sum(figures["confusion"]) == 200
    assert np.diag(figures["confusion"]).sum() == (truth == predicted).sum()


def test_rows_of_the_confusion_matrix_are_the_true_classes():
    figures = measure.measure(np.array([0, 0, 0, 1, 2]), one_hot([0, 1, 1, 1, 2]), CLASSES)
    assert figures["confusion"] == [[1, 2, 0], [0, 1, 0], [0, 0, 1]]
    assert figures["recall"] == pytest.approx({"a": 1 / 3, "b": 1, "c": 1})
    assert figures["precision"] == pytest.approx({"a": 1, "b": 1 / 3, "c": 1})
    assert figures["support"] == {"a": 3, "b": 1, "c": 1}


def test_a_class_without_images_has_no_auc():
    figures = measure.measure(np.array([0, 0, 1, 1]), one_hot([0, 1, 1, 1]), CLASSES)
    assert figures["auc"]["c"] is None
    assert figures["support"]["c"] == 0


def test_the_bootstrap_draws_lesions_not_images():
    """Ten lesions of five equal images, half right: the spread is that of 10 lesions, √(.25 / 10), not of 50 images."""
    truth = np.zeros(50, int)
    lesion = np.repeat([f"l{n}" for n in range(10)], 5)
    predicted = np.repeat([0, 1] * 5, 5)
    drawn = measure.bootstrap_recall(truth, lesion, {"x": predicted}, 3, 0)["x"][:, 0]
    assert drawn.mean() == pytest.approx(0.5, abs=0.02)
    assert drawn.std() == pytest.approx(np.sqrt(0.25 / 10), rel=0.06)


def test_the_bootstrap_is_paired():
    """Two arms with the same predictions differ by nothing in every draw."""
    rng = np.random.default_rng(0)
    truth, lesion = rng.integers(0, 3, 90), np.arange(90).astype(str)
    predicted = rng.integers(0, 3, 90)
    drawn = measure.bootstrap_recall(truth, lesion, {"x": predicted, "y": predicted.copy()}, 3, 0)
    assert (drawn["x"] == drawn["y"]).all()
    assert drawn["x"].std(0).min() > 0


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(200):
        predicted = (rng.random(80) < 0.3).astype(int)  # recall of class 0 is .7
        drawn = measure.bootstrap_recall(np.zeros(80, int), np.arange(80).astype(str), {"x": predicted}, 3, trial)["x"][
            :, 0
        ]
        low, high = measure.interval(drawn)
        covered += low <= 0.7 <= high
    assert 0.89 <= covered / 200 <= 0.99


def test_mcnemar_counts_lesions():
    """Lesions: 5 gained, 1 lost, 2 the same. Exact: 2 · P(X ≤ 1 | 6, ½) = 2 · 7 / 64."""
    arm = [0] * 5 + [1] + [0, 1]
    control = [1] * 5 + [0] + [0, 1]
    lesion = np.repeat([f"l{n}" for n in range(8)], 2)
    gained, lost, p = measure.mcnemar(
        np.zeros(16, int), lesion, np.repeat(one_hot(arm), 2, 0), np.repeat(one_hot(control), 2, 0), np.ones(16, bool)
    )
    assert (gained, lost) == (5, 1)
    assert p == pytest.approx(14 / 64)


def arms(truth: np.ndarray, right: dict[str, float], seed: int) -> dict[str, np.ndarray]:
    """Predictions that hit with a given chance."""
    rng = np.random.default_rng(seed)
    made = {}
    for arm, chance in right.items():
        hit = rng.random(len(truth)) < chance
        made[arm] = one_hot(np.where(hit, truth, (truth + 1) % 3))
    return made


@pytest.mark.parametrize(("augmented", "verdict"), [(0.85, "improved"), (0.5, "no evidence"), (0.15, "worse")])
def test_a_known_effect_gets_its_verdict(augmented: float, verdict: str):
    truth = np.repeat([0, 1, 2], [200, 60, 60])
    lesion = np.arange(320).astype(str)
    chances = arms(truth, {"baseline": 0.5, "oversampled": 0.5, "augmented": augmented}, 0)
    _, effect, said = measure.compare(truth, lesion, chances, CLASSES, ["b", "c"], 0)
    difference = effect["augmented_minus_oversampled"]
    assert said == verdict
    assert difference["low"] < augmented - 0.5 < difference["high"]
    assert difference["low"] <= difference["value"] <= difference["high"]


def test_a_handful_of_lesions_decides_nothing():
    """Three lesions that all went one way have a bootstrap interval without width: it must not be a verdict."""
    truth = np.array([0] * 20 + [1] * 3)
    lesion = np.arange(23).astype(str)
    control, augmented = one_hot([0] * 20 + [1] * 3), one_hot([0] * 23)
    chances = {"baseline": control, "oversampled": control, "augmented": augmented}
    _, effect, said = measure.compare(truth, lesion, chances, CLASSES, ["b"], 0)
    assert effect["augmented_minus_oversampled"] == {"value": -1.0, "low": -1.0, "high": -1.0}
    assert effect["mcnemar"] == {"lesions_gained": 0, "lesions_lost": 3, "p": 0.25}
    assert said == "no evidence"


def test_the_interval_of_a_recall():
    """Newcombe 1998, table I: 81 of 263 is .2553 to .3662; and no lesions say nothing, but one says little."""
    assert measure.recall_interval(np.arange(263) < 81) == pytest.approx([0.2553, 0.3662], abs=1e-4)
    assert measure.recall_interval(np.arange(15) < 12) == pytest.approx([0.55, 0.93], abs=5e-3)
    low, high = measure.recall_interval(np.array([True]))
    assert low < 0.3
    assert high == 1
    assert measure.recall_interval(np.array([], bool)) == [None, None]


def test_a_lesion_with_many_images_counts_one_in_the_interval():
    """One lesion of 12 images, right, and 11 lesions of one image, wrong: 1 of 12, not 12 of 23."""
    lesion = np.array(["many"] * 12 + [f"l{n}" for n in range(11)])
    chances = one_hot([0] * 12 + [1] * 11)
    right = measure.lesions_right(np.zeros(23, int), lesion, chances)
    assert (right.sum(), len(right)) == (1, 12)
    assert measure.recall_interval(right) == pytest.approx([0.015, 0.354], abs=1e-3)
    truth, lesion = np.append(np.zeros(23, int), 1), np.append(lesion, "other")
    chances = np.vstack([chances, one_hot([1])])
    both, _, _ = measure.compare(
        truth, lesion, dict.fromkeys(("baseline", "oversampled", "augmented"), chances), CLASSES, ["a"], 0
    )
    assert both["augmented"]["recall_interval"]["a"] == pytest.approx([0.015, 0.354], abs=1e-3)
    assert both["augmented"]["recall"]["a"] == pytest.approx(12 / 23)
