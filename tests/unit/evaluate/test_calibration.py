"""Temperature and threshold, against a grid search and cases with a known answer."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import log_loss

from components.evaluate import calibration


def overconfident(factor: float, images: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Return labels distributed as softmax(z), and softmax(factor · z): the right temperature is the factor."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (images, 4))
    probabilities = softmax(logits, 1)
    truth = (probabilities.cumsum(1) < rng.random((images, 1))).sum(1)
    return truth, softmax(factor * logits, 1)


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_fit_temperature_overconfident_model_gives_its_factor(factor: float) -> None:
    truth, probabilities = overconfident(factor)
    assert calibration.fit_temperature(truth, probabilities) == pytest.approx(factor, rel=0.03)


def test_fit_temperature_has_the_smallest_loss_of_a_grid() -> None:
    truth, probabilities = overconfident(2.0, 500)
    found = calibration.fit_temperature(truth, probabilities)
    grid = np.geomspace(0.1, 10, 400)
    losses = [log_loss(truth, calibration.scale(probabilities, t), labels=range(4)) for t in grid]
    assert log_loss(truth, calibration.scale(probabilities, found), labels=range(4)) <= min(losses) + 1e-9


def test_scale_keeps_order_and_zero_probabilities() -> None:
    probabilities = np.array([[0.0, 0.3, 0.7], [1.0, 0.0, 0.0]], np.float32)
    assert calibration.scale(probabilities, 1.0) == pytest.approx(probabilities, abs=1e-6)
    softer = calibration.scale(probabilities, 3.0)
    assert (softer.argsort(1)[:, -1] == probabilities.argmax(1)).all()
    assert softer.sum(1) == pytest.approx(1)
    assert np.isfinite(calibration.fit_temperature(np.array([1, 1]), probabilities))  # confident and wrong


def test_fit_threshold_nine_in_ten_benign_scores_are_below() -> None:
    scores = np.arange(1, 21) / 20
    found = calibration.fit_threshold(np.random.default_rng(0).permutation(scores))
    assert found == 0.9
    assert (scores <= found).mean() == 0.9
    tied = np.array([0.1] * 5 + [0.6] * 5)
    assert (tied <= calibration.fit_threshold(tied)).mean() >= 0.9


def test_apply_uses_each_models_own_threshold_and_temperature() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 3, 400)
    outputs = softmax(rng.normal(0, [[[1.0]], [[4.0]]], (2, 400, 3)) + 2 * np.eye(3)[truth], 2)
    malignant = np.array([True, False, False])
    calibrations = [calibration.calibrate(truth, probabilities, malignant) for probabilities in outputs]
    assert calibrations[0].temperature < calibrations[1].temperature
    found = calibration.apply(outputs, calibrations, malignant)
    assert found.alarms is not None
    specificity = 1 - found.alarms[:, truth != 0].mean(1)
    assert specificity == pytest.approx([0.9, 0.9], abs=0.005)
    assert found.scaled[1] == pytest.approx(calibration.scale(outputs[1], calibrations[1].temperature))
    none = [calibration.calibrate(truth, probabilities, np.zeros(3, bool)) for probabilities in outputs]
    assert calibration.apply(outputs, none, np.zeros(3, bool)).alarms is None
