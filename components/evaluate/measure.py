"""What is measured of an arm's predictions on real test images, and how sure it is."""

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from sklearn import metrics

DRAWS = 2_000


def measure(truth: np.ndarray, chances: np.ndarray, classes: tuple[str, ...]) -> dict[str, Any]:
    """One arm's figures, an image counting one.

    Args:
        truth: (N,) int label.
        chances: (N, classes) probabilities.
        classes: their names.

    Returns:
        accuracy, balanced_accuracy, macro_auc (one against rest); by class recall, precision, f1, auc (None where it
        can't be said), support; confusion with true classes in rows.
    """
    labels = np.arange(len(classes))
    predicted = chances.argmax(1)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        truth, predicted, labels=labels, zero_division=0
    )
    auc = [
        float(metrics.roc_auc_score(truth == label, chances[:, label]))
        if 0 < (truth == label).sum() < len(truth)
        else None
        for label in labels
    ]
    by_class = {"recall": recall, "precision": precision, "f1": f1}
    return {
        "accuracy": float((truth == predicted).mean()),
        "balanced_accuracy": float(metrics.balanced_accuracy_score(truth, predicted)),
        "macro_auc": float(np.mean([value for value in auc if value is not None])),
        **{name: dict(zip(classes, map(float, values), strict=True)) for name, values in by_class.items()},
        "auc": dict(zip(classes, auc, strict=True)),
        "support": dict(zip(classes, map(int, support), strict=True)),
        "confusion": metrics.confusion_matrix(truth, predicted, labels=labels).tolist(),
    }


def bootstrap_recall(
    truth: np.ndarray, lesion: np.ndarray, predicted: dict[str, np.ndarray], classes: int, seed: int
) -> dict[str, np.ndarray]:
    """Recall by class over draws of test lesions: the lesion is the unit, since its images stand or fall together.

    Lesions are drawn with replacement within their class (Davison & Hinkley 1997, stratified bootstrap); each draw
    serves all arms, so that differences between them are paired.

    Args:
        truth: (N,) int label; all images of a lesion have the same.
        lesion: (N,) lesion id.
        predicted: arm → (N,) int label.
        classes: how many.
        seed: of the draws.

    Returns:
        Arm → (DRAWS, classes) float64; NaN for a class without images.
    """
    rng = np.random.default_rng(seed)
    drawn = {arm: np.full((DRAWS, classes), np.nan) for arm in predicted}
    for label in np.unique(truth):
        inside = truth == label
        _, number = np.unique(lesion[inside], return_inverse=True)
        images = np.bincount(number)
        weights = rng.multinomial(len(images), np.full(len(images), 1 / len(images)), size=DRAWS)
        total = weights @ images
        for arm, labels in predicted.items():
            right = np.bincount(number, weights=labels[inside] == label)
            drawn[arm][:, label] = weights @ right / total
    return drawn


def interval(values: np.ndarray) -> list[float | None]:
    """The middle 95 % of draws; [None, None] where there are none."""
    if np.isnan(values).all():
        return [None, None]
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return [float(low), float(high)]


def lesions_right(truth: np.ndarray, lesion: np.ndarray, chances: np.ndarray) -> np.ndarray:
    """Which lesions are named right; a lesion's prediction is the mean over its images.

    Args:
        truth, lesion, chances: (N,), (N,) and (N, classes), as above.

    Returns:
        (L,) bool, in the order of the sorted lesion ids.
    """
    ids, number = np.unique(lesion, return_inverse=True)
    label = np.zeros(len(ids), int)
    label[number] = truth
    sums = np.zeros((len(ids), chances.shape[1]))
    np.add.at(sums, number, chances)
    return sums.argmax(1) == label


def mcnemar(
    truth: np.ndarray, lesion: np.ndarray, chances: np.ndarray, control: np.ndarray, inside: np.ndarray
) -> tuple[int, int, float]:
    """McNemar's exact test between two arms, a lesion counting one.

    Args:
        truth, lesion: (N,) label and lesion id.
        chances, control: (N, classes) probabilities of the two arms.
        inside: (N,) bool, the images to look at.

    Returns:
        Lesions that only the first arm recognises, lesions that only the control does, and the two-sided p value.
    """
    arm, other = (lesions_right(truth[inside], lesion[inside], values[inside]) for values in (chances, control))
    gained, lost = int((arm & ~other).sum()), int((other & ~arm).sum())
    p_value = float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return gained, lost, p_value


def recall_interval(right: np.ndarray) -> list[float | None]:
    """Wilson's 95 % interval of one class's recall, a lesion counting one; [None, None] without lesions.

    Not the bootstrap's: where all of a dozen lesions went one way, that has no width.

    Args:
        right: (L,) bool, which of the class's lesions were named right.
    """
    if not len(right):
        return [None, None]
    limits = stats.binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
    return [float(limits.low), float(limits.high)]


def compare(
    truth: np.ndarray,
    lesion: np.ndarray,
    chances: dict[str, np.ndarray],
    classes: tuple[str, ...],
    rare: list[str],
    seed: int,
) -> tuple[dict[str, dict[str, Any]], dict[str, Any], str]:
    """All arms' figures, the effect of the synthetic images, and the verdict.

    Args:
        truth, lesion: (N,) as above.
        chances: arm → (N, classes); the arms baseline, oversampled and augmented.
        classes: their names.
        rare: the classes that were rebalanced.
        seed: of the bootstrap.

    Returns:
        Figures by arm (with `recall_interval` by class), the effect, and `improved`, `no evidence` or `worse`.
    """
    arms = {arm: measure(truth, values, classes) for arm, values in chances.items()}
    predicted = {arm: values.argmax(1) for arm, values in chances.items()}
    drawn = bootstrap_recall(truth, lesion, predicted, len(classes), seed)
    for arm, values in chances.items():
        arms[arm]["recall_interval"] = {
            dx: recall_interval(lesions_right(truth[inside], lesion[inside], values[inside]))
            for label, dx in enumerate(classes)
            for inside in [truth == label]
        }
    columns = [classes.index(dx) for dx in rare]
    means = {arm: np.mean([arms[arm]["recall"][dx] for dx in rare]) for arm in arms}

    def difference(arm: str, control: str) -> dict[str, float | None]:
        low, high = interval((drawn[arm] - drawn[control])[:, columns].mean(1))
        return {"value": float(means[arm] - means[control]), "low": low, "high": high}

    gained, lost, p_value = mcnemar(
        truth, lesion, chances["augmented"], chances["oversampled"], np.isin(truth, columns)
    )
    against_control = difference("augmented", "oversampled")
    effect: dict[str, Any] = {
        "metric": "mean recall of the rare classes",
        "augmented_minus_oversampled": against_control,
        "augmented_minus_baseline": difference("augmented", "baseline"),
        "draws": DRAWS,
        "mcnemar": {"lesions_gained": gained, "lesions_lost": lost, "p": p_value},
    }
    low, high = against_control["low"], against_control["high"]
    # The bootstrap of a handful of lesions that all went one way has no width: it alone must not decide.
    sure = p_value < 0.05
    verdict = "no evidence"
    if sure and low is not None and high is not None:
        verdict = "improved" if low > 0 else "worse" if high < 0 else verdict
    return arms, effect, verdict


def counts(rows: pd.DataFrame, classes: tuple[str, ...]) -> dict[str, dict[str, int]]:
    """Images and lesions by class of rows with dx and lesion_id."""
    return {
        dx: {
            "images": int((rows["dx"] == dx).sum()),
            "lesions": int(rows.loc[rows["dx"] == dx, "lesion_id"].nunique()),
        }
        for dx in classes
    }
