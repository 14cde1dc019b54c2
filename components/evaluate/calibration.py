"""Temperature and threshold of each model, fitted on validation before the test split is used."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from components.evaluate.metrics import Predictions

SPECIFICITY = 0.90
_MIN_PROBABILITY = 1e-12
"""Smaller probabilities count as this: a float32 softmax may return 0, whose logarithm cannot be scaled."""


def scale(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return (N, classes) probabilities after temperature scaling; a temperature above 1 makes them less confident."""
    return special.softmax(np.log(np.maximum(probabilities, _MIN_PROBABILITY)) / temperature, axis=1)


def fit_temperature(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the temperature in [0.05, 20] with the least negative log-likelihood (Guo et al. 2017, arXiv 1706.04599).

    Args:
        truth: (N,) int label.
        probabilities: (N, classes).
    """
    logs = np.log(np.maximum(np.asarray(probabilities, np.float64), _MIN_PROBABILITY))

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


def apply(probabilities: np.ndarray, calibrations: Sequence[Calibration], malignant: np.ndarray) -> Predictions:
    """Return the predictions for other images, with temperature and threshold from validation.

    Args:
        probabilities: (seeds, N, classes).
        calibrations: one per seed.
        malignant: (classes,) bool.
    """
    scaled = np.stack(
        [scale(of_seed, model.temperature) for of_seed, model in zip(probabilities, calibrations, strict=True)]
    )
    thresholds = [model.threshold for model in calibrations]
    if None in thresholds:
        return Predictions(probabilities, scaled)
    return Predictions(probabilities, scaled, probabilities[..., malignant].sum(2) > np.array(thresholds)[:, None])
