"""The comparison of the arms: the form of metrics.json, means over seeds, and the verdict."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from components.evaluate.statistics import inference
from components.evaluate.statistics.compare import (
    Fitted,
    choose,
    compare,
    count_images,
    decide_verdict,
    lesion_differences,
    weight_differences,
)
from components.evaluate.statistics.metrics import SCALARS, Predictions, Sample
from components.shared.records import ImageCounts
from tests.helpers.example_results import ARMS

CLASSES = ("a", "b", "c")
FITTED = dict.fromkeys(ARMS, Fitted(1.0, [1.0], 0.0))


def compare_arms(*arguments: Any) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Return metrics by arm, effect and verdict of `compare`, in the form of `metrics.json`."""
    outcome = compare(*arguments).model_dump()
    return outcome["arms"], outcome["effect"], outcome["verdict"]


def one_hot(labels: np.ndarray) -> Predictions:
    probabilities = np.eye(3)[labels]
    return Predictions(probabilities, probabilities)


def arms(truth: np.ndarray, right: dict[str, float], seeds: int, seed: int = 2) -> dict[str, Predictions]:
    """Return predictions that are correct with a given probability."""
    rng = np.random.default_rng(seed)
    return {
        arm: one_hot(np.where(rng.random((seeds, len(truth))) < share, truth, (truth + 1) % 3))
        for arm, share in right.items()
    }


@pytest.mark.parametrize(
    ("augmented", "seeds", "expected"),
    [(0.9, 3, "improved"), (0.5, 3, "no evidence"), (0.1, 3, "worse"), (0.9, 1, "not established")],
)
def test_compare_known_effect_gets_its_verdict(augmented: float, seeds: int, expected: str) -> None:
    truth = np.repeat([0, 1, 2], [100, 60, 60])
    sample = Sample(truth, np.arange(220).astype(str), CLASSES)
    predictions = arms(truth, {"baseline": 0.5, "oversampled": 0.5, "augmented@1": augmented}, seeds)
    figures, effect, found = compare_arms(sample, predictions, FITTED, ["b", "c"], range(seeds), 0)
    assert found == expected
    assert effect["low"] < augmented - 0.5 < effect["high"]
    assert effect["value"] == pytest.approx(
        figures["augmented@1"]["rare_recall"] - figures["oversampled"]["rare_recall"]
    )
    assert set(effect["by_class"]) == set(CLASSES)
    for name, both in effect["by_metric"].items():
        if both["gan"]["value"] is not None:
            assert both["gan"]["value"] == pytest.approx(figures["augmented@1"][name] - figures["oversampled"][name])


def test_compare_three_lesions_establish_nothing() -> None:
    """Three lesions, all lost: the permutation test has 8 arrangements, of which 2 are as extreme."""
    truth = np.array([0] * 20 + [1] * 3)
    sample = Sample(truth, np.arange(23).astype(str), CLASSES)
    control, augmented = one_hot(truth[None]), one_hot(np.zeros((1, 23), int))
    predictions = {"baseline": control, "oversampled": control, "augmented@1": augmented}
    _, effect, found = compare_arms(sample, predictions, FITTED, ["b"], [1], 0)
    assert (effect["value"], effect["low"]) == (-1, -1)
    assert effect["mcnemar"] == {"lesions_gained": 0, "lesions_lost": 3, "p": 0.25}
    assert effect["permutation"] == {"p": 0.25, "passed": False, "draws": 8}
    assert found == "not established"  # one seed
    assert effect["by_class"]["b"]["few"]
    assert effect["by_class"]["c"] == {
        "value": None, "low": None, "high": None, "p": None, "p_holm": None, "lesions": 0, "few": True,
        "lesions_needed": None,
    }  # fmt: skip


def test_compare_figures_are_means_over_seeds_and_counts_are_sums() -> None:
    truth = np.repeat([0, 1, 2], [30, 20, 10])
    sample = Sample(truth, np.arange(60).astype(str), CLASSES, ("b",))
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), (2, 60))
    predictions = dict.fromkeys(ARMS, Predictions(probabilities, probabilities, probabilities[..., 1] > 0.5))
    figures, effect, _ = compare_arms(sample, predictions, FITTED, ["c"], [7, 8], 0)
    arm = figures["baseline"]
    assert list(arm["by_seed"]) == ["7", "8"]
    for name in SCALARS:
        assert arm[name] == pytest.approx(np.mean([arm["by_seed"][seed][name] for seed in ("7", "8")]))
        low, high = arm["intervals"][name]
        assert (low is None) == (name in inference.WITHOUT_INTERVAL)
        assert low is None or low <= arm[name] <= high
    assert np.sum(arm["confusion"]) == 120
    assert arm["support"] == {"a": 30, "b": 20, "c": 10}
    assert arm["recall"]["a"] == pytest.approx(arm["confusion"][0][0] / 60)
    assert effect["draws"] == inference.DRAWS
    json.dumps([figures, effect], allow_nan=False)


def test_compare_without_images_of_a_rare_class_gives_no_evidence() -> None:
    truth = np.repeat([0, 1], [5, 5])
    sample = Sample(truth, np.arange(10).astype(str), CLASSES)
    predictions = dict.fromkeys(ARMS, one_hot(np.stack([truth, truth])))
    figures, effect, found = compare_arms(sample, predictions, FITTED, ["c"], [1, 2], 0)
    assert found == "no evidence"
    assert (effect["value"], figures["augmented@1"]["rare_recall"], figures["augmented@1"]["recall"]["c"]) == (
        None,
    ) * 3
    assert not effect["permutation"]["passed"]
    json.dumps([figures, effect], allow_nan=False)


def test_compare_several_seeds_have_no_p_values() -> None:
    """Regression: seeds that disagree totally had p = 1e-7 beside an interval of (−1, +1).

    A test of lesions takes the seeds' models as given; with several seeds no p-value is reported.
    """
    truth = np.repeat([0, 1], [10, 60])
    sample = Sample(truth, np.arange(70).astype(str), CLASSES)
    right, wrong = truth, np.where(truth == 1, 0, truth)
    predictions = {
        "baseline": one_hot(np.stack([right, right, right])),
        "oversampled": one_hot(np.stack([right, wrong, wrong])),
        "augmented@1": one_hot(np.stack([wrong, right, right])),
    }
    _, effect, found = compare_arms(sample, predictions, FITTED, ["b"], [1, 2, 3], 0)
    assert (effect["low"], effect["high"]) == (-1, 1)
    assert found == "no evidence"
    assert effect["mcnemar"] == {"lesions_gained": 60, "lesions_lost": 0, "p": None}
    assert effect["permutation"]["p"] is None
    assert [(it["p"], it["p_holm"]) for it in effect["by_class"].values()] == [(None, None)] * 3
    assert effect["by_class"]["b"]["few"]
    assert effect["by_class"]["b"]["lesions_needed"] is None


def test_lesion_differences_prediction_is_the_mean_over_images() -> None:
    """Lesion x: .9 and .2 for its class, .55 in the mean: right. Over two seeds the difference is the mean."""
    sample = Sample(np.array([0, 0, 1]), np.array(["x", "x", "y"]), ("a", "b"))
    surely = np.array([[[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]], [[0.1, 0.9], [0.1, 0.9], [0.4, 0.6]]])
    never = np.array([[[0.1, 0.9], [0.1, 0.9], [0.9, 0.1]]] * 2)
    differences = lesion_differences(sample, Predictions(surely, surely), Predictions(never, never))
    assert differences.tolist() == [0.5, 1.0]
    assert weight_differences(sample, differences, ["b"]).tolist() == [1.0]


def test_weight_differences_sum_is_the_primary_figure() -> None:
    truth = np.repeat([0, 1, 2], [30, 20, 10])
    sample = Sample(truth, np.arange(60).astype(str), CLASSES)
    predictions = arms(truth, {"oversampled": 0.5, "baseline": 0.5, "augmented@1": 0.7}, 3)
    _, effect, _ = compare_arms(sample, predictions, FITTED, ["b", "c"], [1, 2, 3], 0)
    differences = lesion_differences(sample, predictions["augmented@1"], predictions["oversampled"])
    assert weight_differences(sample, differences, ["b", "c"]).sum() == pytest.approx(effect["value"])


def test_compare_same_seed_gives_the_same_intervals() -> None:
    truth = np.repeat([0, 1, 2], 12)
    sample = Sample(truth, np.arange(36).astype(str), CLASSES)
    predictions = arms(truth, dict.fromkeys(ARMS, 0.6), 2)
    results = [compare_arms(sample, predictions, FITTED, ["b"], [1, 2], seed) for seed in (5, 5, 6)]
    assert results[0] == results[1]
    assert results[0][1] != results[2][1]


def test_choose_takes_the_lowest_loss_of_each_kind() -> None:
    losses = {"baseline": 1.0, "oversampled": 0.9, "class_weights": 0.8, "augmented@0.5": 0.85, "augmented@1": 0.95}
    chosen = choose(losses)
    assert (chosen.arm, chosen.control, chosen.best) == ("augmented@0.5", "class_weights", "class_weights")
    assert (chosen.candidates, chosen.reference) == (("augmented@0.5", "augmented@1"), "oversampled")
    assert chosen.controls == ("oversampled", "class_weights")
    assert choose(losses | {"baseline": 0.1}).best == "baseline"


def test_choose_takes_an_arm_with_metadata_as_best_but_not_as_control() -> None:
    """Synthetic images are not compared with an arm that gets more than images."""
    chosen = choose({"baseline": 1.0, "oversampled": 0.9, "metadata": 0.1, "augmented@1": 0.5})
    assert (chosen.control, chosen.best, chosen.controls) == ("oversampled", "metadata", ("oversampled",))


def test_choose_without_synthetic_images_compares_a_remedy_with_the_baseline() -> None:
    losses = {"baseline": 0.5, "oversampled": 0.9, "class_weights": 0.8, "metadata": 0.1}
    chosen = choose(losses)
    assert (chosen.arm, chosen.reference, chosen.best) == ("class_weights", "baseline", "metadata")
    assert chosen.candidates == chosen.controls == ("oversampled", "class_weights")


def test_compare_without_synthetic_images_reports_the_remedy_and_corrects_for_the_others() -> None:
    """The best arm on test is not the chosen one; its intervals are those of the gains, of which there are as many."""
    truth = np.repeat([0, 1, 2], [100, 60, 60])
    sample = Sample(truth, np.arange(220).astype(str), CLASSES)
    right = {"baseline": 0.4, "oversampled": 0.9, "class_weights": 0.7}
    losses = dict.fromkeys(right, 1.0) | {"class_weights": 0.5}
    fitted = {arm: Fitted(loss, [1.0], 0.0) for arm, loss in losses.items()}
    predictions = arms(truth, right, 3)
    outcome = compare(sample, predictions, fitted, ["b", "c"], [1, 2, 3], 0)
    effect, recalls = outcome.effect, {arm: outcome.arms[arm].rare_recall for arm in right}
    assert (effect.arm, effect.reference, effect.best_control) == ("class_weights", "baseline", "class_weights")
    assert effect.value == pytest.approx(recalls["class_weights"] - recalls["baseline"])
    gain = next(it for it in effect.remedies if it.arm == "class_weights")
    assert (gain.value, gain.low, gain.high) == (effect.value, effect.low, effect.high)
    assert outcome.verdict == "improved"
    assert (effect.doses, effect.augmented_minus_best_control, effect.augmented_minus_baseline) == ([], None, None)
    assert effect.by_metric["accuracy"].gan is None
    assert effect.by_metric["accuracy"].effect.value == pytest.approx(
        outcome.arms["class_weights"].accuracy - outcome.arms["baseline"].accuracy
    )
    of_class = effect.by_class["b"]
    assert of_class.value == pytest.approx(
        outcome.arms["class_weights"].recall["b"] - outcome.arms["baseline"].recall["b"]
    )
    written = outcome.model_dump(exclude_unset=True)["effect"]
    assert not {"doses", "augmented_minus_best_control", "augmented_minus_baseline"} & set(written)
    alone = {arm: it for arm, it in predictions.items() if arm != "oversampled"}
    _, single, _ = compare_arms(sample, alone, {arm: fitted[arm] for arm in alone}, ["b", "c"], [1, 2, 3], 0)
    assert effect.high - effect.low > 1.05 * (single["high"] - single["low"])


def test_compare_reports_the_share_that_validation_chose_and_corrects_for_the_others() -> None:
    """The best arm on test is not the chosen one; the chosen one's interval is wider than without a choice."""
    truth = np.repeat([0, 1, 2], [100, 60, 60])
    sample = Sample(truth, np.arange(220).astype(str), CLASSES)
    right = {"baseline": 0.4, "oversampled": 0.5, "class_weights": 0.6, "augmented@0.5": 0.6, "augmented@1": 0.9}
    predictions = arms(truth, right, 3)
    losses = dict.fromkeys(right, 1.0) | {"augmented@0.5": 0.5, "class_weights": 0.6}
    fitted = {arm: Fitted(loss, [1.0], 0.0) for arm, loss in losses.items()}
    figures, effect, _ = compare_arms(sample, predictions, fitted, ["b", "c"], [1, 2, 3], 0)
    assert (effect["arm"], effect["best_control"], effect["best"]) == (
        "augmented@0.5",
        "class_weights",
        "augmented@0.5",
    )
    recalls = {arm: figures[arm]["rare_recall"] for arm in right}
    assert effect["value"] == pytest.approx(recalls["augmented@0.5"] - recalls["oversampled"])
    assert effect["augmented_minus_best_control"]["value"] == pytest.approx(
        recalls["augmented@0.5"] - recalls["class_weights"]
    )
    assert [it["arm"] for it in effect["doses"]] == ["augmented@0.5", "augmented@1"]
    assert effect["doses"][0]["low"] == effect["low"]
    for it in effect["remedies"]:
        assert it["value"] == pytest.approx(recalls[it["arm"]] - recalls["baseline"])
    alone = {arm: predictions[arm] for arm in ("baseline", "oversampled", "augmented@0.5")}
    _, single, _ = compare_arms(sample, alone, {arm: fitted[arm] for arm in alone}, ["b", "c"], [1, 2, 3], 0)
    assert effect["high"] - effect["low"] > 1.1 * (single["high"] - single["low"])


@pytest.mark.parametrize(
    ("low", "high", "p", "direction", "seeds", "expected"),
    [
        (0.01, 0.2, 0.04, 1, 3, "improved"),
        (-0.2, -0.01, 0.04, -1, 3, "worse"),
        (0.0, 0.2, 0.001, 1, 3, "no evidence"),
        (0.01, 0.2, 0.05, 1, 3, "no evidence"),
        (None, None, 0.001, 1, 3, "no evidence"),
        (0.01, 0.2, 0.013, -25, 3, "no evidence"),  # regression: 35 lesions gained, 60 lost, "improved"
        (-0.2, -0.01, 0.013, 25, 3, "no evidence"),
        (0.01, 0.2, 0.001, 1, 1, "not established"),
        (-0.01, 0.2, 0.9, 1, 1, "not established"),
    ],
)
def test_decide_verdict_requires_seeds_interval_and_test(
    low: float | None, high: float | None, p: float, direction: float, seeds: int, expected: str
) -> None:
    assert decide_verdict(low, high, p, direction, seeds) == expected


def test_count_images_counts_images_and_lesions() -> None:
    rows = pd.DataFrame({"dx": ["a", "a", "b"], "lesion_id": ["x", "x", "y"]})
    assert count_images(rows, ("a", "b", "c")) == {
        "a": ImageCounts(images=2, lesions=1),
        "b": ImageCounts(images=1, lesions=1),
        "c": ImageCounts(images=0, lesions=0),
    }
