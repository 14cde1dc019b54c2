"""Metrics against scikit-learn, with and without weights, or a case by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from components.evaluate.statistics.metrics import (
    BINS,
    SCALARS,
    Predictions,
    Sample,
    bin_of,
    compute_metrics,
    confusion,
)

CLASSES = ("akiec", "mel", "nv", "df")


def example(seed: int, images: int = 120, classes: int = 4) -> tuple[Sample, np.ndarray]:
    """Return lesions of one to three images, and probabilities that are mostly right, with ties."""
    rng = np.random.default_rng(seed)
    lesion = np.repeat(np.arange(images), rng.integers(1, 4, images))[:images]
    truth = rng.integers(0, classes, images)[lesion]
    truth[: 2 * classes] = np.repeat(np.arange(classes), 2)  # every class occurs
    probabilities = np.round(rng.dirichlet(np.ones(4), images) + np.eye(4)[truth] * rng.random((images, 1)), 1) + 1e-3
    return Sample(truth, lesion.astype(str), CLASSES, ("mel", "akiec")), probabilities / probabilities.sum(
        1, keepdims=True
    )


def corrected(probabilities: np.ndarray) -> np.ndarray:
    return (probabilities / [0.4, 0.3, 0.2, 0.1]).argmax(1)


def measured(sample: Sample, probabilities: np.ndarray, weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
    alarms, scaled = probabilities[:, :2].sum(1) > 0.4, probabilities**2 / (probabilities**2).sum(1, keepdims=True)
    return compute_metrics(
        sample,
        Predictions(probabilities, scaled, alarms, corrected(probabilities)),
        ("akiec", "df"),
        weights,
    )


def expected_calibration_error(probabilities: np.ndarray, right: np.ndarray, weight: np.ndarray) -> float:
    """Return equation 3 of Guo et al. 2017, bin by bin."""
    total = 0.0
    confidence = probabilities.max(1)
    for number in range(BINS):
        inside = (confidence > number / BINS) & (confidence <= (number + 1) / BINS)
        if weight[inside].sum():
            gap = np.average(right[inside], weights=weight[inside]) - np.average(
                confidence[inside], weights=weight[inside]
            )
            total += weight[inside].sum() / weight.sum() * abs(gap)
    return total


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_compute_metrics_agrees_with_scikit_learn(seed: int, weighted: bool) -> None:
    """With and without weights, some of them 0: scikit-learn's sample weights."""
    sample, probabilities = example(seed)
    truth, predicted = sample.truth, probabilities.argmax(1)
    weights = np.ones((1, len(sample.label)))
    if weighted:
        weights = np.random.default_rng(seed).integers(0, 3, weights.shape).astype(float)
    weight = weights[0][sample.number]
    got = {name: values[0] for name, values in measured(sample, probabilities, weights).items()}
    given_ = {"sample_weight": weight}
    by_class = metrics.precision_recall_fscore_support(truth, predicted, labels=range(4), zero_division=0, **given_)
    for name, values in zip(("precision", "recall", "f1"), by_class, strict=False):
        assert got[name] == pytest.approx(values)
    assert got["accuracy"] == pytest.approx(metrics.accuracy_score(truth, predicted, **given_))
    assert got["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(truth, predicted, **given_))
    assert got["rare_recall"] == pytest.approx((by_class[1][0] + by_class[1][3]) / 2)
    assert got["macro_f1"] == pytest.approx(metrics.f1_score(truth, predicted, average="macro", **given_))
    auc = [metrics.roc_auc_score(truth == label, probabilities[:, label], **given_) for label in range(4)]
    assert got["auc"] == pytest.approx(auc)
    assert got["macro_auc"] == pytest.approx(np.mean(auc))
    bad, alarm = truth < 2, probabilities[:, :2].sum(1) > 0.4
    assert got["malignant_sensitivity"] == pytest.approx(metrics.recall_score(bad, alarm, **given_))
    assert got["malignant_specificity"] == pytest.approx(metrics.recall_score(~bad, ~alarm, **given_))
    brier = sum(metrics.brier_score_loss(truth == label, probabilities[:, label], **given_) for label in range(4))
    assert got["brier"] == pytest.approx(brier)
    assert got["ece"] == pytest.approx(expected_calibration_error(probabilities, predicted == truth, weight))
    scaled = probabilities**2 / (probabilities**2).sum(1, keepdims=True)
    assert got["ece_scaled"] == pytest.approx(expected_calibration_error(scaled, predicted == truth, weight))
    losses = [
        metrics.log_loss(truth[rows], scaled[rows], labels=range(4), sample_weight=weight[rows])
        for rows in (truth == label for label in range(4))
    ]
    assert got["balanced_log_loss"] == pytest.approx(np.mean(losses))
    recalls = metrics.recall_score(truth, corrected(probabilities), labels=range(4), average=None, **given_)
    assert got["corrected"] == pytest.approx(recalls)
    assert got["corrected_recall"] == pytest.approx((recalls[0] + recalls[3]) / 2)
    if not weighted:
        assert got["macro_auc"] == pytest.approx(metrics.roc_auc_score(truth, probabilities, multi_class="ovr"))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), images=st.integers(8, 40))
def test_compute_metrics_weighting_equals_repeated_images(seed: int, images: int) -> None:
    sample, probabilities = example(seed, images)
    weights = np.random.default_rng(seed).integers(1, 4, (1, len(sample.label))).astype(float)
    rows = np.repeat(np.arange(images), weights[0][sample.number].astype(int))
    repeated = Sample(sample.truth[rows], sample.lesion[rows], CLASSES, sample.malignant)
    one, other = measured(sample, probabilities, weights), measured(repeated, probabilities[rows])
    for name in one:
        assert one[name] == pytest.approx(other[name], nan_ok=True), name


def test_compute_metrics_all_weightings_at_once_equal_each_alone() -> None:
    sample, probabilities = example(5)
    weights = np.random.default_rng(0).integers(0, 3, (7, len(sample.label))).astype(np.float32)
    together = measured(sample, probabilities, weights)
    for number in range(7):
        alone = measured(sample, probabilities, weights[number : number + 1].astype(float))
        for name in together:
            assert together[name][number] == pytest.approx(alone[name][0], abs=1e-6), name


def test_auc_counted_in_chunks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    sample, probabilities = example(6)
    whole = measured(sample, probabilities)["auc"]
    monkeypatch.setattr("components.evaluate.statistics.metrics.CHUNK_PAIRS", 300)
    assert measured(sample, probabilities)["auc"] == pytest.approx(whole)


def test_compute_metrics_means_skip_classes_without_images() -> None:
    """nv and df are missing: means are over the two others, and undefined metrics are NaN."""
    sample, probabilities = example(1, classes=2)
    got = {name: values[0] for name, values in measured(sample, probabilities).items()}
    assert np.isnan([got[name][2:] for name in ("recall", "precision", "f1", "auc")]).all()
    assert got["balanced_accuracy"] == pytest.approx(got["recall"][:2].mean())
    assert got["macro_auc"] == pytest.approx(got["auc"][:2].mean())
    assert got["rare_recall"] == got["recall"][0]
    assert np.isnan(got["malignant_specificity"])  # no benign image
    of_nv = Sample(np.full(3, 2), np.array(["a", "b", "c"]), CLASSES)
    alone = compute_metrics(of_nv, Predictions(probabilities[:3], probabilities[:3]), ("df",))
    for name in ("rare_recall", "macro_auc", "malignant_sensitivity", "malignant_specificity"):
        assert np.isnan(alone[name][0])
    assert set(SCALARS) <= set(alone)


def test_compute_metrics_agrees_with_a_case_by_hand() -> None:
    """Two images of one lesion, one of another: Brier (.1² + .1²) + 2 · .9² + 0 over 3; ECE .1, .9 and 0 likewise."""
    sample = Sample(np.array([0, 0, 1]), np.array(["x", "x", "y"]), ("a", "b"))
    probabilities = np.array([[0.9, 0.1], [0.1, 0.9], [0.0, 1.0]])
    got = compute_metrics(sample, Predictions(probabilities, probabilities), ("a",))
    assert got["brier"] == pytest.approx((0.02 + 1.62) / 3)
    # .9 and .9 are in one bin: |.9 + .9 − 1| / 3; the last image is right with confidence 1.
    assert got["ece"] == pytest.approx(0.8 / 3)
    assert got["recall"][0] == pytest.approx([0.5, 1])
    assert got["auc"][0] == pytest.approx([1, 1])


def test_confusion_rows_are_the_true_classes() -> None:
    sample = Sample(np.array([0, 0, 0, 1, 2]), np.arange(5).astype(str), ("a", "b", "c"))
    predicted = np.eye(3)[np.array([[0, 1, 1, 1, 2], [0, 0, 0, 1, 2]])]
    assert confusion(sample, predicted).tolist() == [[4, 2, 0], [0, 2, 0], [0, 0, 2]]


def test_sample_lesion_id_in_two_classes_is_two_lesions() -> None:
    """Stratified resampling requires each lesion in one class."""
    sample = Sample(np.array([0, 1, 1]), np.array(["x", "x", "x"]), ("a", "b"))
    assert sample.label.tolist() == [0, 1]
    assert sample.images.tolist() == [1, 2]


def test_bin_of_includes_the_upper_edge() -> None:
    assert bin_of(np.array([0.0, 0.01, 1 / 15 + 1e-9, 0.5, 1.0])).tolist() == [0, 0, 1, 7, 14]
