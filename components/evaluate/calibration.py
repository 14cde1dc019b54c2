"""What is fixed on validation before the test split is looked at: each model's temperature and its threshold."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from components.evaluate.metrics import Predictions

SPECIFICITY = 0.90
_SMALLEST = 1e-12
"""Below this a probability is taken for this: a float32 softmax may say 0, whose logarithm no temperature can mend."""


def scale(chances: np.ndarray, temperature: float) -> np.ndarray:
    """(N, classes) probabilities after temperature scaling; 1 leaves them as they are, more makes them less sure."""
    return special.softmax(np.log(np.maximum(chances, _SMALLEST)) / temperature, axis=1)


def temperature(truth: np.ndarray, chances: np.ndarray) -> float:
    """The temperature in [0.05, 20] with the least negative log-likelihood (Guo et al. 2017).

    Args:
        truth: (N,) int label.
        chances: (N, classes) probabilities.
    """
    logs = np.log(np.maximum(np.asarray(chances, np.float64), _SMALLEST))

    def loss(log_temperature: float) -> float:
        scaled = logs / np.exp(log_temperature)
        return float((special.logsumexp(scaled, axis=1) - scaled[np.arange(len(truth)), truth]).mean())

    found = optimize.minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded")
    return float(np.exp(found.x))


def threshold(benign_scores: np.ndarray) -> float:
    """The least score such that 90 % of the benign images lie at or below it; what lies above is called malignant."""
    return float(np.quantile(benign_scores, SPECIFICITY, method="inverted_cdf"))


@dataclass(frozen=True)
class Fixed:
    """What validation decides for one model.

    Attributes:
        temperature: of its scaling.
        threshold: above it the malignant classes' summed probability counts as malignant; None where validation has
            no benign image or the data no malignant class.
    """

    temperature: float
    threshold: float | None


def fix(truth: np.ndarray, chances: np.ndarray, malignant: np.ndarray) -> Fixed:
    """Decides on validation.

    Args:
        truth: (N,) int label.
        chances: (N, classes) probabilities.
        malignant: (classes,) bool.
    """
    benign = ~malignant[truth]
    decided = threshold(chances[benign][:, malignant].sum(1)) if malignant.any() and benign.any() else None
    return Fixed(temperature(truth, chances), decided)


def apply(chances: np.ndarray, fixed: Sequence[Fixed], malignant: np.ndarray) -> Predictions:
    """What models say of other images, with what validation decided.

    Args:
        chances: (seeds, N, classes) probabilities.
        fixed: one a seed.
        malignant: (classes,) bool.
    """
    scaled = np.stack([scale(one, model.temperature) for one, model in zip(chances, fixed, strict=True)])
    thresholds = [model.threshold for model in fixed]
    if None in thresholds:
        return Predictions(chances, scaled)
    return Predictions(chances, scaled, chances[..., malignant].sum(2) > np.array(thresholds)[:, None])
