"""Compare the arms on one set of images: metrics, the effect of the synthetic images, the verdict.

Which share of synthetic images, and which control, is compared was chosen on validation. Test lesions are independent
of that choice, but the luck of a training is not: the chosen arm tends to be the one with the luckiest seeds. The
intervals of the primary metric and the test behind the verdict are therefore corrected for the number of arms to choose
from (Bonferroni). Figures by class and of other metrics, and the improvement on the baseline, are not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from components.evaluate.statistics import inference, metrics
from components.evaluate.statistics.curves import curves
from components.evaluate.statistics.inference import LEVEL, Bootstrap
from components.evaluate.statistics.metrics import SCALARS, Predictions, Sample
from components.shared.arms import BASELINE, CONTROL, share_of
from components.shared.records import Verdict
from components.shared.seeds import derive_seed

METRIC = "mean recall of the rare classes"
OTHER_METRICS = (
    "balanced_accuracy", "macro_f1", "accuracy", "macro_auc", "balanced_log_loss", "corrected_recall",
    "malignant_sensitivity", "brier", "ece", "ece_scaled",
)  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """Arms that were chosen on validation.

    Attributes:
        doses: the arms with synthetic images.
        augmented: the one with the lowest balanced log loss.
        controls: the arms without synthetic images, except the baseline.
        control: the one with the lowest balanced log loss.
        best: the arm with the lowest balanced log loss of all.
    """

    doses: tuple[str, ...]
    augmented: str
    controls: tuple[str, ...]
    control: str
    best: str


def choose(losses: Mapping[str, float]) -> Choice:
    """Choose arms by their balanced log loss on validation; the first of several equal ones.

    Args:
        losses: arm → balanced log loss, mean over seeds.
    """
    doses = tuple(arm for arm in losses if share_of(arm) is not None)
    controls = tuple(arm for arm in losses if share_of(arm) is None and arm != BASELINE)
    lowest = losses.__getitem__
    return Choice(doses, min(doses, key=lowest), controls, min(controls, key=lowest), min(losses, key=lowest))


def _none_if_nan(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _describe_arm(bootstrap: Bootstrap, arm: str, predictions: Predictions, seeds: Sequence[int]) -> dict[str, Any]:
    """Return one arm's metrics, means over its seeds."""
    sample, points = bootstrap.sample, bootstrap.points[arm]
    scalars = {name: bootstrap.difference(name, arm) for name in SCALARS}
    recalls = [bootstrap.difference("recall", arm, label=label) for label in range(len(sample.classes))]
    by_class = {
        name: dict(zip(sample.classes, map(_none_if_nan, points[name].mean(0)), strict=True))
        for name in ("recall", "precision", "f1", "auc")
    }
    support = np.bincount(sample.truth, minlength=len(sample.classes)).tolist()
    return {
        **{name: difference["value"] for name, difference in scalars.items()},
        "intervals": {name: [difference["low"], difference["high"]] for name, difference in scalars.items()},
        "by_seed": {
            str(seed): {name: _none_if_nan(points[name][number]) for name in SCALARS}
            for number, seed in enumerate(seeds)
        },
        **by_class,
        "support": dict(zip(sample.classes, support, strict=True)),
        "recall_interval": {
            dx: [difference["low"], difference["high"]] for dx, difference in zip(sample.classes, recalls, strict=True)
        },
        "confusion": metrics.confusion(sample, predictions.probabilities).tolist(),
        "curves": curves(sample, predictions.probabilities, predictions.scaled),
    }


def _compare_classes(
    bootstrap: Bootstrap, augmented: str, differences: np.ndarray, seed: int
) -> dict[str, dict[str, Any]]:
    """Return the effect on each class's recall.

    p-values exist for one seed only: a test of lesions ignores the variation between seeds.

    Args:
        bootstrap: metrics and resamples of the arms.
        augmented: the arm that is compared with the control.
        differences: (L,), the lesions' differences.
        seed: seed of the tests.
    """
    sample, effects = bootstrap.sample, {}
    one_seed = bootstrap.seeds == 1
    for label, dx in enumerate(sample.classes):
        of_class = differences[sample.label == label]
        test = one_seed and len(of_class)
        effects[dx] = bootstrap.difference("recall", augmented, CONTROL, label) | {
            "p": inference.sign_flip(of_class, derive_seed(seed, dx))[0] if test else None,
            "p_holm": None,
            "lesions": len(of_class),
            "few": True,
            "lesions_needed": None,
        }
        if len(of_class):
            noise = bootstrap.recall_noise(label, augmented, CONTROL)
            needed = inference.lesions_needed(of_class, *noise)
            effects[dx] |= {"few": needed is None or len(of_class) < needed, "lesions_needed": needed}
    tested = [dx for dx in effects if effects[dx]["p"] is not None]
    for dx, p in zip(tested, inference.holm([effects[dx]["p"] for dx in tested]), strict=True):
        effects[dx]["p_holm"] = p
    return effects


def lesion_differences(sample: Sample, augmented: Predictions, control: Predictions) -> np.ndarray:
    """Return (L,) augmented − control per lesion: 1 if correct, else 0, the mean over seeds."""
    right, others = (inference.find_correct_lesions(sample, it.probabilities) for it in (augmented, control))
    return (right.astype(float) - others).mean(0)


def weight_differences(sample: Sample, differences: np.ndarray, rare: Sequence[str]) -> np.ndarray:
    """Return the differences of the rare classes' lesions, weighted as in the primary figure.

    Their sum is the mean over the rare classes of the mean over their lesions.
    """
    lesions = np.bincount(sample.label, minlength=len(sample.classes))
    inside = np.isin(np.array(sample.classes)[sample.label], rare)
    classes = len(np.unique(sample.label[inside]))
    return (differences / lesions[sample.label])[inside] / max(1, classes)


def decide_verdict(low: float | None, high: float | None, p: float, direction: float, seeds: int) -> Verdict:
    """Return the verdict.

    `improved` and `worse` require an interval that excludes zero, and a paired test at lesion level that points in the
    same direction. With one seed nothing is established: an effect cannot be separated from chance in one training run.

    Args:
        low, high: interval of the primary difference.
        p: p-value of the paired permutation test, corrected for the number of shares.
        direction: sum of the differences that it tests.
        seeds: number of the classifiers' seeds.
    """
    if seeds == 1:
        return "not established"
    if low is None or high is None or p >= LEVEL:
        return "no evidence"
    if low > 0 and direction > 0:
        return "improved"
    return "worse" if high < 0 and direction < 0 else "no evidence"


def compare(
    sample: Sample,
    arms: Mapping[str, Predictions],
    validation_losses: Mapping[str, float],
    rare: Sequence[str],
    seeds: Sequence[int],
    seed: int,
    resamples: int = inference.DRAWS,
) -> tuple[dict[str, dict[str, Any]], dict[str, Any], Verdict]:
    """Return all arms' metrics, the effect of the synthetic images, and the verdict.

    Args:
        sample: the images; some classes may have none.
        arms: predictions of each arm, with the same seeds in the same order.
        validation_losses: arm → balanced log loss on validation.
        rare: the classes of the primary figure: those that have synthetic images.
        seeds: seeds of the models, in that order.
        seed: seed of the resampling.
        resamples: number of resamples.

    Returns:
        Metrics by arm, the effect, and the verdict, in the form of `metrics.json`.
    """
    rare, chosen = tuple(rare), choose(validation_losses)
    augmented, one_seed = chosen.augmented, len(seeds) == 1
    bootstrap = Bootstrap(sample, arms, rare, derive_seed(seed, "bootstrap"), resamples)
    described = {arm: _describe_arm(bootstrap, arm, arms[arm], seeds) for arm in arms}
    differences = lesion_differences(sample, arms[augmented], arms[CONTROL])
    weighted = weight_differences(sample, differences, rare)
    p, arrangements = inference.sign_flip(weighted, derive_seed(seed, "permutation"))
    p = min(1.0, p * len(chosen.doses))
    exact = inference.mcnemar(differences[np.isin(np.array(sample.classes)[sample.label], rare)])

    effect: dict[str, Any] = {
        "metric": METRIC,
        "arm": augmented,
        "best_control": chosen.control,
        "best": chosen.best,
        **_describe_choice(bootstrap, chosen, tuple(arms)),
        "by_metric": {
            name: {
                "gan": bootstrap.difference(name, augmented, CONTROL),
                "improvement": bootstrap.difference(name, augmented, BASELINE),
            }
            for name in OTHER_METRICS
        },
        "by_class": _compare_classes(bootstrap, augmented, differences, seed),
        "mcnemar": exact | {"p": exact["p"] if one_seed else None},
        "permutation": {"p": p if one_seed else None, "passed": p < LEVEL, "draws": arrangements},
        "draws": resamples,
    }
    verdict = decide_verdict(effect["low"], effect["high"], p, float(weighted.sum()), len(seeds))
    return described, effect, verdict


def _describe_choice(bootstrap: Bootstrap, chosen: Choice, arms: Sequence[str]) -> dict[str, Any]:
    """Return the differences in the primary metric, with intervals that are corrected for the arms to choose from."""

    def differ(names: Sequence[str], control: str) -> list[dict[str, Any]]:
        level = LEVEL / len(names)
        return [{"arm": name, **bootstrap.difference("rare_recall", name, control, level=level)} for name in names]

    doses = differ(chosen.doses, CONTROL)
    gan = doses[chosen.doses.index(chosen.augmented)]
    level = LEVEL / (len(chosen.doses) * len(chosen.controls))
    return {
        **{key: gan[key] for key in ("value", "low", "high")},
        "doses": doses,
        "augmented_minus_best_control": bootstrap.difference(
            "rare_recall", chosen.augmented, chosen.control, level=level
        ),
        "remedies": differ([arm for arm in arms if arm != BASELINE], BASELINE),
        "augmented_minus_baseline": bootstrap.difference("rare_recall", chosen.augmented, BASELINE),
    }


def count_images(rows: pd.DataFrame, classes: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return class → numbers of images and lesions, for rows with dx and lesion_id."""
    return {
        dx: {
            "images": int((rows["dx"] == dx).sum()),
            "lesions": int(rows.loc[rows["dx"] == dx, "lesion_id"].nunique()),
        }
        for dx in classes
    }
