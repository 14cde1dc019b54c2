"""What is measured of one model's predictions, over the images as they are or over many weightings of their lesions at
once: a figure and its 2,000 bootstrap draws come from the same code.

Every figure is made of sums over lesions, and AUC of sums over pairs of them, so that all draws are products of
matrices.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

BINS = 15
"""Of the expected calibration error, of equal width (Guo et al. 2017)."""
SCALARS = (
    "accuracy", "balanced_accuracy", "rare_recall", "macro_f1", "macro_auc", "malignant_sensitivity",
    "malignant_specificity", "brier", "ece", "ece_scaled",
)  # fmt: skip
CHUNK = 4_000_000
"""Pairs of images in memory at a time, where AUC is counted."""


@dataclass(frozen=True)
class Sample:
    """The images that arms are judged on, and the lesions that they show.

    Attributes:
        truth: (N,) int label.
        lesion: (N,) lesion id.
        classes: names of the labels; some may have no image here.
        malignant: those of them whose sensitivity as a group is measured.
    """

    truth: np.ndarray
    lesion: np.ndarray
    classes: tuple[str, ...]
    malignant: tuple[str, ...] = ()

    @cached_property
    def _lesions(self) -> tuple[np.ndarray, np.ndarray]:
        """(L,) label of each lesion, sorted, and (N,) the lesion's number of each image."""
        _, ids = np.unique(self.lesion, return_inverse=True)
        pairs, number = np.unique(np.stack([self.truth, ids]), axis=1, return_inverse=True)
        return pairs[0], number.reshape(-1)

    @property
    def label(self) -> np.ndarray:
        """(L,) label of each lesion; lesions of a class stand together."""
        return self._lesions[0]

    @property
    def number(self) -> np.ndarray:
        """(N,) which lesion each image shows."""
        return self._lesions[1]

    @cached_property
    def images(self) -> np.ndarray:
        """(L,) images of each lesion."""
        return np.bincount(self.number, minlength=len(self.label))

    @cached_property
    def present(self) -> np.ndarray:
        """(classes,) bool, which have images."""
        return np.bincount(self.truth, minlength=len(self.classes)) > 0

    @cached_property
    def is_malignant(self) -> np.ndarray:
        """(classes,) bool."""
        return np.isin(self.classes, self.malignant)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """(L, K) sums over each lesion's images of (N, K) values."""
        shape = (len(self.label), len(self.truth))
        return sparse.csr_array((np.ones(shape[1]), (self.number, np.arange(shape[1]))), shape) @ values

    @cached_property
    def groups(self) -> np.ndarray:
        """(N, classes + 3) which images each share is a share of: those of each class, all, malignant, benign."""
        of_class = np.eye(len(self.classes))[self.truth]
        bad = self.is_malignant[self.truth]
        return np.column_stack([of_class, np.ones(len(bad)), bad, ~bad])


@dataclass(frozen=True)
class Predictions:
    """What one arm says of a sample's images.

    Attributes:
        probabilities: (seeds, N, classes) probabilities.
        scaled: the same after each model's temperature scaling.
        alarms: (seeds, N) bool, whether an image counts as malignant at each model's own threshold; None where the
            data has no malignant class.
    """

    probabilities: np.ndarray
    scaled: np.ndarray
    alarms: np.ndarray | None = None


def _gaps(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(N, BINS) confidence less correctness in the bin of each image's confidence, 0 elsewhere."""
    confidence = probabilities.max(1)
    gaps = np.zeros((len(truth), BINS))
    gaps[np.arange(len(truth)), bin_of(confidence)] = confidence - (probabilities.argmax(1) == truth)
    return gaps


def bin_of(confidence: np.ndarray) -> np.ndarray:
    """The bin, 0 to BINS − 1, of each confidence in [0, 1]; a bin holds its upper edge."""
    return np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)


def _auc(scores: np.ndarray, positive: np.ndarray, sample: Sample, weights: np.ndarray) -> np.ndarray:
    """(draws,) area under the ROC curve: the share of pairs of a positive and a negative image that are ordered right,
    ties counting half (Hanley & McNeil 1982); a pair counts as often as both of its lesions were drawn.

    Args:
        scores, positive: (N,) and (N,) bool.
        sample: the images.
        weights: (draws, L) of its lesions.
    """
    mine, others = np.flatnonzero(positive), np.flatnonzero(~positive)
    mine, others = (rows[np.argsort(sample.number[rows], kind="stable")] for rows in (mine, others))
    lesions, starts = np.unique(sample.number[others], return_index=True)
    right = np.zeros(len(weights), weights.dtype)
    for part in np.array_split(mine, math.ceil(len(mine) * len(others) / CHUNK)):
        above = scores[part, None] > scores[others]
        pairs = above + 0.5 * (scores[part, None] == scores[others])
        own, first = np.unique(sample.number[part], return_index=True)
        pairs = np.add.reduceat(np.add.reduceat(pairs, starts, axis=1), first, axis=0).astype(weights.dtype)
        right += np.einsum("ij,ij->i", weights[:, own] @ pairs, weights[:, lesions])
    return right / (weights @ sample.sums(positive[:, None])[:, 0] * (weights @ sample.sums(~positive[:, None])[:, 0]))


def figures(
    sample: Sample,
    probabilities: np.ndarray,
    scaled: np.ndarray,
    alarms: np.ndarray | None,
    rare: tuple[str, ...],
    weights: np.ndarray | None = None,
    extra: tuple[np.ndarray, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """All figures of one model, once for each weighting of the lesions.

    Args:
        sample: the images.
        probabilities, scaled, alarms: (N, classes), (N, classes) and (N,) as in `Predictions`, of one seed.
        rare: the classes of the primary figure.
        weights: (draws, L), how often each lesion counts; once where not given.
        extra: (draws, classes + 3) each: hits and images to add to the shares of `Sample.groups`.

    Returns:
        (draws,) accuracy, balanced_accuracy (mean recall of the classes that have images), rare_recall, macro_f1,
        macro_auc (one class against the rest), malignant_sensitivity, malignant_specificity, brier (in [0, 2], summed
        over classes as by Brier 1950), ece and ece_scaled (of the top label);
        (draws, classes) recall, precision, f1, auc. NaN where it can't be said.
    """
    if weights is None:
        weights = np.ones((1, len(sample.label)))
    truth, classes = sample.truth, len(sample.classes)
    predicted = np.eye(classes)[probabilities.argmax(1)]
    alarm = np.zeros(len(truth), bool) if alarms is None else alarms
    hit = np.column_stack(
        [predicted * sample.groups[:, :classes], probabilities.argmax(1) == truth,
         alarm & sample.groups[:, -2].astype(bool), ~alarm & sample.groups[:, -1].astype(bool)]
    )  # fmt: skip
    hits, images = (weights @ sample.sums(values).astype(weights.dtype) for values in (hit, sample.groups))
    said = weights @ sample.sums(predicted).astype(weights.dtype)
    added_hits, added_images = extra if extra is not None else (0.0, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = (hits + added_hits) / (images + added_images)
        share[:, np.append(~sample.present, [False] * 3)] = np.nan
        if alarms is None:
            share[:, -2:] = np.nan
        recall = share[:, :classes]
        precision = np.where(said > 0, hits[:, :classes] / said, 0.0)
        f1 = 2 * hits[:, :classes] / (images[:, :classes] + said)
    precision[:, ~sample.present] = f1[:, ~sample.present] = np.nan
    auc = np.full(recall.shape, np.nan)
    for label in np.flatnonzero(sample.present) if sample.present.sum() > 1 else ():
        auc[:, label] = _auc(probabilities[:, label], truth == label, sample, weights)
    total = images[:, classes]
    one_hot = np.eye(classes)[truth]
    sums = sample.sums(
        np.column_stack([((probabilities - one_hot) ** 2).sum(1), _gaps(probabilities, truth), _gaps(scaled, truth)])
    )
    brier, before, after = np.split(weights @ sums.astype(weights.dtype), [1, 1 + BINS], axis=1)
    here = sample.present & np.isin(sample.classes, rare)
    return {
        "accuracy": share[:, classes],
        "balanced_accuracy": _mean(recall, sample.present),
        "rare_recall": _mean(recall, here),
        "macro_f1": _mean(f1, sample.present),
        "macro_auc": _mean(auc, sample.present),
        "malignant_sensitivity": share[:, classes + 1],
        "malignant_specificity": share[:, classes + 2],
        "brier": brier[:, 0] / total,
        "ece": np.abs(before).sum(1) / total,
        "ece_scaled": np.abs(after).sum(1) / total,
        "recall": recall,
        "precision": precision,
        "f1": f1,
        "auc": auc,
    }


def _mean(values: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(draws,) mean over some columns; NaN where there are none."""
    return values[:, columns].mean(1) if columns.any() else np.full(len(values), np.nan)


def confusion(sample: Sample, probabilities: np.ndarray) -> np.ndarray:
    """(classes, classes) int, true classes in rows, summed over seeds; `probabilities` is (seeds, N, classes)."""
    classes = len(sample.classes)
    cells = (sample.truth * classes + probabilities.argmax(2)).ravel()
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)
