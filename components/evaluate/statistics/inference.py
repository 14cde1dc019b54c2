"""Uncertainty of the metrics: resampling of lesions and seeds, intervals, paired tests, and the lesions needed."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import stats

from components.evaluate.statistics.metrics import MIN_PROBABILITY, SCALARS, Predictions, Sample, compute_metrics
from components.shared.records import Difference, McNemar

LEVEL = 0.05
"""Probability of a false alarm of each reported conclusion; 95 % intervals."""
DRAWS = 2_000
"""Bootstrap resamples."""
PERMUTATIONS = 10_000
EFFECT = 0.10
"""Difference in recall that `lesions_needed` is to detect."""
POWER = 0.80
MAX_VALUES = {"brier": 2.0, "balanced_log_loss": -math.log(MIN_PROBABILITY)}
"""Largest value of a metric if it is not 1; the smallest is 0."""
WITHOUT_INTERVAL = ("ece", "ece_scaled")
"""The plug-in estimate of the calibration error is biased upwards (Roelofs et al. 2022, arXiv 2012.08668): an interval
around it misses the truth."""


def _resample_lesions(sample: Sample, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Return (resamples, L) float32, how often each lesion counts.

    Lesions are resampled with replacement within their class (Davison & Hinkley 1997).
    """
    weights = np.empty((resamples, len(sample.label)), np.float32)
    for label in np.unique(sample.label):
        inside = np.flatnonzero(sample.label == label)
        weights[:, inside] = rng.multinomial(len(inside), np.full(len(inside), 1 / len(inside)), size=resamples)
    return weights


def _agresti_coull_pseudo_lesions(
    sample: Sample, arms: int, resamples: int, rng: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return for each arm the hits and images, (resamples, groups) each, of about two extra random lesions per group.

    Without them, a class whose lesions all have the same result would have an interval of zero width. Agresti & Coull
    (1998) and Agresti & Min (2005) add two observations to a proportion and to a difference of paired proportions.
    """
    lesions = np.maximum((sample.sums(sample.groups) > 0).sum(0), 1)
    size = sample.groups.sum(0) / lesions
    counts = rng.poisson(2.0, (resamples, len(size)))
    images = (counts * size).astype(np.float32)
    return [(rng.binomial(counts, 0.5) * size, images) for _ in range(arms)]


def _student(freedom: float, level: float) -> float:
    """Return half the width, in standard errors, of Student's interval that misses the truth with this probability."""
    return float(stats.t.ppf(1 - level / 2, freedom))


def _square_half_width(
    resampled: np.ndarray, freedom: float, seed_variance: float, seed_freedom: float, level: float
) -> float:
    """Return the square of an interval's half-width.

    Args:
        resampled: (seeds, resamples), over lesions.
        freedom: degrees of freedom of the lesions' part.
        seed_variance: variance between seeds.
        seed_freedom: its degrees of freedom.
        level: probability that the interval misses the truth.
    """
    seeds, square = len(resampled), _student(freedom, level) ** 2
    covariance = np.cov(resampled).reshape(seeds, seeds)
    width = square * float(covariance.mean())
    if seeds == 1:
        return width
    shared = float(covariance.sum() - np.trace(covariance)) / (seeds * (seeds - 1))
    return max(width, _student(seed_freedom, level) ** 2 * seed_variance / seeds + square * max(shared, 0.0))


class Bootstrap:
    """Metrics of arms for each seed, and their resamples.

    Each resample of lesions serves all arms and seeds, and each resample of seeds all arms, so differences are paired.

    Args:
        sample: the images.
        arms: predictions of each arm; all arms have the same seeds in the same order.
        rare: the classes of the primary figure.
        seed: seed of the resampling.
        resamples: number of resamples.

    Attributes:
        points: arm → metric → (seeds,) or (seeds, classes).
        resampled: arm → metric → (seeds, resamples) or (seeds, resamples, classes), over lesions.
    """

    def __init__(
        self, sample: Sample, arms: Mapping[str, Predictions], rare: tuple[str, ...], seed: int, resamples: int = DRAWS
    ) -> None:
        rng = np.random.default_rng(seed)
        weights = _resample_lesions(sample, resamples, rng)
        extra = _agresti_coull_pseudo_lesions(sample, len(arms), resamples, rng)
        self.sample, self.rare = sample, rare
        self.points: dict[str, dict[str, np.ndarray]] = {}
        self.resampled: dict[str, dict[str, np.ndarray]] = {}
        for (arm, predictions), more in zip(arms.items(), extra, strict=True):
            of_seeds = [predictions.of_seed(number) for number in range(len(predictions.probabilities))]
            points = [compute_metrics(sample, of_seed, rare) for of_seed in of_seeds]
            resampled = [compute_metrics(sample, of_seed, rare, weights, more) for of_seed in of_seeds]
            self.points[arm] = {name: np.stack([point[name][0] for point in points]) for name in points[0]}
            kept = (*SCALARS, "recall", "corrected", "auc")
            self.resampled[arm] = {name: np.stack([of_seed[name] for of_seed in resampled]) for name in kept}
            self._centre(arm)
        self.seeds = len(of_seeds)
        self._picks = rng.multinomial(self.seeds, np.full(self.seeds, 1 / self.seeds), size=resamples).T

    def _centre(self, arm: str) -> None:
        """Centre an arm's resamples on its metrics, except single shares, which the pseudo-lesions are meant to shift.

        They would shift a mean over classes too far.
        """
        points, resampled, sample = self.points[arm], self.resampled[arm], self.sample
        for name in ("macro_f1", "brier", "balanced_log_loss"):
            resampled[name] = resampled[name] + (points[name] - resampled[name].mean(1))[:, None]
        lesions = np.bincount(sample.label, minlength=len(sample.classes))
        widening = np.sqrt((lesions + 2) / np.maximum(lesions, 1))
        means = {"balanced_accuracy": "recall", "rare_recall": "recall", "corrected_recall": "corrected"}
        for name, of_class in (means | {"macro_auc": "auc"}).items():
            columns = self._classes(name)
            if len(columns):
                values = resampled[of_class]
                moves = (values - values.mean(1, keepdims=True)) * widening
                resampled[name] = points[name][:, None] + moves[..., columns].mean(2)

    def difference(
        self, name: str, arm: str, control: str | None = None, label: int | None = None, level: float = LEVEL
    ) -> Difference:
        """Return a metric of an arm, or its difference to the control's, with an interval.

        Lesions and seeds are crossed random effects (Obuchowski & Rockette 1995): the seeds' part of the variance comes
        from the metrics of the seeds, the lesions' part is the covariance between seeds that resampling lesions causes.
        Half-widths, each with its own t, add in squares (Zou & Donner 2008), and are at least what lesions alone give.
        The interval is the middle 95 % of the resamples of lesions and seeds, stretched to that width: alone it is too
        narrow with few seeds, and too wide if seeds and lesions interact.

        Args:
            name: name of a scalar metric, or `recall` with a label.
            arm, control: their names.
            label: label of the class.
            level: probability that the interval misses the truth.

        Returns:
            value, low, high; None if undefined, and no interval for `WITHOUT_INTERVAL`.
        """
        pick = (...,) if label is None else (..., label)
        points, resampled = self.points[arm][name][pick], self.resampled[arm][name][pick]
        recall = self.resampled[arm]["recall"]
        if control is not None:
            points = points - self.points[control][name][pick]
            resampled = resampled - self.resampled[control][name][pick]
            recall = recall - self.resampled[control]["recall"]
        if np.isnan(points).any():
            return Difference(value=None, low=None, high=None)
        value = float(points.mean())
        if name in WITHOUT_INTERVAL:
            return Difference(value=value, low=None, high=None)
        means = (self._picks * resampled).mean(0)
        spread = means.std(ddof=1)
        if not spread:
            return Difference(value=value, low=value, high=value)
        freedom = self._lesion_freedom(recall, self._classes(name, label))
        seeds_part = self._between_seeds(name, pick, arm, control) if self.seeds > 1 else (0.0, math.inf)
        width = _square_half_width(resampled, freedom, *seeds_part, level)
        # The shape comes from quantiles that this number of resamples determines well, the width from t.
        stretch = math.sqrt(width) / (stats.norm.ppf(0.975) * spread)
        low, high = value + stretch * (np.quantile(means, [0.025, 0.975]) - value)
        largest = MAX_VALUES.get(name, 1.0)
        smallest = 0.0 if control is None else -largest
        low, high = float(np.clip(low, smallest, value)), float(np.clip(high, value, largest))
        return Difference(value=value, low=low, high=high)

    def _between_seeds(self, name: str, pick: Any, arm: str, control: str | None) -> tuple[float, float]:
        """Return the variance between seeds of an arm's metric, or of its difference, and its degrees of freedom.

        The variance of a difference is the sum of both arms' variances, with the degrees of freedom of Welch (1947):
        arms may differ in how much the result depends on the seed. For one arm alone, the variance is pooled over all
        arms, since its own is determined by two or three values; it is its own if that is larger.
        """
        if control is not None:
            parts = np.array([self.points[each][name][pick].var(ddof=1) for each in (arm, control)])
            variance, squares = float(parts.sum()), float((parts**2).sum())
            return variance, (self.seeds - 1) * (variance**2 / squares if squares else 2)
        variances = np.array([of_arm[name][pick].var(ddof=1) for of_arm in self.points.values()])
        own, pooled = float(self.points[arm][name][pick].var(ddof=1)), float(variances.mean())
        return (own, self.seeds - 1) if own > pooled else (pooled, len(variances) * (self.seeds - 1))

    def seed_noise(self, name: str, label: int | None = None) -> tuple[float, float]:
        """Return the variance due to seeds of a mean difference of two arms in a metric, and its degrees of freedom.

        The variance is that of all arms together, which is less uncertain than that of two; the degrees of freedom are
        those of two arms that vary alike. With one seed it is unknown: 0 and infinity.

        Args:
            name: name of a scalar metric, or `recall` with a label.
            label: label of the class.
        """
        if self.seeds == 1:
            return 0.0, math.inf
        pick = (...,) if label is None else (..., label)
        variances = [float(of_arm[name][pick].var(ddof=1)) for of_arm in self.points.values()]
        return 2 * float(np.mean(variances)) / self.seeds, 2 * (self.seeds - 1)

    def _lesion_freedom(self, recall: np.ndarray, classes: np.ndarray) -> float:
        """Return the degrees of freedom of a variance over lesions that is a sum over classes (Satterthwaite 1946).

        The classes' parts come from the resamples of recall, (seeds, resamples, classes).
        """
        parts = recall[..., classes].mean(0).var(0, ddof=1)
        lesions = np.bincount(self.sample.label, minlength=len(self.sample.classes))[classes]
        return float(parts.sum() ** 2 / (parts**2 / (lesions + 1)).sum())

    def _classes(self, name: str, label: int | None = None) -> np.ndarray:
        """Return the labels that a metric averages over."""
        if label is not None:
            return np.array([label])
        chosen = self.sample.present
        if name in ("rare_recall", "corrected_recall"):
            chosen = chosen & np.isin(self.sample.classes, self.rare)
        elif name.startswith("malignant"):
            chosen = chosen & (self.sample.is_malignant == (name == "malignant_sensitivity"))
        return np.flatnonzero(chosen)


def find_correct_lesions(sample: Sample, probabilities: np.ndarray) -> np.ndarray:
    """Return (seeds, L) bool, which lesions are classified correctly; a lesion's prediction is the mean over images."""
    return np.stack([sample.sums(of_seed).argmax(1) == sample.label for of_seed in probabilities])


def sign_flip(differences: np.ndarray, seed: int) -> tuple[float, int]:
    """Return the two-sided p-value of paired differences under random signs (Fisher 1935).

    Args:
        differences: (L,) weighted differences.
        seed: seed of the random signs, used if there are too many arrangements.

    Returns:
        p, and the number of arrangements of signs: all 2^L, or `PERMUTATIONS` random ones.
    """
    moved = differences[differences != 0]
    if len(moved) < 2:
        return 1.0, 2 ** len(moved)
    arrangements = min(2 ** len(moved), PERMUTATIONS)
    test = stats.permutation_test(
        (moved,),
        lambda signed, axis: signed.sum(axis).round(12),  # sums that are equal except for rounding are ties
        permutation_type="samples",
        n_resamples=arrangements
        if arrangements < PERMUTATIONS
        else PERMUTATIONS - 1,  # plus the arrangement of the data
        vectorized=True,
        batch=max(1, 2_000_000 // len(moved)),
        rng=np.random.default_rng(seed),
    )
    return float(test.pvalue), arrangements


def mcnemar(differences: np.ndarray) -> McNemar:
    """Return the lesions gained and lost, and the p-value of McNemar's exact test, which assumes one seed.

    Args:
        differences: (L,), above 0 if the arm was right in more seeds than its control.
    """
    gained, lost = int((differences > 0).sum()), int((differences < 0).sum())
    p = float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return McNemar(lesions_gained=gained, lesions_lost=lost, p=p)


def holm(p_values: list[float]) -> list[float]:
    """Return p-values adjusted for their number (Holm 1979), in the given order."""
    order = np.argsort(p_values)
    stepped = np.asarray(p_values)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return adjusted.tolist()


def lesions_needed(differences: np.ndarray, seed_variance: float = 0.0, seed_freedom: float = math.inf) -> int | None:
    """Return the number of lesions needed to detect a difference in recall of `EFFECT` with `POWER` at the 5 % level.

    The assumed disagreement between the arms is the observed one: the mean square of the lesions' differences, which
    for one seed is the share of lesions on which the arms disagree. It is at least `EFFECT`, which a difference of this
    size requires. If no disagreement was observed, its upper limit is assumed: 3 / L (the rule of three), at most ½.
    For one seed this is Connor's formula (1987). With several seeds, the variance due to the seeds does not shrink
    with more lesions.

    Args:
        differences: (L,) differences of the class's lesions, L ≥ 1, means over the seeds.
        seed_variance: variance due to seeds of the mean difference in recall.
        seed_freedom: its degrees of freedom.

    Returns:
        The number, or None if no number of lesions suffices: more seeds are needed.
    """
    observed = float((differences**2).mean()) or min(0.5, 3 / len(differences))
    disagree = max(observed, EFFECT)
    alpha, beta = stats.norm.ppf(0.975), stats.norm.ppf(POWER)
    if not seed_variance:
        root = alpha * math.sqrt(disagree) + beta * math.sqrt(disagree - EFFECT**2)
        return math.ceil((root / EFFECT) ** 2)
    errors = float(stats.t.ppf(0.975, seed_freedom) + stats.t.ppf(POWER, seed_freedom))
    left = (EFFECT / errors) ** 2 - seed_variance
    return math.ceil(disagree / left) if left > 0 and disagree / left < 1e6 else None
