"""The second input of classifiers: network, training form, batches, training and resuming."""

import shutil
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from components.shared import keras_setup, patient_metadata
from components.shared.files import file_sha256
from components.shared.image_set import iter_tables, open_pixels, read_header, write_image_set
from components.shared.records import ClassifierRecord, load_record
from components.train_classifier.encoded_metadata import HIDDEN_SHARE, EncodedMetadata, encode_sets
from components.train_classifier.networks import cnn, head
from components.train_classifier.train import BATCH_SIZE, batches, compile_model
from tests.helpers.errors import raises_user_error
from tests.helpers.patients import AGES, add_patients
from tests.helpers.training import train_pack

EPOCHS = 4


def run(training_data: Path, classifiers: Path, pack: str, **settings: Any) -> Path:
    return train_pack(training_data, classifiers, pack, **({"epochs": EPOCHS} | settings))


def load(models: Path, stem: str) -> ClassifierRecord:
    return load_record(models / f"{stem}.json", ClassifierRecord).model_copy(update={"seconds": 0})


@pytest.fixture(scope="module")
def encoded(patients_data: Path) -> Iterator[EncodedMetadata]:
    with (
        open_pixels(patients_data / "train.parquet", "train") as pixels,
        open_pixels(patients_data / "validation.parquet", "validation") as validation,
    ):
        yield encode_sets(pixels, validation, 7)


@pytest.fixture(scope="module")
def models(patients_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The control and the arm with metadata."""
    return run(patients_data, tmp_path_factory.mktemp("models") / "classifiers", "oversampled:1*,metadata:1*")


def test_network_with_metadata_has_a_second_input_before_its_last_layer() -> None:
    keras_setup.seed_everything(1)
    plain = cnn.build(3, 32)
    keras_setup.seed_everything(1)
    fused = cnn.build(3, 32, metadata=8)
    assert [tuple(it.shape) for it in fused.inputs] == [(None, 32, 32, 3), (None, 8)]
    units = head.METADATA_UNITS
    assert fused.count_params() - plain.count_params() == 8 * units + units + 3 * units
    # The layers of the image start from the same weights, so that the arms differ by the metadata alone.
    kernels = [[layer.kernel for layer in model.layers if hasattr(layer, "kernel")] for model in (plain, fused)]
    for ours, theirs in zip(kernels[0][:4], [kernel for kernel in kernels[1] if kernel.shape[0] != 8][:4], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_fast_model_with_metadata_computes_the_logits_of_the_plain_network() -> None:
    """For the bound see test_fast_model.py: four more terms in the last sum do not change it."""
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (BATCH_SIZE, 32, 32, 3)).astype(np.uint8)
    metadata = rng.normal(size=(BATCH_SIZE, 8)).astype(np.float32)
    keras_setup.seed_everything(1)
    plain = cnn.build(3, 32, metadata=8)
    for layer in plain.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    fast = compile_model(plain, "float32")
    logits = fast((images, metadata))
    expected = plain([images, metadata], training=True)
    np.testing.assert_allclose(keras.ops.softmax(logits), expected, atol=4e-5)
    other = fast((images, np.zeros_like(metadata)))
    assert np.abs(np.asarray(logits) - np.asarray(other)).max() > 0.01


def test_batches_have_the_metadata_of_their_images_or_a_missing_value(
    patients_data: Path, encoded: EncodedMetadata
) -> None:
    with open_pixels(patients_data / "train.parquet", "train") as pixels:
        plain = list(islice(batches(pixels, 1, 2), 40))
        whole = list(islice(batches(pixels, 1, 2, metadata=encoded), 40))
        resumed = list(islice(batches(pixels, 1, 2, skipped=30, metadata=encoded), 10))
        means = {label: encoded.training[pixels.labels == label, 0].mean() for label in range(3)}
    missing = patient_metadata.encode_missing(encoded.encoding, 1)
    shown: dict[int, list[np.ndarray]] = {label: [] for label in range(3)}
    hidden, count = 0, 0
    for (images, labels), ((same, metadata), same_labels) in zip(plain, whole, strict=True):
        np.testing.assert_array_equal(images, same)
        np.testing.assert_array_equal(labels, same_labels)
        is_hidden = (metadata == missing).all(1)
        hidden, count = hidden + int(is_hidden.sum()), count + len(labels)
        for label in range(3):
            shown[label] += list(metadata[(labels == label) & ~is_hidden, 0])
    # A fifth of the images has no metadata; of the others, HIDDEN_SHARE of 1,280 rows are hidden, within 5 deviations.
    rate = 0.2 + 0.8 * HIDDEN_SHARE
    assert hidden / count == pytest.approx(rate, abs=5 * np.sqrt(rate * (1 - rate) / count) + 0.02)
    order = np.argsort([np.mean(shown[label]) for label in range(3)])
    assert order.tolist() == np.argsort(list(means.values())).tolist() == [0, 1, 2]
    for ((images, metadata), labels), ((same, same_metadata), same_labels) in zip(whole[30:], resumed, strict=True):
        np.testing.assert_array_equal(images, same)
        np.testing.assert_array_equal(metadata, same_metadata)
        np.testing.assert_array_equal(labels, same_labels)


def test_train_with_the_arm_metadata_saves_the_encoding(
    patients_data: Path, models: Path, encoded: EncodedMetadata
) -> None:
    record, control = load(models, "metadata"), load(models, "oversampled")
    assert record.metadata == encoded.encoding
    assert control.metadata is None
    assert record.train_rows == control.train_rows
    assert record.settings == control.settings
    assert record.train_set_sha256 != control.train_set_sha256
    assert record.metadata is not None
    assert record.metadata.localization == ["back", "face"]
    assert record.metadata.age_mean == pytest.approx(np.average(list(AGES.values()), weights=[10, 60, 14]), abs=4)
    model = keras.saving.load_model(models / "metadata.keras", safe_mode=True)
    with open_pixels(patients_data / "validation.parquet", "validation") as pixels:
        codes = patient_metadata.encode(record.metadata, pixels.metadata)
        predicted = keras_setup.predict_probabilities(model, pixels.images, codes).argmax(1)
        recalls = [(predicted[pixels.labels == label] == label).mean() for label in range(3)]
    assert np.mean(recalls) == pytest.approx(record.history["val_balanced_accuracy"][-1], abs=1e-6)


def test_train_other_arms_do_not_depend_on_metadata(training_data: Path, models: Path, tmp_path: Path) -> None:
    """Neither on an arm with metadata in the same task, nor on metadata in the data."""
    alone = run(training_data, tmp_path / "classifiers", "oversampled:1*")
    assert file_sha256(alone / "oversampled.keras") == file_sha256(models / "oversampled.keras")
    assert load(alone, "oversampled") == load(models, "oversampled")


def test_train_does_not_depend_on_dx_type(patients_data: Path, models: Path, tmp_path: Path) -> None:
    for split in ("train", "validation"):
        add_patients(patients_data / f"{split}.parquet", tmp_path / f"{split}.parquet", dx_type="histo")
    shutil.copyfile(patients_data / "classes.json", tmp_path / "classes.json")
    other = run(tmp_path, tmp_path / "classifiers", "metadata:1*")
    assert file_sha256(other / "metadata.keras") == file_sha256(models / "metadata.keras")
    assert load(other, "metadata") == load(models, "metadata")


def test_train_with_late_fusion_gives_every_arm_the_metadata(
    patients_data: Path, models: Path, encoded: EncodedMetadata, tmp_path: Path
) -> None:
    every = run(patients_data, tmp_path / "classifiers", "oversampled:1*,baseline:1*", metadata="late_fusion")
    assert load(every, "baseline").metadata == encoded.encoding
    # It is what the arm `metadata` is.
    assert file_sha256(every / "oversampled.keras") == file_sha256(models / "metadata.keras")


@pytest.mark.parametrize("settings", [{"pack": "metadata:1*"}, {"pack": "baseline:1*", "metadata": "late_fusion"}])
def test_train_without_metadata_in_the_data_fails(
    training_data: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    with raises_user_error("metadata.no_patients"):
        run(training_data, tmp_path / "classifiers", **settings)
    assert not list(tmp_path.iterdir())


def test_train_with_metadata_interrupted_ends_with_the_same_bytes(
    patients_data: Path, models: Path, tmp_path: Path, interrupt: Callable[[int], None]
) -> None:
    kept = {"checkpoints": str(tmp_path / "checkpoints"), "checkpoint_interval_s": 0.0}
    interrupt(2)
    with pytest.raises(InterruptedError):
        run(patients_data, tmp_path / "classifiers", "metadata:1*", **kept)
    interrupt(0)
    resumed = run(patients_data, tmp_path / "classifiers", "metadata:1*", **kept)
    assert file_sha256(resumed / "metadata.keras") == file_sha256(models / "metadata.keras")
    assert load(resumed, "metadata") == load(models, "metadata")


def test_train_with_other_metadata_starts_again(
    patients_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = {"checkpoints": str(tmp_path / "checkpoints"), "epochs": 1}
    run(patients_data, tmp_path / "classifiers", "metadata:1*", **kept)
    for name in ("validation.parquet", "classes.json"):
        shutil.copyfile(patients_data / name, tmp_path / name)
    with write_image_set(tmp_path / "train.parquet", read_header(patients_data / "train.parquet")) as out:
        for table in iter_tables(patients_data / "train.parquet"):
            at = table.schema.get_field_index("age")
            out.write_table(table.set_column(at, table.schema.field("age"), table.column("age").combine_chunks()[::-1]))
    run(tmp_path, tmp_path / "again", "metadata:1*", **kept)
    assert "metadata, seed 1: starting again" in capsys.readouterr().out
