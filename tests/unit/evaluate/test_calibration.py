"""Temperature and threshold, against a grid search and cases with a known answer."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import log_loss

from components.evaluate.statistics import calibration
from components.evaluate.statistics.metrics import balanced_log_loss


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
    frequencies = np.array([0.2, 0.3, 0.5])
    fitted = calibration.calibrate_arm(truth, outputs, malignant, frequencies)
    calibrations = fitted.models
    assert calibrations[0].temperature < calibrations[1].temperature
    found = calibration.apply(outputs, fitted, malignant)
    assert found.alarms is not None
    specificity = 1 - found.alarms[:, truth != 0].mean(1)
    assert specificity == pytest.approx([0.9, 0.9], abs=0.005)
    assert found.scaled[1] == pytest.approx(calibration.scale(outputs[1], calibrations[1].temperature))
    none = calibration.calibrate_arm(truth, outputs, np.zeros(3, bool), frequencies)
    assert calibration.apply(outputs, none, np.zeros(3, bool)).alarms is None


def test_fit_prior_strength_finds_the_shift_between_training_and_validation() -> None:
    """A perfect model of a training set of other class frequencies needs the full correction on a balanced sample."""
    rng = np.random.default_rng(3)
    frequencies = np.array([0.8, 0.15, 0.05])
    truth = np.repeat([0, 1, 2], 2_000)
    x = rng.normal(0, 1, (len(truth), 3)) + np.eye(3)[truth]  # likelihood ratio of class c: exp(x_c) up to a constant
    likelihood = np.exp(x)
    skewed = likelihood * frequencies / (likelihood * frequencies).sum(1, keepdims=True)
    balanced = likelihood / likelihood.sum(1, keepdims=True)
    assert calibration.correct_prior(skewed, frequencies, 1.0) == pytest.approx(balanced)
    assert calibration.correct_prior(skewed, frequencies, 0.0) == pytest.approx(skewed)
    assert calibration.fit_prior_strength(truth, skewed[None], frequencies) == pytest.approx(1.0, abs=0.1)
    assert calibration.fit_prior_strength(truth, balanced[None], frequencies) == pytest.approx(0.0, abs=0.1)


def test_calibrate_arm_log_loss_is_the_mean_over_classes() -> None:
    probabilities = np.array([[[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]])
    fitted = calibration.calibrate_arm(np.array([0, 0, 1]), probabilities, np.zeros(2, bool), np.array([0.5, 0.5]))
    assert fitted.log_loss == pytest.approx(np.log(2))
    assert balanced_log_loss(np.array([0, 0, 1]), np.array([[0.9, 0.1], [0.6, 0.4], [0.8, 0.2]])) == pytest.approx(
        -(np.log(0.9) / 2 + np.log(0.6) / 2 + np.log(0.2)) / 2
    )
