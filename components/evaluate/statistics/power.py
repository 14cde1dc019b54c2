"""Effect that a planned run can detect: a model of what `Bootstrap.difference` and `decide_verdict` will do.

The variance of a difference in recall has a part that more lesions reduce and a part that more seeds reduce, as the
intervals of `inference` have. Their sizes are assumptions, those of a recall of .6 in `benchmarks/coverage.py`, whose
mean widths the model reproduces to 10 %.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from components.evaluate.statistics.inference import LEVEL, POWER, lesions_needed

TRAINING_DEVIATION = 0.08
"""Standard deviation of a class's recall from one training to the next."""
DISAGREEMENT = 0.32
"""Share of lesions that a model of one arm classifies correctly and a model of another arm does not, or the reverse."""
LASTING_DISAGREEMENT = 0.05
"""The part of it that is the same for all seeds: the variance of the lesions' differences, means over many seeds."""
TRIALS = 20_000
_SEED = 1


@dataclass(frozen=True)
class Design:
    """What the certainty of a difference between two arms depends on.

    Attributes:
        lesions: number of test lesions of each class of the mean, at least 1 each.
        seeds: number of classifiers of each arm, in each fold.
        comparisons: number of differences that the interval is corrected for.
        folds: number of folds that are pooled, each with separate models.
    """

    lesions: tuple[int, ...]
    seeds: int
    comparisons: int = 1
    folds: int = 1

    @property
    def seed_variance(self) -> float:
        """Variance between seeds of the mean difference in recall."""
        training = 2 * TRAINING_DEVIATION**2 / self.folds
        passing = DISAGREEMENT - LASTING_DISAGREEMENT
        return sum(training + passing / lesions for lesions in self.lesions) / len(self.lesions) ** 2

    @property
    def lesion_variance(self) -> float:
        """Variance of the mean difference in recall that remains with any number of seeds."""
        return sum(LASTING_DISAGREEMENT / lesions for lesions in self.lesions) / len(self.lesions) ** 2


def _lesion_part(design: Design) -> tuple[float, float]:
    """Return the lesions' variance as the interval states it, with about two pseudo-lesions, and its freedom."""
    # The second term: two random results in each of the two arms, with a variance of ¼ each.
    parts = [LASTING_DISAGREEMENT / (lesions + 2) + 1 / (lesions * (lesions + 2)) for lesions in design.lesions]
    freedom = sum(parts) ** 2 / sum(
        part**2 / (lesions + 1) for part, lesions in zip(parts, design.lesions, strict=True)
    )
    return sum(parts) / len(parts) ** 2, freedom


def _half_widths(design: Design, rng: np.random.Generator) -> np.ndarray:
    """Return (TRIALS,) half-widths of the interval; they vary because the variance between seeds is estimated."""
    level, freedom = LEVEL / design.comparisons, design.seeds - 1
    parts = rng.chisquare(freedom, (2, TRIALS)) / freedom / 2  # of both arms; their true sum is 1
    variance = parts.sum(0) * design.seed_variance / design.seeds
    student = stats.t.ppf(1 - level / 2, freedom * parts.sum(0) ** 2 / (parts**2).sum(0))
    lesion_variance, lesion_freedom = _lesion_part(design)
    return np.asarray(
        np.sqrt(student**2 * variance + stats.t.ppf(1 - level / 2, lesion_freedom) ** 2 * lesion_variance)
    )


def detectable_effect(design: Design) -> float | None:
    """Return the true effect whose interval excludes zero with a probability of `POWER`.

    Returns:
        The effect, or None: with one seed no effect is established, and no difference in recall exceeds 1.

    Example:
        >>> round(detectable_effect(Design((34, 49, 109, 11, 92, 15), seeds=5)), 2)
        0.11
    """
    if design.seeds < 2 or not design.lesions or not all(design.lesions):
        return None
    rng = np.random.default_rng(_SEED)
    deviation = math.sqrt(design.seed_variance / design.seeds + design.lesion_variance)
    needed = _half_widths(design, rng) - rng.normal(0, deviation, TRIALS)
    effect = float(np.quantile(needed, POWER))
    return effect if effect < 1 else None


def needed_lesions(design: Design) -> int | None:
    """Return the number of test lesions of one class that detect a difference of .10; None if it takes more seeds.

    Args:
        design: has one class, whose number of lesions does not matter.
    """
    if design.seeds < 2:
        return None
    differences = LASTING_DISAGREEMENT + (DISAGREEMENT - LASTING_DISAGREEMENT) / design.seeds
    training = 2 * TRAINING_DEVIATION**2 / design.folds / design.seeds
    return lesions_needed(np.array([math.sqrt(differences)]), training, 2 * (design.seeds - 1))
