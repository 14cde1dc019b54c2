"""Curves against scikit-learn's."""

import numpy as np
import pytest
from sklearn import metrics

from components.evaluate.statistics import curves
from components.evaluate.statistics.metrics import Sample


def example(seed: int, seeds: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    positive = rng.random(300) < 0.2
    return positive, np.round(np.clip(rng.normal(0.4 + 0.2 * positive, 0.2, (seeds, 300)), 0, 1), 2)


def test_roc_agrees_with_scikit_learn() -> None:
    positive, scores = example(0)
    found = curves.roc(positive, scores)
    assert (found["fpr"][0], found["tpr"][0], found["fpr"][-1], found["tpr"][-1]) == (0, 0, 1, 1)
    assert len(found["fpr"]) == len(found["tpr"]) <= 60
    fpr, tpr, _ = metrics.roc_curve(positive, scores[0])
    assert found["tpr"][1:] == pytest.approx(np.interp(found["fpr"][1:], fpr, tpr), abs=2e-3)
    area = np.trapezoid(found["tpr"], found["fpr"])
    assert area == pytest.approx(metrics.roc_auc_score(positive, scores[0]), abs=0.005)


def test_roc_area_under_the_mean_curve_is_the_mean_area() -> None:
    positive, scores = example(1, 3)
    found = curves.roc(positive, scores)
    areas = [metrics.roc_auc_score(positive, one) for one in scores]
    assert np.trapezoid(found["tpr"], found["fpr"]) == pytest.approx(np.mean(areas), abs=0.005)


def test_precision_recall_agrees_with_scikit_learn() -> None:
    positive, scores = example(2)
    found = curves.precision_recall(positive, scores)
    precision, recall, _ = metrics.precision_recall_curve(positive, scores[0])
    for place, value in zip(curves._PLACES, found["precision"], strict=True):
        reaching = np.flatnonzero(recall[:-1] >= place - 1e-12)
        assert value == pytest.approx(precision[reaching[-1]], abs=1e-4)
    assert found["precision"][-1] == pytest.approx(precision[recall == 1][-1], abs=1e-4)
    perfect = curves.precision_recall(np.array([True, False]), np.array([[0.9, 0.1]]))
    assert set(perfect["precision"]) == {1.0}


def test_reliability_agrees_with_a_case_by_hand() -> None:
    truth = np.array([0, 0, 1, 1])
    probabilities = np.array([[[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.45, 0.55]]])
    assert curves.reliability(truth, probabilities) == {
        "confidence": [0.55, 0.9],
        "accuracy": [1, 0.6667],
        "count": [1, 3],
    }


def test_curves_exist_for_classes_with_images() -> None:
    sample = Sample(np.array([0, 0, 2, 2]), np.array(list("abcd")), ("df", "mel", "nv"))
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), (2, 4))
    found = curves.curves(sample, probabilities, probabilities)
    assert list(found.roc) == list(found.pr) == ["df", "nv"]
    assert sum(found.reliability["before"]["count"]) == 8
    alone = Sample(np.array([1, 1]), np.array(list("ab")), ("df", "mel", "nv"))
    assert curves.curves(alone, probabilities[:, :2], probabilities[:, :2]).roc == {}
