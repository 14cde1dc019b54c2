"""Compare arms in groups of the test images: by age, sex, site, and estimated skin tone.

The choice of an arm does not use these values, and models do only with the arm or the option `metadata`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields

import numpy as np
import pandas as pd

from components.evaluate.statistics import inference
from components.evaluate.statistics.compare import lesion_differences
from components.evaluate.statistics.inference import Bootstrap
from components.evaluate.statistics.metrics import Predictions, Sample
from components.shared.arms import BASELINE
from components.shared.patient_metadata import normalise
from components.shared.records import (
    OTHER_GROUP,
    UNKNOWN_GROUP,
    Difference,
    Effect,
    Estimate,
    Subgroup,
    SubgroupArm,
    SubgroupAttribute,
    Subgroups,
    comparable_groups,
)
from components.shared.seeds import derive_seed

AGE_BANDS = ((40, "under 40"), (60, "40 to 59"), (np.inf, "60 and over"))
"""Ages below the first number have the second as their group, in years."""
MAX_GROUPS = 8
"""Values of sex and site that are groups; the rarer ones are together one."""


def _age_bands(ages: pd.Series) -> pd.Series:
    limits = [-np.inf, *(limit for limit, _ in AGE_BANDS)]
    return pd.cut(ages, limits, right=False, labels=[name for _, name in AGE_BANDS]).astype(object)


def _common_values(column: pd.Series) -> pd.Series:
    """Return the values in lower case; the rarest are `OTHER_GROUP` if there are more than `MAX_GROUPS`."""
    values = pd.Series(normalise(column), dtype=object)
    common = values.value_counts().sort_index(kind="stable").sort_values(ascending=False, kind="stable")
    return values.where(values.isna() | values.isin(common.index[:MAX_GROUPS]), OTHER_GROUP)


def group_images(rows: pd.DataFrame, tones: Sequence[str | None] | None) -> dict[SubgroupAttribute, np.ndarray]:
    """Return attribute → (N,) str, the group of each image; without attributes that the data lacks.

    Args:
        rows: age, sex and localization of N images; missing values are `UNKNOWN_GROUP`.
        tones: skin tone of each image; None if the images do not show skin.
    """
    columns: dict[SubgroupAttribute, pd.Series] = {
        "age": _age_bands(rows["age"]),
        "sex": _common_values(rows["sex"]),
        "localization": _common_values(rows["localization"]),
        "skin_tone": pd.Series([None] * len(rows) if tones is None else list(tones), dtype=object),
    }
    return {
        name: column.where(column.notna(), UNKNOWN_GROUP).to_numpy(str)
        for name, column in columns.items()
        if column.notna().any()
    }


def _sort_groups(attribute: SubgroupAttribute, groups: np.ndarray) -> list[str]:
    """Return the names of the groups as pages show them: ages and tones in order, others by size."""
    order = {"age": [name for _, name in AGE_BANDS], "skin_tone": ["light", "intermediate", "dark"]}.get(attribute, [])
    names, counts = np.unique(groups, return_counts=True)
    size = dict(zip(names.tolist(), counts.tolist(), strict=True))

    def key(name: str) -> tuple[bool, bool, int, int, str]:
        place = order.index(name) if name in order else len(order)
        return name == UNKNOWN_GROUP, name == OTHER_GROUP, place, -size[name], name

    return sorted(size, key=key)


def _select(predictions: Predictions, inside: np.ndarray) -> Predictions:
    """Return the predictions for some images."""
    parts = (getattr(predictions, field.name) for field in fields(predictions))
    return Predictions(*(None if part is None else part[:, inside] for part in parts))  # type: ignore[arg-type]


def _estimate(found: Difference) -> Estimate:
    return Estimate(value=found.value, low=found.low, high=found.high)


def _describe_group(
    attribute: SubgroupAttribute,
    group: str,
    sample: Sample,
    arms: Mapping[str, Predictions],
    rare: Sequence[str],
    seed: int,
) -> Subgroup:
    """Return the figures of one group; `sample` and `arms` are those of its images, and the last two are compared."""
    bootstrap = Bootstrap(sample, arms, tuple(rare), derive_seed(seed, "subgroups", attribute, group))
    names = np.array(sample.classes)[sample.label]
    is_rare, needed = np.isin(names, rare), None
    *_, other, arm = arms
    if is_rare.any():
        differences = lesion_differences(sample, arms[arm], arms[other])[is_rare]
        needed = inference.lesions_needed(differences, *bootstrap.seed_noise("rare_recall"))
    return Subgroup(
        attribute=attribute,
        group=group,
        images=len(sample.truth),
        lesions=len(sample.label),
        rare_lesions=int(is_rare.sum()),
        malignant_lesions=int(np.isin(names, sample.malignant).sum()),
        few=needed is None or int(is_rare.sum()) < needed,
        lesions_needed=needed,
        arms={
            arm: SubgroupArm(
                rare_recall=_estimate(bootstrap.difference("rare_recall", arm)),
                malignant_sensitivity=_estimate(bootstrap.difference("malignant_sensitivity", arm)),
                ece_scaled=bootstrap.difference("ece_scaled", arm).value,
            )
            for arm in arms
        },
    )


def find_worst(groups: Sequence[Subgroup], arm: str) -> int | None:
    """Return the number of the group in which an arm has the lowest recall of the rare classes.

    Returns:
        The number; None if no group is comparable, or several are and have the same recall.
    """
    compared = comparable_groups(groups, arm)
    values = [it.arms[arm].rare_recall.value or 0.0 for it in compared]
    if not values or (len(values) > 1 and min(values) == max(values)):
        return None
    return groups.index(compared[values.index(min(values))])


def compare_subgroups(
    attributes: Mapping[SubgroupAttribute, np.ndarray],
    sample: Sample,
    predictions: Mapping[str, Predictions],
    effect: Effect,
    rare: Sequence[str],
    seed: int,
) -> Subgroups | None:
    """Return the figures of the baseline, the best control and the chosen arm in each group; None without attributes.

    Args:
        attributes: from `group_images`.
        sample: the test images.
        predictions: arm → its predictions for them.
        effect: names the arms.
        rare: the classes of the primary figure.
        seed: seed of the resampling.
    """
    if not attributes:
        return None
    arms = list(dict.fromkeys((BASELINE, effect.best_control, effect.arm)))
    groups = []
    for attribute, names in attributes.items():
        for group in _sort_groups(attribute, names):
            inside = names == group
            part = Sample(sample.truth[inside], sample.lesion[inside], sample.classes, sample.malignant)
            selected = {arm: _select(predictions[arm], inside) for arm in arms}
            groups.append(_describe_group(attribute, group, part, selected, rare, seed))
    return Subgroups(arms=arms, groups=groups, worst=find_worst(groups, effect.arm))
