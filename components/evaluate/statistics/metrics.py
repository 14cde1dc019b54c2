"""Metrics of one model's predictions, for the images as they are or for many weightings of their lesions at once.

A metric and its 2,000 bootstrap resamples come from the same code. Every metric is made of sums over lesions, and AUC
of sums over pairs of them, so all resamples are matrix products.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

BINS = 15
"""Number of bins of the expected calibration error, of equal width (Guo et al. 2017, arXiv 1706.04599)."""
SCALARS = (
    "accuracy", "balanced_accuracy", "rare_recall", "macro_f1", "macro_auc", "malignant_sensitivity",
    "malignant_specificity", "brier", "ece", "ece_scaled", "balanced_log_loss", "corrected_recall",
)  # fmt: skip
MIN_PROBABILITY = 1e-12
"""Smaller probabilities count as this: a float32 softmax may return 0, whose logarithm is infinite."""
CHUNK_PAIRS = 4_000_000
"""Pairs of images in memory at a time while AUC is counted."""


@dataclass(frozen=True)
class Sample:
    """The images that arms are compared on, and their lesions.

    Attributes:
        truth: (N,) int label.
        lesion: (N,) lesion id.
        classes: names of the labels; some may have no image.
        malignant: the classes whose sensitivity as a group is measured.
    """

    truth: np.ndarray
    lesion: np.ndarray
    classes: tuple[str, ...]
    malignant: tuple[str, ...] = ()

    @cached_property
    def _lesions(self) -> tuple[np.ndarray, np.ndarray]:
        """(L,) label of each lesion, sorted, and (N,) number of the lesion of each image."""
        _, ids = np.unique(self.lesion, return_inverse=True)
        pairs, number = np.unique(np.stack([self.truth, ids]), axis=1, return_inverse=True)
        return pairs[0], number.reshape(-1)

    @property
    def label(self) -> np.ndarray:
        """(L,) label of each lesion; lesions of a class are adjacent."""
        return self._lesions[0]

    @property
    def number(self) -> np.ndarray:
        """(N,) number of the lesion of each image."""
        return self._lesions[1]

    @cached_property
    def images(self) -> np.ndarray:
        """(L,) number of images of each lesion."""
        return np.bincount(self.number, minlength=len(self.label))

    @cached_property
    def present(self) -> np.ndarray:
        """(classes,) bool, whether a class has images."""
        return np.bincount(self.truth, minlength=len(self.classes)) > 0

    @cached_property
    def is_malignant(self) -> np.ndarray:
        """(classes,) bool, whether a class is malignant."""
        return np.isin(self.classes, self.malignant)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Return (L, K) sums over each lesion's images of (N, K) values."""
        shape = (len(self.label), len(self.truth))
        return sparse.csr_array((np.ones(shape[1]), (self.number, np.arange(shape[1]))), shape) @ values

    @cached_property
    def groups(self) -> np.ndarray:
        """(N, classes + 3) 0 or 1: denominators of the shares: images of each class, all, malignant, benign."""
        of_class = np.eye(len(self.classes))[self.truth]
        bad = self.is_malignant[self.truth]
        return np.column_stack([of_class, np.ones(len(bad)), bad, ~bad])


@dataclass(frozen=True)
class Predictions:
    """Predictions of an arm for the images of a sample.

    Attributes:
        probabilities: (seeds, N, classes) probabilities.
        scaled: the same after each model's temperature scaling.
        alarms: (seeds, N) bool, whether an image counts as malignant at each model's own threshold; None if the data
            has no malignant class.
        corrected: (seeds, N) int label after prior correction; without a correction that of the probabilities.
    """

    probabilities: np.ndarray
    scaled: np.ndarray
    alarms: np.ndarray | None = None
    corrected: np.ndarray | None = None

    def of_seed(self, number: int) -> "Predictions":
        """Return the predictions of one seed, without the first axis."""
        return Predictions(*(None if part is None else part[number] for part in vars(self).values()))  # type: ignore[arg-type]


def _gaps(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return (N, BINS) confidence − correctness in the bin of each image's confidence, 0 in the others."""
    confidence = probabilities.max(1)
    gaps = np.zeros((len(truth), BINS))
    gaps[np.arange(len(truth)), bin_of(confidence)] = confidence - (probabilities.argmax(1) == truth)
    return gaps


def bin_of(confidence: np.ndarray) -> np.ndarray:
    """Return the bin, 0 to BINS − 1, of each confidence in [0, 1]; a bin includes its upper edge."""
    return np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)


def _auc(scores: np.ndarray, positive: np.ndarray, sample: Sample, weights: np.ndarray) -> np.ndarray:
    """Return (resamples,) area under the ROC curve, ties counting half (Hanley & McNeil 1982).

    A pair of a positive and a negative image counts as often as both of its lesions were resampled.

    Args:
        scores, positive: (N,) and (N,) bool.
        sample: the images.
        weights: (resamples, L) of its lesions.
    """
    mine, others = np.flatnonzero(positive), np.flatnonzero(~positive)
    mine, others = (rows[np.argsort(sample.number[rows], kind="stable")] for rows in (mine, others))
    lesions, starts = np.unique(sample.number[others], return_index=True)
    right = np.zeros(len(weights), weights.dtype)
    for part in np.array_split(mine, math.ceil(len(mine) * len(others) / CHUNK_PAIRS)):
        above = scores[part, None] > scores[others]
        pairs = above + 0.5 * (scores[part, None] == scores[others])
        positive_lesions, first = np.unique(sample.number[part], return_index=True)
        pairs = np.add.reduceat(np.add.reduceat(pairs, starts, axis=1), first, axis=0).astype(weights.dtype)
        right += np.einsum("ij,ij->i", weights[:, positive_lesions] @ pairs, weights[:, lesions])
    return right / (weights @ sample.sums(positive[:, None])[:, 0] * (weights @ sample.sums(~positive[:, None])[:, 0]))


def compute_metrics(
    sample: Sample,
    predictions: Predictions,
    rare: tuple[str, ...],
    weights: np.ndarray | None = None,
    extra: tuple[np.ndarray, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Return all metrics of one model, once for each weighting of the lesions.

    Args:
        sample: the images.
        predictions: those of one seed, from `Predictions.of_seed`.
        rare: the classes of the primary figure.
        weights: (resamples, L), how often each lesion counts; once if not given.
        extra: (resamples, classes + 3) each: hits and images to add to the shares of `Sample.groups`, and to the
            positive images of each class's AUC.

    Returns:
        (resamples,) accuracy, balanced_accuracy (mean recall of the classes that have images), rare_recall, macro_f1,
        macro_auc (one class against the rest), malignant_sensitivity, malignant_specificity, brier (in [0, 2], summed
        over classes as by Brier 1950), ece and ece_scaled (of the top label), balanced_log_loss (mean over classes,
        after temperature scaling), corrected_recall (rare_recall after prior correction);
        (resamples, classes) recall, corrected (recall after prior correction), precision, f1, auc. NaN if undefined.
    """
    if weights is None:
        weights = np.ones((1, len(sample.label)))
    probabilities, scaled, alarms = predictions.probabilities, predictions.scaled, predictions.alarms
    shares, precision, f1, images = _count_hits(sample, probabilities, alarms, weights, extra)
    classes, present = len(sample.classes), sample.present
    recall = shares[:, :classes]
    auc = _class_aucs(sample, probabilities, weights, images, extra)
    brier, ece, ece_scaled = _calibration_metrics(sample, probabilities, scaled, weights, images[:, classes])
    losses = _class_losses(sample, scaled, weights, images[:, :classes])
    corrected = recall
    if predictions.corrected is not None:
        corrected = _class_recalls(sample, predictions.corrected, weights, images[:, :classes], extra)
    is_rare = present & np.isin(sample.classes, rare)
    return {
        "accuracy": shares[:, classes],
        "balanced_accuracy": _mean(recall, present),
        "rare_recall": _mean(recall, is_rare),
        "macro_f1": _mean(f1, present),
        "macro_auc": _mean(auc, present),
        "malignant_sensitivity": shares[:, classes + 1],
        "malignant_specificity": shares[:, classes + 2],
        "brier": brier,
        "ece": ece,
        "ece_scaled": ece_scaled,
        "balanced_log_loss": _mean(losses, present),
        "corrected_recall": _mean(corrected, is_rare),
        "recall": recall,
        "corrected": corrected,
        "precision": precision,
        "f1": f1,
        "auc": auc,
    }


def _count_hits(
    sample: Sample,
    probabilities: np.ndarray,
    alarms: np.ndarray | None,
    weights: np.ndarray,
    extra: tuple[np.ndarray, np.ndarray] | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return (resamples, classes + 3) shares, (resamples, classes) precision and F1, and the shares' denominators."""
    truth, classes = sample.truth, len(sample.classes)
    predicted = np.eye(classes)[probabilities.argmax(1)]
    alarm = np.zeros(len(truth), bool) if alarms is None else alarms
    malignant, benign = sample.groups[:, -2].astype(bool), sample.groups[:, -1].astype(bool)
    hit = np.column_stack(
        [predicted * sample.groups[:, :classes], probabilities.argmax(1) == truth, alarm & malignant, ~alarm & benign]
    )
    hits, images = (weights @ sample.sums(values).astype(weights.dtype) for values in (hit, sample.groups))
    predictions = weights @ sample.sums(predicted).astype(weights.dtype)
    added_hits, added_images = extra if extra is not None else (0.0, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = (hits + added_hits) / (images + added_images)
        shares[:, np.append(~sample.present, [False] * 3)] = np.nan
        if alarms is None:
            shares[:, -2:] = np.nan
        precision = np.where(predictions > 0, hits[:, :classes] / predictions, 0.0)
        f1 = 2 * hits[:, :classes] / (images[:, :classes] + predictions)
    precision[:, ~sample.present] = f1[:, ~sample.present] = np.nan
    return shares, precision, f1, images


def _class_aucs(
    sample: Sample,
    probabilities: np.ndarray,
    weights: np.ndarray,
    images: np.ndarray,
    extra: tuple[np.ndarray, np.ndarray] | None,
) -> np.ndarray:
    """Return (resamples, classes) AUC of each class against the rest; NaN if it has no images, or the rest has none."""
    classes = len(sample.classes)
    auc = np.full((len(weights), classes), np.nan)
    for label in np.flatnonzero(sample.present) if sample.present.sum() > 1 else ():
        auc[:, label] = _auc(probabilities[:, label], sample.truth == label, sample, weights)
    if extra is None:
        return auc
    hits, added, positives = extra[0][:, :classes], extra[1][:, :classes], images[:, :classes]
    with np.errstate(invalid="ignore", divide="ignore"):
        return (auc * positives + hits) / (positives + added)


def _calibration_metrics(
    sample: Sample, probabilities: np.ndarray, scaled: np.ndarray, weights: np.ndarray, total: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (resamples,) Brier score, and calibration error before and after temperature scaling."""
    one_hot = np.eye(len(sample.classes))[sample.truth]
    brier = ((probabilities - one_hot) ** 2).sum(1)
    gaps = [_gaps(values, sample.truth) for values in (probabilities, scaled)]
    sums = weights @ sample.sums(np.column_stack([brier, *gaps])).astype(weights.dtype)
    before, after = np.abs(sums[:, 1 : 1 + BINS]), np.abs(sums[:, 1 + BINS :])
    return sums[:, 0] / total, before.sum(1) / total, after.sum(1) / total


def _class_losses(sample: Sample, scaled: np.ndarray, weights: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Return (resamples, classes) mean log loss of each class's images."""
    rows = np.arange(len(sample.truth))
    loss = np.zeros((len(rows), len(sample.classes)))
    loss[rows, sample.truth] = -np.log(np.maximum(scaled[rows, sample.truth], MIN_PROBABILITY))
    with np.errstate(invalid="ignore", divide="ignore"):
        return weights @ sample.sums(loss).astype(weights.dtype) / images


def _class_recalls(
    sample: Sample,
    predicted: np.ndarray,
    weights: np.ndarray,
    images: np.ndarray,
    extra: tuple[np.ndarray, np.ndarray] | None,
) -> np.ndarray:
    """Return (resamples, classes) recall of (N,) predicted labels."""
    classes = len(sample.classes)
    hit = (predicted == sample.truth)[:, None] * sample.groups[:, :classes]
    hits, added = (part[:, :classes] for part in extra) if extra is not None else (0.0, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = (weights @ sample.sums(hit).astype(weights.dtype) + hits) / (images + added)
    shares[:, ~sample.present] = np.nan
    return shares


def balanced_log_loss(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the mean over the classes with images of the mean −log of the probability of the true class.

    Args:
        truth: (N,) int label.
        probabilities: (N, classes).
    """
    losses = -np.log(np.maximum(probabilities[np.arange(len(truth)), truth], MIN_PROBABILITY))
    counts = np.bincount(truth)
    return float((np.bincount(truth, losses)[counts > 0] / counts[counts > 0]).mean())


def _mean(values: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return (resamples,) mean over some columns; NaN if there are none."""
    return values[:, columns].mean(1) if columns.any() else np.full(len(values), np.nan)


def confusion(sample: Sample, probabilities: np.ndarray) -> np.ndarray:
    """Return (classes, classes) int, true classes in rows, summed over seeds, of (seeds, N, classes) probabilities."""
    classes = len(sample.classes)
    cells = (sample.truth * classes + probabilities.argmax(2)).ravel()
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)
