"""Curves of an arm as points for a figure: means of its seeds' curves at the same positions."""

import numpy as np
from sklearn import metrics

from components.evaluate.statistics.metrics import BINS, Sample, bin_of
from components.shared.records import Curves

_PLACES = np.linspace(0, 1, 59) ** 2
"""Positions on the horizontal axis, closer together at the left, where false alarms are few."""


def _points(**axes: np.ndarray) -> dict[str, list[float]]:
    return {name: np.round(values, 4).tolist() for name, values in axes.items()}


def roc(positive: np.ndarray, scores: np.ndarray) -> dict[str, list[float]]:
    """Return the ROC curve: `fpr` and `tpr`, 60 points from (0, 0) to (1, 1).

    The mean true positive rate at each false positive rate (vertical averaging, Fawcett 2006).

    Args:
        positive: (N,) bool, both values occur.
        scores: (seeds, N).
    """
    rates = []
    for of_seed in scores:
        fpr, tpr, _ = metrics.roc_curve(positive, of_seed)
        rates.append(np.interp(_PLACES, fpr, tpr))
    return _points(fpr=np.append(0.0, _PLACES), tpr=np.append(0.0, np.mean(rates, 0)))


def precision_recall(positive: np.ndarray, scores: np.ndarray) -> dict[str, list[float]]:
    """Return the precision–recall curve: `recall` and `precision`, 59 points.

    At each recall the mean over seeds of the precision at the highest threshold that reaches it.

    Args:
        positive: (N,) bool, both values occur.
        scores: (seeds, N).
    """
    precisions = []
    for of_seed in scores:
        # Recall decreases, to a last point at 0.
        precision, recall, _ = metrics.precision_recall_curve(positive, of_seed)
        precisions.append(precision[len(recall) - 2 - np.searchsorted(recall[:-1][::-1], _PLACES - 1e-12)])
    return _points(recall=_PLACES, precision=np.mean(precisions, 0))


def reliability(truth: np.ndarray, probabilities: np.ndarray) -> dict[str, list[float]]:
    """Return the reliability diagram: mean `confidence`, `accuracy` and `count` of each bin that is not empty.

    Bins of the top label's confidence, over the images of all seeds.

    Args:
        truth: (N,) int label.
        probabilities: (seeds, N, classes).
    """
    confidence = probabilities.max(2).ravel()
    right = (probabilities.argmax(2) == truth).ravel()
    number = bin_of(confidence)
    count = np.bincount(number, minlength=BINS)
    filled = count > 0
    of_bin = [np.bincount(number, values, BINS)[filled] / count[filled] for values in (confidence, right)]
    return _points(confidence=of_bin[0], accuracy=of_bin[1]) | {"count": count[filled].tolist()}


def curves(sample: Sample, probabilities: np.ndarray, scaled: np.ndarray) -> Curves:
    """Return all curves of an arm; `roc` and `pr` by class, of classes with images.

    Args:
        sample: the images.
        probabilities, scaled: (seeds, N, classes) as in `Predictions`.
    """
    of_roc, of_pr = {}, {}
    for label in np.flatnonzero(sample.present) if sample.present.sum() > 1 else ():
        positive, dx = sample.truth == label, sample.classes[label]
        of_roc[dx] = roc(positive, probabilities[:, :, label])
        of_pr[dx] = precision_recall(positive, probabilities[:, :, label])
    diagrams = {"before": reliability(sample.truth, probabilities), "after": reliability(sample.truth, scaled)}
    return Curves.model_validate({"roc": of_roc, "pr": of_pr, "reliability": diagrams})
