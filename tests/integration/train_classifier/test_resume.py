"""Training that is interrupted resumes and ends with the same bytes; tests/e2e kills a real process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from components.shared.checkpoint import SLOTS, Checkpoints, Folder
from components.shared.files import file_sha256
from components.shared.records import ClassifierRecord, load_record
from components.shared.workflow_size import parse_pack
from components.train_classifier.resume import Resume
from components.train_classifier.strong_augmentation import strong_augmentation
from tests.helpers.errors import raises_user_error
from tests.helpers.training import train_pack

PACK = "baseline:1*,strong_augmentation:2,class_weights:1*"
STEMS = ("baseline", "strong_augmentation-seed2", "class_weights")
EPOCHS = 4


def run(training_data: Path, folder: Path, **changes: Any) -> Path:
    """Train with a checkpoint after each epoch, and return the folder with the models."""
    kept = {"checkpoints": str(folder / "checkpoints"), "checkpoint_interval_s": 0.0}
    return train_pack(training_data, folder / "classifiers", PACK, **({"epochs": EPOCHS} | kept | changes))


def load(models: Path, stem: str) -> ClassifierRecord:
    return load_record(models / f"{stem}.json", ClassifierRecord).model_copy(update={"seconds": 0})


@pytest.fixture(scope="module")
def whole(training_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack that was trained without an interruption and without checkpoints."""
    return run(training_data, tmp_path_factory.mktemp("whole"), checkpoints="")


def test_train_interrupted_twice_ends_with_the_same_bytes(
    training_data: Path,
    whole: Path,
    tmp_path: Path,
    interrupt: Callable[[int], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The first interruption is in the first classifier; the second after two epochs of the second one."""
    interrupt(3)
    with pytest.raises(InterruptedError):
        run(training_data, tmp_path)
    assert not (tmp_path / "classifiers").exists()
    interrupt(EPOCHS - 3 + 2)
    with pytest.raises(InterruptedError):
        run(training_data, tmp_path)
    assert "baseline, seed 1: resuming after 3 of 4 epochs" in capsys.readouterr().out
    interrupt(0)
    resumed = run(training_data, tmp_path)
    output = capsys.readouterr().out
    assert "baseline, seed 1: finished before; taken from its checkpoint" in output
    assert "strong_augmentation, seed 2: resuming after 2 of 4 epochs" in output
    assert output.count("resuming") == 1
    for stem in STEMS:
        assert file_sha256(resumed / f"{stem}.keras") == file_sha256(whole / f"{stem}.keras"), stem
        assert load(resumed, stem) == load(whole, stem)


def test_train_without_a_due_checkpoint_stores_finished_classifiers_only(training_data: Path, tmp_path: Path) -> None:
    run(training_data, tmp_path, jobs=parse_pack("baseline:1*"), checkpoint_interval_s=3600.0)
    (folder,) = (tmp_path / "checkpoints").iterdir()
    assert folder.name.startswith("train_classifier-baseline-seed1-")
    sizes = sorted((folder / slot).stat().st_size for slot in SLOTS)
    model = (tmp_path / "classifiers/models/baseline.keras").stat().st_size
    assert sizes[0] < 1000
    assert sizes[1] == pytest.approx(model, rel=0.05)


def test_train_with_other_settings_or_data_starts_again(
    training_data: Path, tmp_path: Path, make_set: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    one = {"jobs": parse_pack("baseline:1*"), "epochs": 1}
    run(training_data, tmp_path, **one)
    other_data = _other_data(training_data, tmp_path, make_set)
    for data, epochs in ((training_data, 2), (other_data, 1)):
        again = tmp_path / f"again{epochs}"
        run(data, tmp_path, **(one | {"epochs": epochs, "classifiers": again}))
        output = capsys.readouterr().out
        assert "train_classifier baseline, seed 1: starting again" in output
        assert "taken from its checkpoint" not in output
        assert load(again / "models", "baseline").epochs == epochs


def _other_data(training_data: Path, folder: Path, make_set: Callable[..., Path]) -> Path:
    other = folder / "training_data"
    other.mkdir()
    for name in ("classes.json", "validation.parquet"):
        (other / name).write_bytes((training_data / name).read_bytes())
    make_set(other / "train.parquet", "train", {"df": 10, "nv": 60, "vasc": 14}, seed=5)
    return other


@pytest.mark.parametrize(
    ("values", "arrays"),
    [
        ({}, {}),
        ({"is_finished": True, "epoch": 2, "history": {}, "seconds": 1.0}, {"network/0000": np.zeros((2, 1))}),
        (
            {"is_finished": False, "epoch": 1, "history": {}, "seconds": 1.0},
            {"training/0000": np.zeros((2, 1))},
        ),
    ],
)
def test_resume_from_a_checkpoint_of_another_network_fails(
    tmp_path: Path, values: dict[str, Any], arrays: dict[str, np.ndarray]
) -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    Checkpoints(Folder(tmp_path), {}, "label").save(values, arrays)
    with raises_user_error("checkpoint.invalid"):
        Resume(Checkpoints(Folder(tmp_path), {}, "label"), 0.0, "label", 2, model, model)


def test_strong_augmentation_skips_first_results() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    whole, skipping = strong_augmentation(1), strong_augmentation(1, 3)
    results = [whole(images) for _ in range(5)]
    for expected in results[3:]:
        np.testing.assert_array_equal(skipping(images), expected)
