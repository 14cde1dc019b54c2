"""Compare the arms on one set of images: metrics, the effect of the chosen arm, the verdict.

The chosen arm is a share of synthetic images, compared with `oversampled`, or in a run without synthetic images a
remedy, compared with `baseline`; see `arms.comparison`. It and the best control are chosen on validation. Test lesions
are independent of that choice, but the luck of a training is not: the chosen arm tends to be the one with the luckiest
seeds. The intervals of the primary metric and the test behind the verdict are therefore corrected for the number of
arms to choose from (Bonferroni). Figures by class and of other metrics are not, nor is
`augmented_minus_baseline`, which pages replace by the corrected difference in `remedies`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from components.evaluate.statistics import inference, metrics
from components.evaluate.statistics.curves import curves
from components.evaluate.statistics.inference import LEVEL, Bootstrap
from components.evaluate.statistics.metrics import SCALARS, Predictions, Sample
from components.shared.arms import BASELINE, CONTROL, comparison, recipe, remedies, share_of
from components.shared.records import (
    ArmDifference,
    ArmResults,
    ClassDifference,
    Difference,
    Effect,
    ImageCounts,
    MetricDifferences,
    Outcome,
    Permutation,
    Verdict,
)
from components.shared.seeds import derive_seed

METRIC = "mean recall of the rare classes"
OTHER_METRICS = (
    "balanced_accuracy", "macro_f1", "accuracy", "macro_auc", "balanced_log_loss", "corrected_recall",
    "malignant_sensitivity", "brier", "ece", "ece_scaled",
)  # fmt: skip


@dataclass(frozen=True)
class Fitted:
    """What was fitted on validation for an arm, as in `ArmResults`.

    Attributes:
        log_loss: balanced log loss on validation, mean over seeds.
        temperature: the temperature of each model.
        prior_strength: strength of the prior correction.
    """

    log_loss: float
    temperature: list[float]
    prior_strength: float


@dataclass(frozen=True)
class Choice:
    """Arms that were chosen on validation.

    Attributes:
        candidates: the arms with synthetic images; without any, the remedies.
        arm: the one with the lowest balanced log loss.
        reference: the arm that it is compared with.
        controls: the remedies, see `arms.remedies`.
        control: the one with the lowest balanced log loss.
        best: the arm with the lowest balanced log loss of all.
    """

    candidates: tuple[str, ...]
    arm: str
    reference: str
    controls: tuple[str, ...]
    control: str
    best: str


def choose(losses: Mapping[str, float]) -> Choice:
    """Choose arms by their balanced log loss on validation; the first of several equal ones.

    Args:
        losses: arm → balanced log loss, mean over seeds.
    """
    primary, controls, lowest = comparison(list(losses)), remedies(losses), losses.__getitem__
    arm = min(primary.candidates, key=lowest)
    return Choice(
        primary.candidates, arm, primary.reference, controls, min(controls, key=lowest), min(losses, key=lowest)
    )


def _none_if_nan(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _describe_arm(
    bootstrap: Bootstrap, arm: str, predictions: Predictions, fitted: Fitted, seeds: Sequence[int]
) -> ArmResults:
    """Return one arm's metrics, means over its seeds."""
    sample, points = bootstrap.sample, bootstrap.points[arm]
    scalars = {name: bootstrap.difference(name, arm) for name in SCALARS}
    recalls = [bootstrap.difference("recall", arm, label=label) for label in range(len(sample.classes))]
    by_class = {
        name: dict(zip(sample.classes, map(_none_if_nan, points[name].mean(0)), strict=True))
        for name in ("recall", "precision", "f1", "auc")
    }
    support = np.bincount(sample.truth, minlength=len(sample.classes)).tolist()
    figures = {
        **{name: found.value for name, found in scalars.items()},
        **by_class,
        "intervals": {name: [found.low, found.high] for name, found in scalars.items()},
        "by_seed": {
            str(seed): {name: _none_if_nan(points[name][number]) for name in SCALARS}
            for number, seed in enumerate(seeds)
        },
        "support": dict(zip(sample.classes, support, strict=True)),
        "recall_interval": {dx: [found.low, found.high] for dx, found in zip(sample.classes, recalls, strict=True)},
        "confusion": metrics.confusion(sample, predictions.probabilities).tolist(),
        "curves": curves(sample, predictions.probabilities, predictions.scaled),
        "validation_log_loss": fitted.log_loss,
        "temperature": fitted.temperature,
        "prior_strength": fitted.prior_strength,
    }
    return ArmResults.model_validate(figures)


def _compare_classes(
    bootstrap: Bootstrap, arm: str, reference: str, differences: np.ndarray, seed: int
) -> dict[str, ClassDifference]:
    """Return the effect on each class's recall.

    p-values exist for one seed only: a test of lesions ignores the variation between seeds.

    Args:
        bootstrap: metrics and resamples of the arms.
        arm, reference: the arms that are compared.
        differences: (L,), the lesions' differences.
        seed: seed of the tests.
    """
    sample, p_values, corrected = bootstrap.sample, {}, {}
    if bootstrap.seeds == 1:
        lesions = {dx: differences[sample.label == label] for label, dx in enumerate(sample.classes)}
        p_values = {dx: inference.sign_flip(it, derive_seed(seed, dx))[0] for dx, it in lesions.items() if len(it)}
        corrected = dict(zip(p_values, inference.holm(list(p_values.values())), strict=True))
    effects = {}
    for label, dx in enumerate(sample.classes):
        of_class, needed = differences[sample.label == label], None
        if len(of_class):
            needed = inference.lesions_needed(of_class, *bootstrap.seed_noise("recall", label))
        effects[dx] = ClassDifference(
            **bootstrap.difference("recall", arm, reference, label).model_dump(),
            p=p_values.get(dx),
            p_holm=corrected.get(dx),
            lesions=len(of_class),
            few=needed is None or len(of_class) < needed,
            lesions_needed=needed,
        )
    return effects


def lesion_differences(sample: Sample, arm: Predictions, reference: Predictions) -> np.ndarray:
    """Return (L,) arm − reference per lesion: 1 if correct, else 0, the mean over seeds."""
    right, others = (inference.find_correct_lesions(sample, it.probabilities) for it in (arm, reference))
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
        p: p-value of the paired permutation test, corrected for the number of candidates.
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
    fitted: Mapping[str, Fitted],
    rare: Sequence[str],
    seeds: Sequence[int],
    seed: int,
    resamples: int = inference.DRAWS,
) -> Outcome:
    """Return all arms' metrics, the effect of the chosen arm, and the verdict.

    Args:
        sample: the images; some classes may have none.
        arms: predictions of each arm, with the same seeds in the same order.
        fitted: arm → what was fitted on validation.
        rare: the classes of the primary figure.
        seeds: seeds of the models, in that order.
        seed: seed of the resampling.
        resamples: number of resamples.
    """
    rare, chosen = tuple(rare), choose({arm: it.log_loss for arm, it in fitted.items()})
    arm, reference, one_seed = chosen.arm, chosen.reference, len(seeds) == 1
    bootstrap = Bootstrap(sample, arms, rare, derive_seed(seed, "bootstrap"), resamples)
    differences = lesion_differences(sample, arms[arm], arms[reference])
    weighted = weight_differences(sample, differences, rare)
    p, arrangements = inference.sign_flip(weighted, derive_seed(seed, "permutation"))
    p = min(1.0, p * len(chosen.candidates))
    exact = inference.mcnemar(differences[np.isin(np.array(sample.classes)[sample.label], rare)])
    candidates = compare_all(bootstrap, chosen.candidates, reference)
    found = candidates[chosen.candidates.index(arm)]
    effect = Effect(
        value=found.value,
        low=found.low,
        high=found.high,
        metric=METRIC,
        arm=arm,
        reference=reference,
        best_control=chosen.control,
        remedies=compare_all(bootstrap, [arm for arm in arms if arm != BASELINE], BASELINE),
        best=chosen.best,
        by_metric={name: _differences(bootstrap, name, chosen) for name in OTHER_METRICS},
        by_class=_compare_classes(bootstrap, arm, reference, differences, seed),
        mcnemar=exact if one_seed else exact.model_copy(update={"p": None}),
        permutation=Permutation(p=p if one_seed else None, passed=p < LEVEL, draws=arrangements),
        draws=resamples,
    )
    if share_of(arm) is not None:
        effect = _add_doses(effect, bootstrap, chosen, candidates)
    for name in arms:
        if recipe(name).metadata:
            effect = _add_metadata(effect, bootstrap, name)
    return Outcome(
        arms={arm: _describe_arm(bootstrap, arm, arms[arm], fitted[arm], seeds) for arm in arms},
        effect=effect,
        verdict=decide_verdict(effect.low, effect.high, p, float(weighted.sum()), len(seeds)),
    )


def _add_doses(effect: Effect, bootstrap: Bootstrap, chosen: Choice, doses: list[ArmDifference]) -> Effect:
    """Return an effect with the differences that only an arm with synthetic images has."""
    level = LEVEL / (len(chosen.candidates) * len(chosen.controls))
    more = {
        "doses": doses,
        "augmented_minus_best_control": bootstrap.difference("rare_recall", chosen.arm, chosen.control, level=level),
        "augmented_minus_baseline": bootstrap.difference("rare_recall", chosen.arm, BASELINE),
    }
    return effect.model_copy(update=more)


def _add_metadata(effect: Effect, bootstrap: Bootstrap, arm: str) -> Effect:
    """Return an effect with the differences of the arm with metadata to the control."""
    gains = {metric: bootstrap.difference(metric, arm, CONTROL) for metric in ("rare_recall", *OTHER_METRICS)}
    return effect.model_copy(update={"metadata": gains})


def _differences(bootstrap: Bootstrap, metric: str, chosen: Choice) -> MetricDifferences:
    """Return the differences of the chosen arm in a metric."""
    improvement = bootstrap.difference(metric, chosen.arm, BASELINE)
    if chosen.reference == BASELINE:
        return MetricDifferences(improvement=improvement)
    return MetricDifferences(gan=bootstrap.difference(metric, chosen.arm, chosen.reference), improvement=improvement)


def compare_all(bootstrap: Bootstrap, arms: Sequence[str], control: str) -> list[ArmDifference]:
    """Return the arms' differences to another arm in the primary metric, with intervals that hold for all at once."""

    def differ(arm: str) -> Difference:
        return bootstrap.difference("rare_recall", arm, control, level=LEVEL / len(arms))

    return [ArmDifference(arm=arm, **differ(arm).model_dump()) for arm in arms]


def count_images(rows: pd.DataFrame, classes: Sequence[str]) -> dict[str, ImageCounts]:
    """Return class → numbers of images and lesions, for rows with dx and lesion_id."""
    counts = {}
    for dx in classes:
        lesions = rows.loc[rows["dx"] == dx, "lesion_id"]
        counts[dx] = ImageCounts(images=len(lesions), lesions=int(lesions.nunique()))
    return counts
