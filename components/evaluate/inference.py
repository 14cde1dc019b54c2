"""How sure the figures are: draws of lesions and seeds, intervals, paired tests, and how many lesions it would take."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import stats

from components.evaluate.metrics import SCALARS, Predictions, Sample, figures

DRAWS = 2_000
PERMUTATIONS = 10_000
EFFECT = 0.10
POWER = 0.80
RANGES = {"brier": 2.0}
"""The largest value of a figure where it is not 1; the least is 0."""


def _draw_lesions(sample: Sample, draws: int, rng: np.random.Generator) -> np.ndarray:
    """(draws, L) float32, how often each lesion was drawn, with replacement within its class (Davison & Hinkley
    1997)."""
    weights = np.empty((draws, len(sample.label)), np.float32)
    for label in np.unique(sample.label):
        inside = np.flatnonzero(sample.label == label)
        weights[:, inside] = rng.multinomial(len(inside), np.full(len(inside), 1 / len(inside)), size=draws)
    return weights


def _two_more(sample: Sample, arms: int, draws: int, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each arm, hits and images, (draws, groups) each, of about two more lesions in every group, on which the arms
    do as chance will.

    Without them a class whose dozen lesions all went one way would have an interval without width. Two, because for
    one share and for the difference of two paired ones that is what Agresti & Coull (1998) and Agresti & Min (2005)
    add.
    """
    lesions = np.maximum((sample.sums(sample.groups) > 0).sum(0), 1)
    size = sample.groups.sum(0) / lesions
    patterns = np.arange(2**arms)
    drawn = rng.poisson(2 / len(patterns), (draws, len(size), len(patterns)))
    images = (drawn.sum(2) * size).astype(np.float32)
    return [((drawn @ (patterns >> arm & 1)) * size, images) for arm in range(arms)]


def _student(freedom: float) -> float:
    """Half of Student's 95 % interval, in standard errors."""
    return float(stats.t.ppf(0.975, freedom))


class Bootstrap:
    """The figures of arms, one for each seed, with their draws; each draw of lesions serves all arms and seeds, and
    each draw of seeds all arms, so that differences are paired.

    Args:
        sample: the images.
        arms: what each arm says of them; all have the same seeds in the same order.
        rare: the classes of the primary figure.
        seed: of the draws.
        draws: how many.

    Attributes:
        points: arm → figure → (seeds,) or (seeds, classes).
        drawn: arm → figure → (seeds, draws) or (seeds, draws, classes), over lesions.
    """

    def __init__(
        self, sample: Sample, arms: Mapping[str, Predictions], rare: tuple[str, ...], seed: int, draws: int = DRAWS
    ) -> None:
        rng = np.random.default_rng(seed)
        weights = _draw_lesions(sample, draws, rng)
        extra = _two_more(sample, len(arms), draws, rng)
        self.sample, self.rare = sample, rare
        self.points: dict[str, dict[str, np.ndarray]] = {}
        self.drawn: dict[str, dict[str, np.ndarray]] = {}
        for (arm, said), more in zip(arms.items(), extra, strict=True):
            each = [
                (sample, said.probabilities[number], said.scaled[number], alarms, rare)
                for number in range(len(said.probabilities))
                for alarms in [None if said.alarms is None else said.alarms[number]]
            ]
            points, drawn = [figures(*one) for one in each], [figures(*one, weights, more) for one in each]
            self.points[arm] = {name: np.stack([point[name][0] for point in points]) for name in points[0]}
            self.drawn[arm] = {name: np.stack([lot[name] for lot in drawn]) for name in (*SCALARS, "recall")}
            self._centre(arm)
        seeds = len(each)
        self._picks = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws).T

    def _centre(self, arm: str) -> None:
        """Puts the middle of an arm's draws where its figure is, but for single shares, which the two lesions more are
        to move: a mean over classes they would move too far, and a calibration error grows with drawing."""
        points, drawn, sample = self.points[arm], self.drawn[arm], self.sample
        for name in ("macro_f1", "macro_auc", "brier", "ece", "ece_scaled"):
            drawn[name] = drawn[name] + (points[name] - drawn[name].mean(1))[:, None]
        lesions = np.bincount(sample.label, minlength=len(sample.classes))
        moves = (drawn["recall"] - drawn["recall"].mean(1, keepdims=True)) * np.sqrt(
            (lesions + 2) / np.maximum(lesions, 1)
        )
        for name in ("balanced_accuracy", "rare_recall"):
            columns = self._classes(name)
            if len(columns):
                drawn[name] = points[name][:, None] + moves[..., columns].mean(2)

    def difference(self, name: str, arm: str, control: str | None = None, label: int | None = None) -> dict[str, Any]:
        """A figure of an arm, or what it is more than the control's, with its 95 % interval.

        Lesions and seeds are crossed random effects (Obuchowski & Rockette 1995): the seeds' part of the variance comes
        from the figures of all arms, the lesions' part is the covariance between seeds that drawing lesions causes.
        Half-widths, each with its own t, add in squares (Zou & Donner 2008), and are at least what lesions alone give.
        The interval is the middle 95 % of the draws of lesions and seeds, stretched to that width: alone it is too
        narrow where there are few seeds, and too wide where seeds and lesions interact.

        Args:
            name: of a scalar, or `recall` with a label.
            arm, control: their names.
            label: of the class.

        Returns:
            value, low, high; None where it can't be said.
        """
        pick = (...,) if label is None else (..., label)
        points, drawn = self.points[arm][name][pick], self.drawn[arm][name][pick]
        recall = self.drawn[arm]["recall"]
        if control is not None:
            points, drawn = points - self.points[control][name][pick], drawn - self.drawn[control][name][pick]
            recall = recall - self.drawn[control]["recall"]
        if np.isnan(points).any():
            return {"value": None, "low": None, "high": None}
        seeds, value = len(points), float(points.mean())
        lots = (self._picks * drawn).mean(0)
        spread = lots.std(ddof=1)
        if not spread:
            return {"value": value, "low": value, "high": value}
        covariance = np.cov(drawn).reshape(seeds, seeds)
        square = _student(self._lesion_freedom(recall, self._classes(name, label))) ** 2
        width = square * covariance.mean()
        if seeds > 1:
            shared = (covariance.sum() - np.trace(covariance)) / (seeds * (seeds - 1))
            variance, freedom = self._between_seeds(name, pick, paired=control is not None)
            variance = max(variance, float(points.var(ddof=1)))  # should these arms differ more than the others
            width = max(width, _student(freedom) ** 2 * variance / seeds + square * max(shared, 0.0))
        stretch = math.sqrt(width) / (stats.norm.ppf(0.975) * spread)
        low, high = value + stretch * (np.percentile(lots, [2.5, 97.5]) - value)
        most = RANGES.get(name, 1.0)
        least = 0.0 if control is None else -most
        return {"value": value, "low": float(np.clip(low, least, value)), "high": float(np.clip(high, value, most))}

    def _between_seeds(self, name: str, pick: Any, paired: bool) -> tuple[float, int]:
        """The variance of a figure between seeds, or of the difference of two arms that share their seeds, and its
        degrees of freedom. All arms together: two or three seeds of one alone would say next to nothing."""
        values = np.stack([points[name][pick] for points in self.points.values()])
        arms, seeds = values.shape
        if not paired:
            return float(values.var(axis=1, ddof=1).mean()), arms * (seeds - 1)
        rest = values - values.mean(1, keepdims=True) - values.mean(0) + values.mean()
        freedom = (arms - 1) * (seeds - 1)
        return 2 * float((rest**2).sum()) / freedom, freedom

    def _lesion_freedom(self, recall: np.ndarray, classes: np.ndarray) -> float:
        """Degrees of freedom of a variance over lesions that is a sum over classes (Satterthwaite 1946), the classes'
        parts taken from the draws of recall, (seeds, draws, classes)."""
        parts = recall[..., classes].mean(0).var(0, ddof=1)
        lesions = np.bincount(self.sample.label, minlength=len(self.sample.classes))[classes]
        return float(parts.sum() ** 2 / (parts**2 / (lesions + 1)).sum())

    def _classes(self, name: str, label: int | None = None) -> np.ndarray:
        """The labels that a figure is an average over."""
        if label is not None:
            return np.array([label])
        chosen = self.sample.present
        if name == "rare_recall":
            chosen = chosen & np.isin(self.sample.classes, self.rare)
        elif name.startswith("malignant"):
            chosen = chosen & (self.sample.is_malignant == (name == "malignant_sensitivity"))
        return np.flatnonzero(chosen)


def lesions_right(sample: Sample, probabilities: np.ndarray) -> np.ndarray:
    """(seeds, L) bool, which lesions are named right; a lesion's prediction is the mean over its images."""
    return np.stack([sample.sums(one).argmax(1) == sample.label for one in probabilities])


def sign_flip(differences: np.ndarray, seed: int) -> tuple[float, int]:
    """Two-sided p value of paired differences whose sum is 0 but for chance, if either sign was as likely (Fisher
    1935).

    Args:
        differences: (L,) weighted differences.
        seed: of the draws where all signs are too many.

    Returns:
        p, and how many arrangements of signs it rests on: all 2^L, or `PERMUTATIONS` drawn ones.
    """
    moved = differences[differences != 0]
    if len(moved) < 2:
        return 1.0, 2 ** len(moved)
    draws = min(2 ** len(moved), PERMUTATIONS)
    found = stats.permutation_test(
        (moved,),
        lambda signed, axis: signed.sum(axis).round(12),  # sums that are equal but for rounding are ties
        permutation_type="samples",
        n_resamples=draws if draws < PERMUTATIONS else PERMUTATIONS - 1,  # the data's own arrangement is one, too
        vectorized=True,
        batch=max(1, 2_000_000 // len(moved)),
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue), draws


def mcnemar(differences: np.ndarray) -> dict[str, Any]:
    """McNemar's exact test; over several seeds the sign test of the mean differences.

    Args:
        differences: (L,), above 0 where the arm was right in more seeds than its control.
    """
    gained, lost = int((differences > 0).sum()), int((differences < 0).sum())
    p = float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return {"lesions_gained": gained, "lesions_lost": lost, "p": p}


def holm(p_values: list[float]) -> list[float]:
    """p values adjusted for their number (Holm 1979), in the given order."""
    order = np.argsort(p_values)
    stepped = np.asarray(p_values)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return adjusted.tolist()


def lesions_needed(differences: np.ndarray) -> int:
    """Lesions that a paired test at 5 % needs to show a difference in recall of EFFECT with POWER (Connor 1987).

    It assumes as much disagreement between the arms as was seen (the mean square of the lesions' differences; for one
    seed the share of lesions on which the arms disagree), at least EFFECT, without which there can be no such
    difference; where none was seen, the most that this can hide, 3 / L (the rule of three), at most ½.

    Args:
        differences: (L,) of the class's lesions, L at least 1.
    """
    seen = float((differences**2).mean()) or min(0.5, 3 / len(differences))
    disagree = max(seen, EFFECT)
    alpha, beta = stats.norm.ppf(0.975), stats.norm.ppf(POWER)
    root = alpha * math.sqrt(disagree) + beta * math.sqrt(disagree - EFFECT**2)
    return math.ceil((root / EFFECT) ** 2)
