"""Options for the use of synthetic images: rows, weights and schedule of an arm, and trainings with them."""

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.shared.arms import Use, recipe
from components.shared.batches import endless_batches
from components.shared.files import file_sha256
from components.shared.image_set import Pixels
from components.shared.records import ClassifierRecord, load_record
from components.train_classifier.networks import cnn
from components.train_classifier.train import (
    BATCH_SIZE,
    Stage,
    batches,
    compile_model,
    plan_stages,
    row_smoothing,
    row_weights,
    smooth_labels,
    staged_batches,
)
from tests.helpers.training import train_pack

ADDED = 20
EPOCHS = 4
REAL = 84
"""Real training images of `pool`: 10 of df, 60 of nv, 14 of vasc; df and vasc are rare."""


def stages_of(pool: Pixels, arm: str, use: Use, epochs: int = EPOCHS) -> list[Stage]:
    return plan_stages(pool, recipe(arm, use), ["df", "vasc"], ADDED, 7, epochs)


def run(training_data: Path, synthetic_images: Path, folder: Path, **changes: Any) -> Path:
    """Train an augmented arm with a checkpoint after each epoch, and return the model."""
    settings = {"epochs": EPOCHS, "synthetic_images": synthetic_images, "synthetic_per_class": ADDED}
    settings |= {"checkpoint_interval_s": 0.0}
    models = train_pack(training_data, folder / "classifiers", "augmented@0.5:1*", **(settings | changes))
    return models / "augmented@0.5.keras"


def weights_of(stage: Stage) -> np.ndarray:
    assert stage.weights is not None
    return stage.weights


def load(model: Path) -> ClassifierRecord:
    return load_record(model.with_suffix(".json"), ClassifierRecord)


@pytest.fixture(scope="module")
def plain(training_data: Path, synthetic_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that was trained with the options' defaults."""
    return run(training_data, synthetic_images, tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize(
    ("until", "epochs", "expected"), [(1, 7, 7), (0.5, 4, 2), (0.5, 5, 2), (0.3, 10, 3), (0.29, 100, 29), (0.01, 20, 1)]
)
def test_mixed_epochs_are_the_share_rounded_down_and_at_least_one(until: float, epochs: int, expected: int) -> None:
    assert recipe("augmented@1", Use(until)).mixed_epochs(epochs) == expected


def test_plan_stages_by_default_is_one_stage(pool: Pixels) -> None:
    assert [stage.first_epoch for stage in stages_of(pool, "augmented@1", Use())] == [0]
    assert [stage.first_epoch for stage in stages_of(pool, "augmented@1", Use(0.5), epochs=1)] == [0]


def test_plan_stages_of_an_arm_without_synthetic_images_do_not_depend_on_the_option(pool: Pixels) -> None:
    for arm in ("baseline", "oversampled", "balanced_sampling"):
        (default,), (stage,) = stages_of(pool, arm, Use()), stages_of(pool, arm, Use(0.5))
        assert default.pixels.repeat.tolist() == stage.pixels.repeat.tolist()


def test_plan_stages_after_the_switch_have_the_rows_of_the_control(pool: Pixels) -> None:
    first, then = stages_of(pool, "augmented@0.5", Use(0.5))
    (control,), (mixed,) = stages_of(pool, "oversampled", Use()), stages_of(pool, "augmented@0.5", Use())
    assert (first.first_epoch, then.first_epoch) == (0, 2)
    assert first.pixels.repeat.tolist() == mixed.pixels.repeat.tolist()
    assert then.pixels.repeat.tolist() == control.pixels.repeat.tolist() != mixed.pixels.repeat.tolist()
    assert first.pixels.repeat.sum() == then.pixels.repeat.sum() == REAL + 2 * ADDED


def test_staged_batches_by_default_are_those_of_the_rows(pool: Pixels) -> None:
    stages = stages_of(pool, "augmented@0.5", Use())
    found, expected = staged_batches(stages, 3, 1, 1, 2), batches(stages[0].pixels, 1, 2, skipped=3)
    for one, other in islice(zip(found, expected, strict=False), 6):
        assert len(one) == len(other) == 2
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


@pytest.mark.parametrize("first_epoch", [0, 1, 2, 3])
def test_staged_batches_are_those_of_the_arm_then_those_of_the_control(pool: Pixels, first_epoch: int) -> None:
    """Images, flips and labels are equal step by step, wherever a resumed training begins."""
    steps = 3

    def batches_of(arm: str, use: Use, first_epoch: int = 0) -> list[Any]:
        return list(islice(staged_batches(stages_of(pool, arm, use), steps, first_epoch, 1, 2), EPOCHS * steps))

    mixed, control = batches_of("augmented@0.5", Use()), batches_of("oversampled", Use())
    expected = [*mixed[: 2 * steps], *control[2 * steps :]][first_epoch * steps :]
    found = batches_of("augmented@0.5", Use(0.5), first_epoch)
    for (images, labels), (expected_images, expected_labels) in zip(found, expected, strict=False):
        np.testing.assert_array_equal(images, expected_images)
        np.testing.assert_array_equal(labels, expected_labels)
    assert any((a[0] != b[0]).any() for a, b in zip(mixed, control, strict=True))


def with_every_class(pool: Pixels) -> Pixels:
    """Return the pool with 5 synthetic images of nv, 20 of df and 15 of vasc."""
    labels = pool.labels.copy()
    labels[np.flatnonzero(~pool.real & (labels == 2))[:5]] = 1
    return replace(pool, labels=labels)


def test_count_rows_with_synthetic_images_of_every_class_have_the_same_share_of_each(pool: Pixels) -> None:
    every = with_every_class(pool)
    (control,), (stage,) = (
        stages_of(every, arm, Use(synthetic_scope="all")) for arm in ("oversampled", "augmented@0.25")
    )
    counts = stage.pixels.repeat
    assert counts[pool.real].tolist() == control.pixels.repeat[pool.real].tolist()
    of_real, of_synthetic = (np.bincount(every.labels[part], counts[part], 3) for part in (pool.real, ~pool.real))
    assert of_real.tolist() == [30, 60, 34]
    assert of_synthetic.tolist() == [10, 20, 12]  # a third of the real ones, rounded up
    assert sorted(counts[~pool.real & (every.labels == 0)]) == [0] * 10 + [1] * 10
    assert counts[~pool.real & (every.labels == 1)].tolist() == [4] * 5


def test_count_rows_with_a_class_without_synthetic_images_keep_the_sizes_of_the_classes(pool: Pixels) -> None:
    (stage,) = stages_of(pool, "augmented@0.25", Use(synthetic_scope="all"))  # no synthetic image of nv
    assert np.bincount(pool.labels, stage.pixels.repeat, 3).tolist() == [40, 80, 46]


def test_row_weights_with_synthetic_images_of_every_class_keep_the_proportions_of_the_classes(pool: Pixels) -> None:
    every, use = with_every_class(pool), Use(synthetic_weight=0.25, synthetic_scope="all")
    (control,), (stage,) = stages_of(every, "oversampled", use), stages_of(every, "augmented@0.5", use)
    totals = [np.bincount(every.labels, weights_of(it) * it.pixels.repeat, 3) for it in (control, stage)]
    shares = [total / total.sum() for total in totals]
    np.testing.assert_allclose(*shares, rtol=1e-6)  # float32; half of each class needs no rounding


def test_plan_stages_after_the_switch_with_every_class_have_the_rows_of_the_control(pool: Pixels) -> None:
    _, then = stages_of(with_every_class(pool), "augmented@0.5", Use(0.5, synthetic_scope="all"))
    (control,) = stages_of(pool, "oversampled", Use())
    assert then.pixels.repeat.tolist() == control.pixels.repeat.tolist()


def test_row_weights_by_default_are_equal(pool: Pixels) -> None:
    for arm in ("baseline", "oversampled", "augmented@0.5", "balanced_sampling"):
        assert [stage.weights for stage in stages_of(pool, arm, Use())] == [None]


def test_row_weights_of_arms_without_added_images_do_not_depend_on_the_option(pool: Pixels) -> None:
    for arm in ("baseline", "balanced_sampling", "logit_adjustment"):
        assert [stage.weights for stage in stages_of(pool, arm, Use(synthetic_weight=0.25))] == [None]
    (default,), (stage,) = (stages_of(pool, "class_weights", use) for use in (Use(), Use(synthetic_weight=0.25)))
    np.testing.assert_array_equal(weights_of(default), weights_of(stage))


def test_row_weights_are_those_of_one_image_and_its_additional_occurrences(pool: Pixels) -> None:
    rows = np.flatnonzero(pool.labels == 0)[[0, 1, 2, -1]]  # df: three real rows and a synthetic one
    few = replace(pool, labels=pool.labels[rows], source=pool.source[rows])
    assert few.real.tolist() == [True, True, True, False]
    counts = np.array([1, 2, 5, 1])
    weights = row_weights(few, counts, recipe("augmented@0.5", Use(synthetic_weight=0.25)))
    assert weights is not None
    # Nine occurrences: 1, then 1 and ¼, then 1 and four times ¼, then ¼, with the mean 4.5 / 9.
    assert weights.tolist() == pytest.approx([2.0, 1.25, 0.8, 0.5])
    assert np.average(weights, weights=counts) == pytest.approx(1)


def test_row_weights_give_each_class_the_same_weight_in_all_arms_that_add_images(pool: Pixels) -> None:
    expected = np.array([10 + 20 * 0.25, 60, 14 + 20 * 0.25])
    expected *= (REAL + 2 * ADDED) / expected.sum()
    for arm in ("oversampled", "strong_augmentation", "augmented@0.5", "augmented@1"):
        (stage,) = stages_of(pool, arm, Use(synthetic_weight=0.25))
        total = np.bincount(pool.labels, weights_of(stage) * stage.pixels.repeat, 3)
        np.testing.assert_allclose(total, expected, rtol=1e-6, err_msg=arm)


def test_row_weights_after_the_switch_are_those_of_the_control(pool: Pixels) -> None:
    _, then = stages_of(pool, "augmented@0.5", Use(0.5, 0.25))
    (control,) = stages_of(pool, "oversampled", Use(synthetic_weight=0.25))
    used = pool.real
    np.testing.assert_array_equal(weights_of(then)[used], weights_of(control)[used])


def test_staged_batches_have_the_weights_of_their_rows(pool: Pixels) -> None:
    (stage,) = stages_of(pool, "oversampled", Use(synthetic_weight=0.25))
    _, labels, weights = next(staged_batches([stage], 3, 0, 1, 2))
    rows = next(endless_batches(stage.pixels.repeat, BATCH_SIZE, 1))
    np.testing.assert_array_equal(labels, pool.labels[rows])
    np.testing.assert_array_equal(weights, weights_of(stage)[rows])
    assert (weights[labels == 1] == weights.max()).all()  # nv, which has no repeats


def test_row_smoothing_by_default_and_of_arms_without_added_images_is_none(pool: Pixels) -> None:
    for arm in ("baseline", "oversampled", "augmented@0.5"):
        assert [stage.smoothing for stage in stages_of(pool, arm, Use())] == [None]
    for arm in ("baseline", "class_weights", "balanced_sampling", "logit_adjustment"):
        assert [stage.smoothing for stage in stages_of(pool, arm, Use(synthetic_smoothing=0.2))] == [None]


def test_row_smoothing_is_that_of_one_image_and_its_additional_occurrences(pool: Pixels) -> None:
    rows = np.flatnonzero(pool.labels == 0)[[0, 1, 2, -1]]  # df: three real rows and a synthetic one
    few = replace(pool, labels=pool.labels[rows], source=pool.source[rows])
    smoothing = row_smoothing(few, np.array([1, 2, 5, 1]), recipe("augmented@0.5", Use(synthetic_smoothing=0.2)))
    assert smoothing is not None
    assert smoothing.tolist() == pytest.approx([0, 0.1, 0.16, 0.2])


def test_row_smoothing_is_the_same_in_total_in_all_arms_that_add_images(pool: Pixels) -> None:
    for arm in ("oversampled", "strong_augmentation", "augmented@0.5", "augmented@1"):
        (stage,) = stages_of(pool, arm, Use(synthetic_smoothing=0.2))
        assert stage.smoothing is not None
        total = np.bincount(pool.labels, stage.smoothing * stage.pixels.repeat, 3)
        np.testing.assert_allclose(total, [0.2 * ADDED, 0, 0.2 * ADDED], rtol=1e-6, err_msg=arm)


def test_row_smoothing_with_a_weight_is_the_same_in_total_in_all_arms_that_add_images(pool: Pixels) -> None:
    totals = []
    for arm in ("oversampled", "augmented@0.5", "augmented@1"):
        (stage,) = stages_of(pool, arm, Use(synthetic_weight=0.25, synthetic_smoothing=0.2))
        assert stage.smoothing is not None
        totals.append(np.bincount(pool.labels, stage.smoothing * weights_of(stage) * stage.pixels.repeat, 3))
    for total in totals[1:]:
        np.testing.assert_allclose(total, totals[0], rtol=1e-6)
    assert (totals[0] > 0).tolist() == [True, False, True]


def test_row_smoothing_after_the_switch_is_that_of_the_control(pool: Pixels) -> None:
    use = Use(0.5, synthetic_smoothing=0.2)
    (_, then), (control,) = stages_of(pool, "augmented@0.5", use), stages_of(pool, "oversampled", use)
    assert then.smoothing is not None
    assert control.smoothing is not None
    np.testing.assert_array_equal(then.smoothing[pool.real], control.smoothing[pool.real])


def test_staged_batches_with_smoothing_have_the_label_probabilities_of_their_rows(pool: Pixels) -> None:
    (stage,) = stages_of(pool, "oversampled", Use(synthetic_weight=0.25, synthetic_smoothing=0.3))
    assert stage.smoothing is not None
    _, labels, weights = next(staged_batches([stage], 3, 0, 1, 2))
    rows = next(endless_batches(stage.pixels.repeat, BATCH_SIZE, 1))
    assert (labels.shape, labels.dtype) == ((BATCH_SIZE, 3), np.float32)
    np.testing.assert_allclose(labels.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(labels[range(BATCH_SIZE), pool.labels[rows]], 1 - stage.smoothing[rows] * 2 / 3, 1e-6)
    np.testing.assert_array_equal(weights, weights_of(stage)[rows])


def test_the_loss_of_labels_without_smoothing_is_that_of_integers() -> None:
    labels, logits = np.array([0, 2, 1]), np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
    losses = []
    for smooth in (False, True):
        model = compile_model(cnn.build(3, 32), "float32", smooth=smooth)
        expected = smooth_labels(labels, np.zeros(3), 3) if smooth else labels
        losses.append(float(model.compute_loss(y=expected, y_pred=logits)))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_train_of_another_network_takes_smoothed_labels(training_data: Path, tmp_path: Path) -> None:
    use = Use(synthetic_smoothing=0.2)
    models = train_pack(training_data, tmp_path, "oversampled:1*", epochs=1, classifier="resnet", use=use)
    assert load(models / "oversampled.keras").synthetic_smoothing == 0.2


def test_train_with_weight_and_smoothing_of_added_images_changes_arms_with_such_images_alone(
    training_data: Path, synthetic_images: Path, tmp_path: Path
) -> None:
    """Here synthetic images are of every class."""
    models = {}
    for weight, smoothing in ((1.0, 0.0), (0.25, 0.2)):
        settings = {"synthetic_images": synthetic_images, "synthetic_per_class": ADDED, "epochs": 1}
        use = Use(synthetic_weight=weight, synthetic_smoothing=smoothing, synthetic_scope="all")
        pack = "baseline:1*,augmented@0.5:1*"
        models[weight] = train_pack(training_data, tmp_path / f"{weight}", pack, **settings, use=use)
    for arm in ("baseline", "augmented@0.5"):
        default, weighted = (folder / f"{arm}.keras" for folder in models.values())
        records = load(default), load(weighted)
        assert (file_sha256(default) == file_sha256(weighted)) == (arm == "baseline")
        assert [record.synthetic_weight for record in records] == [1, 1 if arm == "baseline" else 0.25]
        assert [record.synthetic_smoothing for record in records] == [0, 0 if arm == "baseline" else 0.2]
        assert {record.synthetic_scope for record in records} == {"rare" if arm == "baseline" else "all"}
        assert {record.train_rows for record in records} == {REAL if arm == "baseline" else 2 * (REAL + 2 * ADDED)}
        assert records[0].settings == records[1].settings
        assert records[0].train_set_sha256 == records[1].train_set_sha256


def test_train_with_synthetic_images_first_interrupted_before_the_switch_ends_with_the_same_bytes(
    training_data: Path, synthetic_images: Path, plain: Path, tmp_path: Path, interrupt: Callable[[int], None]
) -> None:
    until: dict[str, Any] = {"use": Use(synthetic_until=0.5)}
    whole = run(training_data, synthetic_images, tmp_path / "whole", **until)
    until["checkpoints"] = str(tmp_path / "checkpoints")
    interrupt(1)
    with pytest.raises(InterruptedError):
        run(training_data, synthetic_images, tmp_path / "cut", **until)
    interrupt(0)
    resumed = run(training_data, synthetic_images, tmp_path / "cut", **until)
    assert file_sha256(resumed) == file_sha256(whole) != file_sha256(plain)
    record, default = load(whole), load(plain)
    losses, before = record.history["loss"], default.history["loss"]
    assert losses[:2] == before[:2]  # the same batches, and the same learning rate
    assert losses[2:] != before[2:]
    assert (record.synthetic_until, default.synthetic_until) == (0.5, 1)
    assert record.settings == default.settings
    assert record.train_rows == default.train_rows
    assert record.train_set_sha256 != default.train_set_sha256
    # 3 steps per epoch; in the mixture, half of the 2 × 20 added images are synthetic
    mixed, shown = (REAL + ADDED) / (REAL + 2 * ADDED), 3 * BATCH_SIZE
    assert record.real_views == pytest.approx(shown * (2 * mixed + 2) / REAL, abs=0.01)
    assert default.real_views == pytest.approx(shown * 4 * mixed / REAL, abs=0.01)
