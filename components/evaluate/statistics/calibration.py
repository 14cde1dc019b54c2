"""Temperature, threshold and prior correction, and the loss by which arms are chosen: all fitted on validation."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from components.evaluate.statistics.metrics import MIN_PROBABILITY, Predictions, balanced_log_loss

SPECIFICITY = 0.90
PRIOR_STRENGTHS = np.linspace(0, 1, 21)


def scale(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return (N, classes) probabilities after temperature scaling; a temperature above 1 makes them less confident."""
    return special.softmax(np.log(np.maximum(probabilities, MIN_PROBABILITY)) / temperature, axis=1)


def fit_temperature(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the temperature in [0.05, 20] with the least negative log-likelihood (Guo et al. 2017, arXiv 1706.04599).

    Args:
        truth: (N,) int label.
        probabilities: (N, classes).
    """
    logs = np.log(np.maximum(np.asarray(probabilities, np.float64), MIN_PROBABILITY))

    def loss(log_temperature: float) -> float:
        scaled = logs / np.exp(log_temperature)
        return float((special.logsumexp(scaled, axis=1) - scaled[np.arange(len(truth)), truth]).mean())

    optimum = optimize.minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded")
    return float(np.exp(optimum.x))


def fit_threshold(benign_scores: np.ndarray) -> float:
    """Return the smallest score with at least 90 % of the benign images at or below it; higher scores are malignant."""
    return float(np.quantile(benign_scores, SPECIFICITY, method="inverted_cdf"))


@dataclass(frozen=True)
class Calibration:
    """Values fitted on validation for one model.

    Attributes:
        temperature: temperature of the scaling.
        threshold: a summed probability of the malignant classes above it counts as malignant; None if validation has no
            benign image or the data no malignant class.
    """

    temperature: float
    threshold: float | None


def correct_prior(probabilities: np.ndarray, frequencies: np.ndarray, strength: float) -> np.ndarray:
    """Return (…, classes) probabilities divided by a power of the classes' frequencies, with a sum of 1.

    Args:
        probabilities: (…, classes).
        frequencies: (classes,) shares of the classes among the real training images, above 0.
        strength: the power: 0 changes nothing, 1 makes the classes equally frequent (Saerens et al. 2002).
    """
    divided = probabilities / frequencies**strength
    return divided / divided.sum(-1, keepdims=True)


def fit_prior_strength(truth: np.ndarray, scaled: np.ndarray, frequencies: np.ndarray) -> float:
    """Return the strength of the prior correction of an arm with the lowest balanced log loss.

    Args:
        truth: (N,) int label of the validation images.
        scaled: (seeds, N, classes) probabilities after temperature scaling.
        frequencies: (classes,); see `correct_prior`.
    """
    losses = [
        np.mean([balanced_log_loss(truth, of_seed) for of_seed in correct_prior(scaled, frequencies, strength)])
        for strength in PRIOR_STRENGTHS
    ]
    return float(PRIOR_STRENGTHS[int(np.argmin(losses))])


@dataclass(frozen=True)
class ArmCalibration:
    """Everything that is fitted on validation for an arm.

    Attributes:
        models: temperature and threshold of each seed's model.
        frequencies: (classes,) shares of the classes among the real training images.
        prior_strength: strength of the prior correction, one for all seeds.
        log_loss: balanced log loss on validation after temperature scaling, mean over seeds; arms are chosen by it.
    """

    models: tuple[Calibration, ...]
    frequencies: np.ndarray
    prior_strength: float
    log_loss: float


def _scale_all(probabilities: np.ndarray, models: Sequence[Calibration]) -> np.ndarray:
    """Return (seeds, N, classes) probabilities, each seed's scaled with the temperature of its model."""
    return np.stack([scale(of_seed, model.temperature) for of_seed, model in zip(probabilities, models, strict=True)])


def calibrate_arm(
    truth: np.ndarray, probabilities: np.ndarray, malignant: np.ndarray, frequencies: np.ndarray
) -> ArmCalibration:
    """Fit an arm's models on validation.

    Args:
        truth: (N,) int label.
        probabilities: (seeds, N, classes).
        malignant: (classes,) bool.
        frequencies: (classes,) shares of the classes among the real training images, above 0.
    """
    models = tuple(calibrate(truth, of_seed, malignant) for of_seed in probabilities)
    scaled = _scale_all(probabilities, models)
    strength = fit_prior_strength(truth, scaled, frequencies)
    loss = float(np.mean([balanced_log_loss(truth, of_seed) for of_seed in scaled]))
    return ArmCalibration(models, frequencies, strength, loss)


def calibrate(truth: np.ndarray, probabilities: np.ndarray, malignant: np.ndarray) -> Calibration:
    """Fit temperature and threshold of a model on validation.

    Args:
        truth: (N,) int label.
        probabilities: (N, classes).
        malignant: (classes,) bool.
    """
    benign = ~malignant[truth]
    scores = probabilities[benign][:, malignant].sum(1)
    threshold = fit_threshold(scores) if malignant.any() and benign.any() else None
    return Calibration(fit_temperature(truth, probabilities), threshold)


def apply(probabilities: np.ndarray, calibration: ArmCalibration, malignant: np.ndarray) -> Predictions:
    """Return the predictions for other images, with everything fitted on validation.

    Args:
        probabilities: (seeds, N, classes).
        calibration: that of the arm.
        malignant: (classes,) bool.
    """
    scaled = _scale_all(probabilities, calibration.models)
    corrected = correct_prior(scaled, calibration.frequencies, calibration.prior_strength).argmax(2)
    thresholds = [model.threshold for model in calibration.models]
    alarms = None
    if None not in thresholds:
        alarms = probabilities[..., malignant].sum(2) > np.array(thresholds)[:, None]
    return Predictions(probabilities, scaled, alarms, corrected)
