"""Groups of test images, and the figures of the arms in them."""

import numpy as np
import pandas as pd
import pytest

from components.evaluate.report.formatting import describe_small_groups, describe_worst_group
from components.evaluate.statistics.compare import Fitted, compare
from components.evaluate.statistics.metrics import Predictions, Sample
from components.evaluate.statistics.subgroups import MAX_GROUPS, compare_subgroups, find_worst, group_images
from components.shared.records import OTHER_GROUP, Effect, Estimate, Subgroup, SubgroupArm, Subgroups

CLASSES = ("a", "b", "c")
ARMS = ("baseline", "oversampled", "class_weights", "augmented@1")
FITTED = {arm: Fitted(loss, [1.0, 1.0], 0.0) for arm, loss in zip(ARMS, (1.0, 0.9, 0.8, 0.7), strict=True)}


def table(**columns: list[object]) -> pd.DataFrame:
    count = len(next(iter(columns.values())))
    empty = {"age": [np.nan] * count, "sex": [None] * count, "localization": [None] * count}
    return pd.DataFrame(empty | columns)


def test_group_images_ages_are_bands() -> None:
    groups = group_images(table(age=[0.0, 39.9, 40.0, 59.0, 60.0, 85.0, np.nan]), None)
    assert list(groups) == ["age"]
    assert groups["age"].tolist() == [
        "under 40", "under 40", "40 to 59", "40 to 59", "60 and over", "60 and over", "unknown",
    ]  # fmt: skip


def test_group_images_values_are_normalised_and_missing_ones_are_unknown() -> None:
    groups = group_images(table(sex=["Male", " male", "FEMALE", "unknown", None, "", "n/a"]), None)
    assert groups["sex"].tolist() == ["male", "male", "female", *["unknown"] * 4]


def test_group_images_rare_values_are_together() -> None:
    sites = [f"site {n}" for n in range(MAX_GROUPS + 3) for _ in range(20 - n)]
    groups = group_images(table(localization=sites), None)["localization"]
    assert set(groups) == {f"site {n}" for n in range(MAX_GROUPS)} | {OTHER_GROUP}
    assert (groups == OTHER_GROUP).sum() == sum(20 - n for n in range(MAX_GROUPS, MAX_GROUPS + 3))


def test_group_images_without_metadata_has_no_attribute() -> None:
    assert group_images(table(age=[np.nan] * 3), None) == {}
    assert group_images(table(age=[np.nan] * 3), [None] * 3) == {}
    assert group_images(table(age=[np.nan] * 3), ["dark", None, "light"])["skin_tone"].tolist() == [
        "dark", "unknown", "light",
    ]  # fmt: skip


def worlds(right: dict[str, tuple[float, float]]) -> tuple[Sample, dict[str, Predictions], Effect, np.ndarray]:
    """Return arms that classify men and women correctly with given probabilities; class b is rare, c positive."""
    rng = np.random.default_rng(1)
    truth = np.tile(np.repeat([0, 1, 2], [60, 200, 40]), 2)
    sex = np.repeat(["male", "female"], 300)
    sample = Sample(truth, np.arange(600).astype(str), CLASSES, ("c",))
    predictions = {}
    for arm, (men, women) in right.items():
        hit = rng.random((2, 600)) < np.where(sex == "male", men, women)
        probabilities = 0.9 * np.eye(3)[np.where(hit, truth, (truth + 1) % 3)] + 0.1 / 3
        predictions[arm] = Predictions(probabilities, probabilities, probabilities[..., 2] > 0.5)
    return sample, predictions, compare(sample, predictions, FITTED, ["b"], [1, 2], 0).effect, sex


def test_compare_subgroups_has_the_figures_of_each_group() -> None:
    sample, predictions, effect, sex = worlds(dict.fromkeys(ARMS, (0.9, 0.5)))
    found = compare_subgroups({"sex": sex}, sample, predictions, effect, ["b"], 0)
    assert found is not None
    assert found.arms == ["baseline", "class_weights", "augmented@1"]
    assert [(it.group, it.images, it.lesions, it.rare_lesions, it.malignant_lesions) for it in found.groups] == [
        ("female", 300, 300, 200, 40), ("male", 300, 300, 200, 40),
    ]  # fmt: skip
    for group in found.groups:
        inside, rare = sex == group.group, sample.truth == 1
        for arm in found.arms:
            of_arm, figures = predictions[arm], group.arms[arm]
            labels = of_arm.probabilities.argmax(2)
            recall = (labels[:, inside & rare] == 1).mean()
            assert figures.rare_recall.value == pytest.approx(recall)
            assert figures.rare_recall.low is not None
            assert figures.rare_recall.high is not None
            assert figures.rare_recall.low < recall < figures.rare_recall.high
            assert of_arm.alarms is not None
            expected = of_arm.alarms[:, inside & (sample.truth == 2)].mean()
            assert figures.malignant_sensitivity.value == pytest.approx(expected)
            # All confidences are 0.933 in one bin: the error is their distance to the accuracy.
            accuracies = (labels[:, inside] == sample.truth[inside]).mean(1)
            assert figures.ece_scaled == pytest.approx(np.abs(0.9 + 0.1 / 3 - accuracies).mean())
    assert found.worst == 0  # women


def test_compare_subgroups_flags_groups_with_too_few_lesions() -> None:
    """Of arms that agree, a difference would be detected in the larger group only."""
    sample, predictions, effect, _ = worlds(dict.fromkeys(ARMS, (1.0, 1.0)))
    groups = np.full(600, "many")
    groups[np.flatnonzero(sample.truth == 1)[:20]] = "few"
    groups[np.flatnonzero(sample.truth == 0)[:7]] = "none"
    found = compare_subgroups({"localization": groups}, sample, predictions, effect, ["b"], 0)
    assert found is not None
    by_name = {it.group: it for it in found.groups}
    assert [(name, it.rare_lesions, it.few) for name, it in by_name.items()] == [
        ("many", 380, False), ("few", 20, True), ("none", 0, True),
    ]  # fmt: skip
    assert by_name["few"].lesions_needed is not None
    assert 20 < by_name["few"].lesions_needed < 380
    assert by_name["none"].lesions_needed is None
    assert by_name["none"].arms["baseline"].rare_recall == Estimate(value=None, low=None, high=None)
    assert found.worst is not None
    assert found.groups[found.worst].group == "many"  # the others are too small to be named before it


def test_compare_subgroups_without_attributes_is_none() -> None:
    sample, predictions, effect, _ = worlds(dict.fromkeys(ARMS, (0.9, 0.5)))
    assert compare_subgroups({}, sample, predictions, effect, ["b"], 0) is None


def subgroup(name: str, recall: float | None, few: bool) -> Subgroup:
    estimate = Estimate(value=recall, low=None, high=None)
    arm = SubgroupArm(rare_recall=estimate, malignant_sensitivity=estimate, ece_scaled=None)
    return Subgroup(
        attribute="sex", group=name, images=1, lesions=1, rare_lesions=1, malignant_lesions=0, few=few,
        lesions_needed=None, arms={"augmented@1": arm},
    )  # fmt: skip


def test_find_worst_prefers_groups_with_enough_lesions_and_names_no_unknown_one() -> None:
    groups = [subgroup("x", 0.2, True), subgroup("y", 0.5, False), subgroup("z", 0.4, False)]
    groups += [subgroup("unknown", 0.0, False), subgroup(OTHER_GROUP, 0.0, False), subgroup("none", None, False)]
    assert find_worst(groups, "augmented@1") == 2
    assert find_worst([groups[0], *groups[3:]], "augmented@1") == 0
    assert find_worst(groups[3:], "augmented@1") is None


def test_a_sex_that_the_data_calls_other_is_a_group_of_people() -> None:
    names = [f"s{n}" for n in range(MAX_GROUPS - 1) for _ in range(3)] + ["Other"] * 3 + ["s90", "s91"]
    groups = group_images(table(sex=names), None)["sex"]
    assert (groups == "other").sum() == 3
    assert find_worst([subgroup("other", 0.2, False), subgroup("x", 0.5, False)], "augmented@1") == 0


def test_find_worst_of_groups_with_the_same_recall_is_none() -> None:
    groups = [subgroup("x", 0.2, True), subgroup("y", 1.0, False), subgroup("z", 1.0, False)]
    assert find_worst(groups, "augmented@1") is None
    assert find_worst(groups[:2], "augmented@1") == 1


@pytest.mark.parametrize(
    ("recalls", "few", "end"),
    [
        ((0.4, 0.6), False, "0.400 (n/a) on 1 images of them, the lowest of 2 groups with enough images."),
        ((0.4, 0.6), True, "0.400 (n/a) on 1 images of them, the lowest of 2 groups with too few images."),
        ((1.0, 1.0), True, "All 2 groups with images of rare classes have recall 1.000 with augmented 100 %; all have "
         "too few images to compare."),
        ((1.0, 1.0), False, "All 2 groups with enough images have recall 1.000 with augmented 100 %."),
        ((0.4,), False, "0.400 (n/a) on 1 images of them, the only one of the groups with enough images."),
    ],
)  # fmt: skip
def test_describe_worst_group_counts_the_groups_that_were_compared(
    recalls: tuple[float, ...], few: bool, end: str
) -> None:
    groups = [subgroup(f"g{number}", recall, few) for number, recall in enumerate(recalls)]
    groups += [subgroup("unknown", 0.1, few), subgroup("none", None, few)] + [subgroup("small", 0.1, True)] * (not few)
    worst = find_worst(groups, "augmented@1")
    text = describe_worst_group(Subgroups(arms=["augmented@1"], groups=groups, worst=worst), "image")
    assert text.endswith(end)
    assert text.startswith("Worst-off group" if worst == 0 else "All 2 groups")


def test_describe_small_groups_states_once_that_all_are_too_small() -> None:
    groups = [subgroup(name, 1.0, True) for name in "xy"]
    found = Subgroups(arms=["augmented@1"], groups=groups, worst=None)
    found = found.model_copy(update={"arms": ["baseline", "oversampled", "augmented@1"]})
    small = (
        "Every group has too few lesions: a difference of 0.10 between augmented 100 % and oversampled would most "
        "likely be missed."
    )
    assert describe_small_groups(found, "lesion") == small
    sized = [groups[0].model_copy(update={"lesions_needed": number}) for number in (1200, 391)]
    some = found.model_copy(update={"groups": [*groups, *sized]})
    assert describe_small_groups(some, "lesion") == f"{small} A group needs at least 391 lesions of rare classes."
    enough = found.model_copy(update={"groups": [*groups, subgroup("z", 1.0, False)]})
    assert describe_small_groups(enough, "lesion") == describe_small_groups(None, "lesion") == ""
