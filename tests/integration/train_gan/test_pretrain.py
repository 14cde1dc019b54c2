"""`pretrain`: a GAN of several classes, and the GANs that start from it."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.shared.checkpoint import pack, unpack
from components.shared.files import file_sha256
from components.shared.records import SharedGan, StartDescription, load_record
from components.shared.sample_metrics import kid
from components.train_gan import loop
from components.train_gan import pretrain as pretraining
from components.train_gan.gan import GAN
from components.train_gan.loop import Training, export_start
from components.train_gan.pretrain import pretrain
from components.train_gan.recipe import Recipe
from components.train_gan.train import START_FILE
from tests.helpers.errors import raises_user_error
from tests.integration.train_gan.conftest import FakeSteps, Trainer, load_json

KIMG = 0.064


def test_pretrain_writes_networks_record_and_page(trainer: Trainer, pretrained: Path) -> None:
    assert {path.name for path in pretrained.iterdir()} == {START_FILE, "models"}
    assert {path.name for path in (pretrained / "models").iterdir()} == {"shared.json", "shared.html"}
    record = load_record(pretrained / "models" / "shared.json", SharedGan)
    assert (record.trained_on, record.classes) == (["df", "vasc"], ["df", "nv", "vasc"])
    assert (record.real_images, record.kimg, record.start_kimg) == (24, KIMG, 0)
    assert record.features_sha256 == file_sha256(trainer.features)
    assert record.settings == {"seed": 1, "batch": 32}
    state, arrays = unpack((pretrained / START_FILE).read_bytes())
    assert StartDescription(**state) == StartDescription(
        architecture="dcgan", kimg=KIMG, split_sha256=record.split_sha256, image_size=32
    )
    # Both networks and the sampler.
    generator, discriminator = record.parameters["generator"], record.parameters["discriminator"]
    assert sum(array.size for array in arrays.values()) >= 2 * generator + discriminator
    page = (pretrained / "models" / "shared.html").read_text()
    assert page.count("data:image/png") == 1 + len(record.kid.kimg)
    assert page.rstrip().endswith("</html>")


def test_pretrain_with_a_large_budget_learns_all_classes(
    trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretraining, "ALL_CLASSES_KIMG", KIMG)
    pretrain(["df", "vasc"], trainer.training_data, trainer.features, "dcgan", KIMG, 7, tmp_path / "start")
    record = load_record(tmp_path / "start/models/shared.json", SharedGan)
    assert (record.trained_on, record.real_images) == (["df", "nv", "vasc"], 84)


def test_train_from_a_start_continues_with_its_weights(trainer: Trainer, pretrained: Path, tmp_path: Path) -> None:
    """Adam moves a weight by at most its learning rate in the first step."""
    import keras

    models = trainer.run(tmp_path, start=pretrained, kimg=0.032)
    record = load_json(models)
    assert record["start_kimg"] == KIMG
    generator = keras.saving.load_model(models / "gan-vasc.keras", compile=False)
    arrays = unpack((pretrained / START_FILE).read_bytes())[1]
    first = arrays[sorted(arrays)[0]]
    limit = record["settings"]["learning_rate"]
    # Float32 rounds the sum to 2⁻²⁴ of the weight, and Adam's quotient to a few units more.
    assert np.abs(np.asarray(generator.weights[0]) - first).max() <= limit * 1.001 + 1e-7 * np.abs(first).max()
    assert "starting from a GAN of several classes after 0.064 kimg" in (models / "gan-vasc.html").read_text()


def test_training_from_a_start_continues_the_moving_average(trainer: Trainer) -> None:
    recipe = Recipe("bce", average_kimg=10.0)
    with trainer.training(recipe, kimg=0.64) as shared:
        for variable in shared.gan.sampler.trainable_variables:
            variable.assign(np.asarray(variable) + 1)  # an average differs from the weights
        packed = export_start(shared, "tiny")
        expected = [np.array(variable) for variable in shared.gan.sampler.trainable_variables]
        generator = shared.gan.generator.get_weights()
    with trainer.training(recipe, seed=2, start=packed) as training:
        averages = [np.array(variable) for variable in training.gan.sampler.trainable_variables]
        assert all(np.array_equal(one, other) for one, other in zip(averages, expected, strict=True))
        weights = training.gan.generator.get_weights()
        assert all(np.array_equal(one, other) for one, other in zip(weights, generator, strict=True))
        assert int(training.gan.images_before) == 640
        assert training.start_kimg == 0.64


def describe(start: bytes, **changes: Any) -> bytes:
    """Return a start with another description."""
    state, arrays = unpack(start)
    return pack(state | changes, arrays)


@pytest.mark.parametrize(
    ("damage", "changes", "code"),
    [
        (lambda data: data[:-9], {}, "train_gan.corrupt_start"),
        (lambda data: b"x", {}, "train_gan.corrupt_start"),
        (lambda data: describe(data, kimg="2"), {}, "train_gan.corrupt_start"),
        (lambda data: describe(data, more=1), {}, "train_gan.corrupt_start"),
        (lambda data: describe(data, image_size=64), {}, "train_gan.other_start"),
        (lambda data: data, {"architecture": "resnet"}, "train_gan.other_start"),
    ],
)
def test_train_from_a_start_that_does_not_fit_fails(
    trainer: Trainer,
    pretrained: Path,
    tmp_path: Path,
    damage: Callable[[bytes], bytes],
    changes: dict[str, Any],
    code: str,
) -> None:
    (tmp_path / START_FILE).write_bytes(damage((pretrained / START_FILE).read_bytes()))
    with raises_user_error(code):
        trainer.run(tmp_path / "out", start=tmp_path, **changes)
    assert list((tmp_path / "out").iterdir()) == []


def run(trainer: Trainer, folder: Path, **changes: Any) -> None:
    settings: dict[str, Any] = {
        "classes": ["df", "vasc"],
        "training_data": trainer.training_data,
        "features": trainer.features,
        "architecture": "dcgan",
        "kimg": KIMG,
        "seed": 1,
        "start": folder,
    }
    pretrain(**settings | changes)


def test_pretrain_without_a_budget_writes_an_empty_start(trainer: Trainer, tmp_path: Path) -> None:
    run(trainer, tmp_path / "start", kimg=0.0)
    assert [path.name for path in (tmp_path / "start").iterdir()] == ["none.txt"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"kimg": -1.0}, "parameter.invalid"),
        ({"kimg": math.nan}, "parameter.invalid"),
        ({"classes": ["unknown"]}, "train_gan.unknown_class"),
    ],
)
def test_pretrain_with_an_invalid_setting_fails(
    trainer: Trainer, tmp_path: Path, changes: dict[str, Any], code: str
) -> None:
    with raises_user_error(code):
        run(trainer, tmp_path / "start", **changes)
    assert list(tmp_path.iterdir()) == []


def test_pretrain_shows_and_compares_each_class_equally_often(
    trainer: Trainer, fake_steps: type[FakeSteps], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 10 df, 60 nv and 14 vasc, a pass has 60, 60 and 56: images are repeated whole times."""
    monkeypatch.setattr(pretraining, "ALL_CLASSES_KIMG", KIMG)
    shown: list[list[int]] = []
    groups: list[list[int]] = []

    def count_shown(trainings: list[Training], fail: Callable[[Training, Exception], None]) -> None:
        (training,) = trainings
        rows = training.next_rows(11)  # two passes
        shown.append(np.bincount(training.pixels.labels[rows.ravel()]).tolist())
        loop.run(trainings, fail)

    def count_groups(real: np.ndarray, fake: np.ndarray, labels: np.ndarray) -> float:
        assert len(labels) == len(real)
        groups.append(np.bincount(labels).tolist())
        return kid(real, fake, labels)

    monkeypatch.setattr(pretraining, "run", count_shown)
    monkeypatch.setattr(loop, "kid", count_groups)
    run(trainer, tmp_path / "start")
    assert shown == [[120, 120, 112]]
    # Validation and training images; each group has the same weight.
    assert groups == [[4 + 10, 12 + 60, 4 + 14]] * 2


def test_pretrain_with_checkpoints_resumes(
    trainer: Trainer, fake_steps: type[FakeSteps], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = {"checkpoints": str(tmp_path / "checkpoints"), "checkpoint_interval_s": 0.0, "kimg": 0.256}

    def stop(gan: GAN, done: int) -> None:
        if done == 4:
            raise InterruptedError

    run(trainer, tmp_path / "whole", kimg=0.256)
    fake_steps.faults = stop
    with pytest.raises(InterruptedError):
        run(trainer, tmp_path / "cut", **kept)
    assert not (tmp_path / "cut").exists()
    fake_steps.faults = None
    run(trainer, tmp_path / "cut", **kept)
    assert "resuming at 0.1 of 0.256 kimg" in capsys.readouterr().out
    starts = [unpack((tmp_path / name / START_FILE).read_bytes()) for name in ("whole", "cut")]
    assert starts[0][0] == starts[1][0]
    assert all(np.array_equal(starts[0][1][name], starts[1][1][name]) for name in starts[0][1])
