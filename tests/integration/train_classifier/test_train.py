import shutil
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.shared.arms import CONTROLS, recipe
from components.shared.files import file_sha256
from components.shared.image_set import (
    REAL,
    Pixels,
    iter_tables,
    open_pixels,
    read_header,
    read_rows,
    write_image_set,
)
from components.shared.keras_setup import predict_probabilities
from components.shared.records import ClassifierRecord, load_record
from components.shared.workflow_size import Job, parse_pack
from components.train_classifier import train as train_module
from components.train_classifier.networks import cnn
from components.train_classifier.strong_augmentation import strong_augmentation
from components.train_classifier.train import (
    class_weights,
    compile_model,
    count_rows,
    log_frequencies,
    repeat_counts,
    validated_epochs,
)
from tests.helpers.errors import raises_user_error
from tests.helpers.training import train_pack

ARMS = (*(arm for arm in CONTROLS if arm != "metadata"), "augmented@0.5")
EPOCHS = 2
SYNTHETIC_IMAGES = 20  # in `synthetic_images`, of df and of vasc


def run(training_data: Path, classifiers: Path, **settings: Any) -> Path:
    short = {"epochs": EPOCHS, "synthetic_per_class": SYNTHETIC_IMAGES}
    return train_pack(training_data, classifiers, "baseline:1*", **(short | settings))


def load(models: Path, stem: str) -> ClassifierRecord:
    return load_record(models / f"{stem}.json", ClassifierRecord)


@dataclass(frozen=True)
class Trained:
    """Folder with the models of a task, and its output."""

    models: Path
    output: str


@pytest.fixture(scope="session")
def trained(training_data: Path, synthetic_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Every control and an augmented arm with the run's first seed, trained in one task, the baseline first."""
    with redirect_stdout(StringIO()) as output:
        models = run(
            training_data,
            tmp_path_factory.mktemp("classifiers") / "classifiers",
            jobs=[Job(arm, 1, True) for arm in ARMS],
            synthetic_images=synthetic_images,
        )
    return Trained(models, output.getvalue())


@pytest.fixture(scope="session")
def models(trained: Trained) -> Path:
    return trained.models


@pytest.fixture(scope="session")
def other_pack(training_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The baseline with two seeds, neither of which is the run's first one."""
    return run(
        training_data, tmp_path_factory.mktemp("other") / "classifiers", jobs=parse_pack("baseline:2,baseline:1")
    )


def test_network_has_the_original_number_of_parameters() -> None:
    model = cnn.build(7, 128)
    assert model.count_params() == 16_877_511
    assert model.output_shape == (None, 7)
    assert cnn.build(3, 32).count_params() < 2_000_000


def test_network_rescales_raw_pixels() -> None:
    rescaled = cnn.build(2, 32).layers[0](np.array([0.0, 127.5, 255.0]).reshape(1, 1, 3, 1))
    assert np.asarray(rescaled).ravel().tolist() == pytest.approx([-1, 0, 1])


@given(st.integers(1, 200), st.integers(0, 1000))
def test_repeat_counts_are_even_and_have_the_required_sum(real: int, added: int) -> None:
    counts = repeat_counts(real, added, np.random.default_rng(0))
    assert counts.sum() == real + added
    assert counts.min() >= 1
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize(
    ("arm", "real", "synthetic"),
    [
        ("baseline", (10, 60, 14), (0, 0, 0)),
        ("oversampled", (30, 60, 34), (0, 0, 0)),
        ("class_weights", (10, 60, 14), (0, 0, 0)),
        ("balanced_sampling", (60, 60, 60), (0, 0, 0)),
        ("strong_augmentation", (30, 60, 34), (0, 0, 0)),
        ("logit_adjustment", (10, 60, 14), (0, 0, 0)),
        ("metadata", (30, 60, 34), (0, 0, 0)),
        ("augmented@0.01", (29, 60, 33), (1, 0, 1)),
        ("augmented@0.25", (25, 60, 29), (5, 0, 5)),
        ("augmented@1", (10, 60, 14), (20, 0, 20)),
    ],
)
def test_count_rows_follows_the_recipe(
    pool: Pixels, arm: str, real: tuple[int, ...], synthetic: tuple[int, ...]
) -> None:
    counts = count_rows(pool, recipe(arm), ["df", "vasc"], SYNTHETIC_IMAGES, 7)
    for part, expected in ((pool.real, real), (~pool.real, synthetic)):
        assert np.bincount(pool.labels[part], counts[part], 3).tolist() == list(expected)
    assert (counts[pool.real] >= 1).all()
    assert set(counts[~pool.real]) <= {0, 1}
    again, other = (count_rows(pool, recipe(arm), ["df", "vasc"], SYNTHETIC_IMAGES, seed) for seed in (7, 8))
    assert counts.tolist() == again.tolist()
    without_repeats = ("baseline", "class_weights", "logit_adjustment", "augmented@1")
    assert (counts.tolist() != other.tolist()) == (arm not in without_repeats)


def test_count_rows_all_arms_that_add_images_add_the_same_number(pool: Pixels) -> None:
    """A class with fewer synthetic images than requested gets repeats for the rest, one without any only repeats."""
    for arm in ("oversampled", "augmented@0.3", "augmented@1"):
        counts = count_rows(pool, recipe(arm), ["df", "vasc", "nv"], 33, 7)
        assert np.bincount(pool.labels, counts, 3).tolist() == [43, 93, 47], arm


def test_count_rows_uses_the_images_of_the_source_of_the_arm_alone(pool: Pixels) -> None:
    source = pool.source.copy()
    given = np.flatnonzero(~pool.real)[::2]
    source[given] = "stylegan"
    mixed = replace(pool, source=source)
    for arm, name in (("augmented@1", "gan"), ("stylegan@1", "stylegan")):
        counts = count_rows(mixed, recipe(arm), ["df", "vasc"], SYNTHETIC_IMAGES, 7)
        assert set(mixed.source[counts > 0]) == {"real", name}
        assert (counts[mixed.source == name] == 1).all()
        assert np.bincount(mixed.labels, counts, 3).tolist() == [30, 60, 34]


def test_count_rows_repeats_are_the_same_images_in_all_shares(pool: Pixels) -> None:
    """The repeats of an augmented arm differ from those of the control by as few images as possible."""
    control = count_rows(pool, recipe("oversampled"), ["df"], 25, 7)
    augmented = count_rows(pool, recipe("augmented@0.2"), ["df"], 25, 7)
    assert (control - augmented)[pool.real].max() == 1
    assert (control - augmented)[pool.real].min() == 0


def test_class_weights_are_inversely_proportional_to_size() -> None:
    labels, counts = np.array([0, 0, 0, 2]), np.array([1, 2, 1, 1])
    weights = class_weights(labels, counts, 3)
    assert weights.tolist() == pytest.approx([5 / 8, 0, 5 / 2])
    assert np.average(weights[labels], weights=counts) == pytest.approx(1)


def test_log_frequencies_sum_to_one() -> None:
    found = log_frequencies(np.array([0, 0, 0, 2]), np.array([1, 2, 1, 1]), 3)
    assert np.exp(found).tolist() == pytest.approx([4 / 6, 1 / 6, 1 / 6])


def test_logit_offset_is_in_the_training_form_only() -> None:
    """The loss of adjusted logits is what Menon et al. define; predictions do not have the offset."""
    plain = cnn.build(3, 32)
    offset = np.array([-0.1, -3.0, -5.0], np.float32)
    images = np.random.default_rng(0).integers(0, 256, (32, 32, 32, 3)).astype(np.uint8)
    logits = []
    for added in (None, offset):
        keras.utils.set_random_seed(1)
        logits.append(keras.ops.convert_to_numpy(compile_model(plain, "float32", added)(images)))
    assert logits[1] - logits[0] == pytest.approx(np.tile(offset, (32, 1)), abs=1e-4)


def test_strong_augmentation_depends_on_its_seed_only() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    one, same, other = (strong_augmentation(seed) for seed in (1, 1, 2))
    first, second = one(images), one(images)
    assert (first == same(images)).all()
    assert (second == same(images)).all()
    assert (first != second).any()
    assert (first != other(images)).any()
    assert (first.dtype, first.shape) == (np.uint8, images.shape)


def test_train_names_files_by_arm_and_seed(models: Path, other_pack: Path) -> None:
    for folder, stems in (
        (models, ARMS),
        (other_pack, ("baseline-seed1", "baseline-seed2")),
    ):
        expected = {f"{stem}{suffix}" for stem in stems for suffix in (".keras", ".json", ".html")}
        assert {path.name for path in folder.iterdir()} == expected
        assert all((folder / f"{stem}.html").read_text().rstrip().endswith("</html>") for stem in stems)


def test_train_after_another_classifier_gives_the_same_bytes_as_alone(models: Path, other_pack: Path) -> None:
    """The baseline was the first in one task, and followed another seed in the other."""
    assert file_sha256(other_pack / "baseline-seed1.keras") == file_sha256(models / "baseline.keras")
    alone, after = load(models, "baseline"), load(other_pack, "baseline-seed1")
    assert after.model_copy(update={"seconds": alone.seconds}) == alone


def test_train_seeds_and_arms_give_different_weights(models: Path, other_pack: Path) -> None:
    paths = [*models.glob("*.keras"), other_pack / "baseline-seed2.keras"]
    assert len({file_sha256(path) for path in paths}) == len(ARMS) + 1


def test_train_arms_differ_in_their_rows_only(models: Path) -> None:
    records = {arm: load(models, arm) for arm in ARMS}
    assert {arm: record.train_rows for arm, record in records.items()} == {
        "baseline": 84,
        "oversampled": 84 + 2 * SYNTHETIC_IMAGES,
        "class_weights": 84,
        "balanced_sampling": 3 * 60,
        "strong_augmentation": 84 + 2 * SYNTHETIC_IMAGES,
        "logit_adjustment": 84,
        "augmented@0.5": 84 + 2 * SYNTHETIC_IMAGES,
    }
    assert len({record.train_set_sha256 for record in records.values()}) == 4  # three recipes change the rows
    assert all(record.settings == records["baseline"].settings for record in records.values())
    assert all(record.seen == records["baseline"].seen for record in records.values())


def test_train_epoch_has_as_many_steps_as_real_images_fill(trained: Trained) -> None:
    """84 real images are 3 batches of 32, independent of repeats and synthetic images."""
    assert trained.output.count(" (84 real), 3 steps per epoch") == len(ARMS)


def test_train_saves_the_network_that_the_last_epoch_measured(training_data: Path, models: Path) -> None:
    record = load(models, "baseline")
    model = keras.saving.load_model(models / "baseline.keras")
    with open_pixels(training_data / "validation.parquet", "validation") as pixels:
        predicted = predict_probabilities(model, pixels.images).argmax(1)
        recalls = [(predicted[pixels.labels == label] == label).mean() for label in range(3)]
    assert np.mean(recalls) == pytest.approx(record.history["val_balanced_accuracy"][-1], abs=1e-6)
    assert record.validated_epochs == [EPOCHS]
    lengths = {name: len(values) for name, values in record.history.items()}
    assert lengths == {name: 1 if name.startswith("val_") else EPOCHS for name in lengths}


@pytest.mark.parametrize(
    ("epochs", "steps", "expected"),
    [
        (1, 1, [1]),
        (4, 200, [1, 2, 3, 4]),
        (10, 64, [2, 4, 6, 8, 10]),
        (22, 185, [5, 9, 14, 18, 22]),
        (12, 23, [3, 6, 9, 12]),
    ],
)
def test_validated_epochs_are_at_most_five_and_end_with_the_last(epochs: int, steps: int, expected: list[int]) -> None:
    assert validated_epochs(epochs, steps) == expected


def test_train_saves_batch_statistics_of_the_final_weights(training_data: Path, models: Path) -> None:
    """Of the first layer, they follow from the kernel and the images of the arm; few images need no sample."""
    model = keras.saving.load_model(models / "baseline.keras")
    convolution, normalisation = model.layers[1:3]
    with open_pixels(training_data / "train.parquet", "train") as pixels:
        activations = np.asarray(convolution(np.asarray(pixels.images, np.float32) / 127.5 - 1))
    # The sample of 1,024 has each image about as often as others, in one of eight positions.
    expected = activations.mean((0, 1, 2)), activations.var((0, 1, 2))
    np.testing.assert_allclose(normalisation.moving_variance, expected[1], rtol=0.15)
    np.testing.assert_allclose(normalisation.moving_mean, expected[0], atol=0.1 * np.sqrt(expected[1]).max())


def test_train_recomputes_batch_statistics_with_one_batch_in_memory(
    training_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 128 px, a batch of 256 images takes twice the memory of prediction."""
    original, shapes = train_module.recompute_statistics, []

    def recompute(model: keras.Model, batches: Iterator[np.ndarray]) -> None:
        assert isinstance(batches, Iterator)
        original(model, (shapes.append(batch.shape) or batch for batch in batches))

    monkeypatch.setattr(train_module, "recompute_statistics", recompute)
    run(training_data, tmp_path / "classifiers", epochs=1)
    assert shapes == [(32, 32, 32, 3)] * 32


def test_the_learning_rate_falls_to_zero_along_a_cosine() -> None:
    model = compile_model(cnn.build(3, 32), "float32", steps=100)
    model.optimizer.build(model.trainable_variables)
    rates = []
    for step in (0, 50, 100):
        model.optimizer.iterations.assign(step)
        rates.append(float(model.optimizer.learning_rate))
    assert rates == pytest.approx([1e-3, 5e-4, 0.0], abs=1e-9)


def test_record_states_the_views_of_a_real_image(models: Path) -> None:
    """84 real images, 96 shown per epoch; `oversampled` adds 2 × 20 repeats, `augmented@0.5` half of them synthetic."""
    views = {arm: load(models, arm).real_views for arm in ("baseline", "oversampled", "augmented@0.5")}
    shown = EPOCHS * 96
    rows = 84 + 2 * SYNTHETIC_IMAGES
    expected = (shown / 84, shown / 84, shown * (84 + SYNTHETIC_IMAGES) / rows / 84)
    assert list(views.values()) == pytest.approx(expected, abs=0.01)


def test_train_saves_the_plain_network_in_float32(models: Path) -> None:
    """The file can be loaded without this code: it has nothing of the fast model and its precision."""
    model = keras.saving.load_model(models / "baseline.keras")
    initial = cnn.build(3, 32)
    assert [type(layer) for layer in model.layers] == [type(layer) for layer in initial.layers]
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}
    changes = [np.abs(a - b).max() for a, b in zip(model.get_weights(), initial.get_weights(), strict=True)]
    assert sum(change > 0 for change in changes) == len(changes) - 4  # all except biases before a normalisation


def test_train_record_identifies_model_data_and_images(splits: dict[str, Path], models: Path) -> None:
    record = load(models, "baseline")
    assert record.model_sha256 == file_sha256(models / "baseline.keras")
    assert (record.data_sha256, record.split_sha256) == ("d" * 64, "5" * 64)
    assert record.settings.seed == 1
    rows = pd.concat(read_rows(splits[split], split) for split in ("train", "validation"))
    assert record.seen == sorted(rows["pixel_sha256"].str[:16])
    assert not set(record.seen) & set(read_rows(splits["test"], "test")["pixel_sha256"].str[:16])


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"epochs": 0}, "parameter.invalid"),
        ({"jobs": [Job("balanced", 1, True)]}, "arms.unknown"),
        ({"jobs": [Job("augmented@0.5", 1, True)]}, "train_classifier.no_synthetic_images"),
    ],
)
def test_train_with_an_invalid_setting_fails(
    training_data: Path, tmp_path: Path, settings: dict[str, Any], code: str
) -> None:
    with raises_user_error(code):
        run(training_data, tmp_path / "out", **settings)
    assert not list(tmp_path.iterdir())


def test_train_with_a_validation_set_of_another_split_fails(
    training_data: Path, tmp_path: Path, make_set: Callable[..., Path]
) -> None:
    folder = tmp_path / "training_data"
    shutil.copytree(training_data, folder)
    make_set(folder / "validation.parquet", "test", {"df": 4, "nv": 4, "vasc": 4})
    with raises_user_error("image_set.wrong_split"):
        run(folder, tmp_path / "out")


@pytest.mark.parametrize(("source", "kind"), [(REAL, "training"), ("gan", "synthetic")])
def test_train_with_a_validation_image_among_the_training_images_fails(
    training_data: Path, tmp_path: Path, source: str, kind: str
) -> None:
    """The guard compares pixels, independent of source, name and lesion."""
    folder = tmp_path / "training_data"
    shutil.copytree(training_data, folder)
    with write_image_set(folder / "train.parquet", read_header(training_data / "train.parquet")) as out:
        for table in iter_tables(training_data / "train.parquet"):
            out.write_table(table)
        rows = pd.read_parquet(folder / "validation.parquet").head(1)
        png = [rows["image"].iloc[0]["bytes"]]
        out.write(rows.drop(columns=["image", "split"]).assign(image_id="other", lesion_id="other", source=source), png)
    with raises_user_error(f"leakage.{kind}_image") as caught:
        run(folder, tmp_path / "out")
    assert caught.value.fields["count"] == 1
    assert not (tmp_path / "out").exists()
