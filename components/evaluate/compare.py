"""The arms against each other on one set of images: figures, the synthetic images' effect, the verdict."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from components.evaluate import inference, metrics
from components.evaluate.curves import curves
from components.evaluate.inference import Bootstrap
from components.evaluate.metrics import SCALARS, Predictions, Sample
from components.shared.records import ARMS
from components.shared.seeds import derive_seed

METRIC = "mean recall of the rare classes"
OTHER_METRICS = (
    "balanced_accuracy", "macro_f1", "accuracy", "macro_auc", "malignant_sensitivity", "brier", "ece",
)  # fmt: skip


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _arm(draws: Bootstrap, arm: str, said: Predictions, seeds: Sequence[int]) -> dict[str, Any]:
    """One arm's figures, the mean over its seeds."""
    sample, points = draws.sample, draws.points[arm]
    scalars = {name: draws.difference(name, arm) for name in SCALARS}
    recalls = [draws.difference("recall", arm, label=label) for label in range(len(sample.classes))]
    by_class = {
        name: dict(zip(sample.classes, map(_known, points[name].mean(0)), strict=True))
        for name in ("recall", "precision", "f1", "auc")
    }
    return {
        **{name: found["value"] for name, found in scalars.items()},
        "intervals": {name: [found["low"], found["high"]] for name, found in scalars.items()},
        "by_seed": {
            str(seed): {name: _known(points[name][number]) for name in SCALARS} for number, seed in enumerate(seeds)
        },
        **by_class,
        "support": dict(
            zip(sample.classes, np.bincount(sample.truth, minlength=len(sample.classes)).tolist(), strict=True)
        ),
        "recall_interval": {
            dx: [found["low"], found["high"]] for dx, found in zip(sample.classes, recalls, strict=True)
        },
        "confusion": metrics.confusion(sample, said.probabilities).tolist(),
        "curves": curves(sample, said.probabilities, said.scaled),
    }


def _by_class(draws: Bootstrap, change: np.ndarray, seed: int) -> dict[str, dict[str, Any]]:
    """The effect on each class's recall; `change` is (L,), the lesions' differences."""
    sample, found = draws.sample, {}
    for label, dx in enumerate(sample.classes):
        own = change[sample.label == label]
        found[dx] = draws.difference("recall", "augmented", "oversampled", label) | {
            "p": inference.sign_flip(own, derive_seed(seed, dx))[0] if len(own) else None,
            "p_holm": None,
            "lesions": len(own),
            "few": True,
            "lesions_needed": None,
        }
        if len(own):
            needed = inference.lesions_needed(own)
            found[dx] |= {"few": len(own) < needed, "lesions_needed": needed}
    tested = [dx for dx in found if found[dx]["p"] is not None]
    for dx, p in zip(tested, inference.holm([found[dx]["p"] for dx in tested]), strict=True):
        found[dx]["p_holm"] = p
    return found


def changes(sample: Sample, arms: Mapping[str, Predictions]) -> np.ndarray:
    """(L,) what augmented names right more than oversampled: for each lesion, in [−1, 1], the mean over seeds."""
    augmented, oversampled = (
        inference.lesions_right(sample, arms[arm].probabilities) for arm in ("augmented", "oversampled")
    )
    return (augmented.astype(float) - oversampled).mean(0)


def weighted_changes(sample: Sample, arms: Mapping[str, Predictions], rare: Sequence[str]) -> np.ndarray:
    """The rare classes' lesions' differences, weighted so that their sum is the mean over the rare classes of the mean
    over their lesions, as the primary figure is."""
    lesions = np.bincount(sample.label, minlength=len(sample.classes))
    inside = np.isin(np.array(sample.classes)[sample.label], rare)
    classes = len(np.unique(sample.label[inside]))
    return (changes(sample, arms) / lesions[sample.label])[inside] / max(1, classes)


def verdict(low: float | None, high: float | None, p: float) -> str:
    """`improved`, `no evidence` or `worse`.

    Args:
        low, high: the primary difference's interval.
        p: of the paired permutation test.
    """
    if low is None or high is None or p >= 0.05:
        return "no evidence"
    return "improved" if low > 0 else "worse" if high < 0 else "no evidence"


def compare(
    sample: Sample, arms: Mapping[str, Predictions], rare: Sequence[str], seeds: Sequence[int], seed: int
) -> tuple[dict[str, dict[str, Any]], dict[str, Any], str]:
    """All arms' figures, the effect of the synthetic images, and the verdict.

    Args:
        sample: the images; some classes may have none.
        arms: what each of ARMS says of them, with the same seeds in the same order.
        rare: the classes that were rebalanced.
        seeds: of the models, in that order.
        seed: of the draws.

    Returns:
        Figures by arm, the effect, and the verdict, as `metrics.json` holds them.
    """
    rare = tuple(rare)
    draws = Bootstrap(sample, arms, rare, derive_seed(seed, "bootstrap"))
    figures = {arm: _arm(draws, arm, arms[arm], seeds) for arm in ARMS}
    change = changes(sample, arms)
    p, arrangements = inference.sign_flip(weighted_changes(sample, arms, rare), derive_seed(seed, "permutation"))
    gan = draws.difference("rare_recall", "augmented", "oversampled")
    effect: dict[str, Any] = {
        "metric": METRIC,
        **gan,
        "augmented_minus_baseline": draws.difference("rare_recall", "augmented", "baseline"),
        "by_metric": {
            name: {
                "gan": draws.difference(name, "augmented", "oversampled"),
                "improvement": draws.difference(name, "augmented", "baseline"),
            }
            for name in OTHER_METRICS
        },
        "by_class": _by_class(draws, change, seed),
        "mcnemar": inference.mcnemar(change[np.isin(np.array(sample.classes)[sample.label], rare)]),
        "permutation": {"p": p, "draws": arrangements},
        "draws": inference.DRAWS,
    }
    return figures, effect, verdict(gan["low"], gan["high"], p)


def count_images(rows: pd.DataFrame, classes: Sequence[str]) -> dict[str, dict[str, int]]:
    """Images and lesions by class of rows with dx and lesion_id."""
    return {
        dx: {
            "images": int((rows["dx"] == dx).sum()),
            "lesions": int(rows.loc[rows["dx"] == dx, "lesion_id"].nunique()),
        }
        for dx in classes
    }
