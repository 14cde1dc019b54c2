"""`train`: files and records, the selected snapshot, divergence, failures and checkpoints."""

import base64
import io
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.shared.batch_statistics import recompute_statistics
from components.shared.checkpoint import SLOTS, pack, unpack
from components.shared.files import file_sha256
from components.shared.image_set import open_pixels, read_rows
from components.shared.records import FailedGan, TrainedGan, load_gan_record
from components.shared.seeds import derive_seed
from components.train_gan import architectures
from components.train_gan.gan import GAN, STATISTICS_BATCH_SIZE
from components.train_gan.loop import (
    FINE_TUNING_RATE,
    GRID_IMAGES,
    SETTLING_KIMG,
    DivergedError,
    Training,
    choose_reference,
    export_start,
)
from components.train_gan.progress_html import STRIP_BYTES, strips
from components.train_gan.recipe import Recipe
from components.train_gan.state import History
from components.train_gan.train import START_FILE
from tests.helpers.errors import raises_user_error
from tests.integration.train_gan.conftest import (
    ARCHITECTURES,
    SNAPSHOT_IMAGES,
    FakeSteps,
    Trainer,
    checkpointed,
    load_json,
    train_quickly,
)


@pytest.mark.parametrize(
    ("name", "generator", "discriminator"), [("dcgan", 2_782_432, 1_094_785), ("resnet", 883_843, 897_809)]
)
def test_architecture_at_128_px_has_the_documented_number_of_parameters(
    name: str, generator: int, discriminator: int
) -> None:
    networks = architectures.load(name)
    models = networks.generator(128), networks.discriminator(128)
    assert [model.count_params() for model in models] == [generator, discriminator]
    assert models[0].output_shape == (None, 128, 128, 3)
    assert models[1].output_shape == (None, 1)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architecture_at_48_px_has_images_and_logits(name: str) -> None:
    """48 is not a power of two."""
    networks = architectures.load(name)
    generator = networks.generator(48)
    images = generator(np.zeros((2, generator.input_shape[-1]), np.float32))
    assert images.shape == (2, 48, 48, 3)
    assert np.abs(images).max() <= 1
    assert networks.discriminator(48)(images).shape == (2, 1)


def test_resnet_noise_is_local_and_its_code_is_global() -> None:
    """A change in the noise of one pixel stays near it; a change in the code reaches the whole image."""
    keras.utils.set_random_seed(1)
    generator = architectures.load("resnet").generator(64)
    latent = generator.input_shape[-1]
    assert latent == 64 + 8**2 + 16**2 + 32**2 + 64**2
    inputs = np.random.default_rng(0).standard_normal((1, latent), np.float32)

    def find_changes(index: int) -> np.ndarray:
        other = inputs.copy()
        other[0, index] += 1
        images = np.asarray(generator(np.concatenate([inputs, other])))
        return np.abs(images[1] - images[0]).max(axis=2) > 1e-6

    assert find_changes(0).mean() > 0.9
    starts = np.cumsum([64, 8**2, 16**2, 32**2])
    for start, side in zip(starts, (8, 16, 32, 64), strict=True):
        scale = 64 // side
        changes = find_changes(start + (side // 2) * side + side // 2)  # the pixel in the middle
        assert changes[32, 32]
        assert 0 < changes.mean() <= min(1, (16 * scale / 64) ** 2), side


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_train_writes_generator_record_and_page(
    training_data: Path, trained: dict[str, Path], architecture: str
) -> None:
    models = trained[architecture] / "gans" / "models"
    assert {path.name for path in models.iterdir()} == {"gan-vasc.keras", "gan-vasc.json", "gan-vasc.html"}
    record = load_gan_record(models / "gan-vasc.json")
    assert isinstance(record, TrainedGan)
    assert (record.dx, record.real_images, record.kimg, record.start_kimg) == ("vasc", 14, 0.256, 0)
    assert record.model_sha256 == file_sha256(models / "gan-vasc.keras")
    assert record.losses.kimg == record.kid.kimg == [round(0.032 * step, 3) for step in range(1, 9)]
    assert np.isfinite([*record.losses.generator, *record.losses.discriminator]).all()
    assert record.recipe["loss"] == {"dcgan": "bce", "resnet": "relativistic"}[architecture]
    rows = pd.concat([read_rows(training_data / f"{split}.parquet", split) for split in ("train", "validation")])
    assert record.seen == sorted(rows.loc[rows["dx"] == "vasc", "pixel_sha256"].str[:16])
    assert [snapshot.kimg for snapshot in record.snapshots] == [0, 0.064, 0.128, 0.192, 0.256]
    for snapshot in record.snapshots:
        with Image.open(io.BytesIO(base64.b64decode(snapshot.jpeg)), formats=("JPEG",)) as image:
            assert image.size == (5 * 32, 32)
    page = (models / "gan-vasc.html").read_text()
    assert page.count("data:image/png") == 9  # before training, and at eight snapshots
    assert record.best_kimg == record.kid.kimg[int(np.argmin(record.kid.value))]
    assert (record.kid.against, record.kid.images.validation) == ("validation and training", 4)
    # Sampling does not need train_gan's code.
    generator = keras.saving.load_model(models / "gan-vasc.keras", compile=False)
    assert type(generator).__module__.startswith("keras.")
    assert generator(np.zeros((3, record.latent), np.float32)).shape == (3, 32, 32, 3)


def test_train_saves_an_averaged_generator_with_the_statistics_of_its_own_weights(trained: dict[str, Path]) -> None:
    """They are those of the noise of the snapshots, which follows that of the grid."""
    path = trained["resnet"] / "gans" / "models" / "gan-vasc.keras"
    generator = keras.saving.load_model(path, compile=False)
    saved = generator.get_weights()
    rng, latent = np.random.default_rng(derive_seed(1, "train_gan", "vasc")), generator.input_shape[-1]
    noise = rng.standard_normal((GRID_IMAGES + SNAPSHOT_IMAGES, latent), np.float32)[GRID_IMAGES:]
    recompute_statistics(generator, np.split(noise, SNAPSHOT_IMAGES // STATISTICS_BATCH_SIZE))
    for own, expected in zip(saved, generator.get_weights(), strict=True):
        np.testing.assert_array_equal(own, expected)
    moving = [np.asarray(it) for it in generator.non_trainable_variables if "moving_mean" in it.path]
    assert min(np.abs(values).max() for values in moving) > 0


def test_snapshots_are_compared_with_a_limited_number_of_real_images(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are the rows that are chosen from the validation and then the training images, in batches."""
    images, labels = [], []
    for split in ("validation", "train"):
        with open_pixels(trainer.training_data / f"{split}.parquet", split, "vasc") as pixels:
            images.append(np.array(pixels.images))
            labels.append(pixels.labels)
    every, all_labels = np.concatenate(images), np.concatenate(labels)
    with trainer.training() as training:
        np.testing.assert_array_equal(training.real_features, trainer.extractor(every))
        np.testing.assert_array_equal(training.real_labels, all_labels)
        assert training.validation_count == len(images[0])
    monkeypatch.setattr("components.train_gan.loop.MAX_REFERENCE_IMAGES", 7)
    rows = choose_reference(all_labels, derive_seed(1, "reference"))
    with trainer.training() as training:
        # The features are float32, computed in a batch of another size: 1e-6 of values of order 1.
        np.testing.assert_allclose(training.real_features, trainer.extractor(every[rows]), atol=1e-5)
        assert training.validation_count == (rows < len(images[0])).sum()
        assert len(training.real_labels) == 7


def test_train_with_another_class_gives_the_same_bytes_as_alone(
    trainer: Trainer, trained: dict[str, Path], tmp_path: Path
) -> None:
    models = trainer.run(tmp_path, classes=["df", "vasc"])
    alone = trained["dcgan"] / "gans" / "models"
    assert file_sha256(models / "gan-vasc.keras") == file_sha256(alone / "gan-vasc.keras")
    assert file_sha256(models / "gan-df.keras") == load_json(models, "df")["model_sha256"]
    assert load_json(models) == load_json(alone)


def test_training_with_another_seed_has_other_weights_order_and_noise(trainer: Trainer) -> None:
    values = []
    for seed in (1, 1, 2):
        with trainer.training(seed=seed) as training:
            weights = [weight.tobytes() for weight in training.gan.generator.get_weights() if weight.std() > 0]
            values.append([*weights, training.next_rows(3).tobytes(), np.concatenate(list(training.noise())).tobytes()])
    assert values[0] == values[1]
    assert all(one != other for one, other in zip(values[0], values[2], strict=True))


@pytest.mark.parametrize("size", [32, 512])
def test_strips_of_noise_stay_small(size: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (16, size, size, 3)).astype(np.uint8)
    (strip,) = strips(History(grid_kimg=[0.0], grids=[noise]))
    assert 1_000 < len(strip.jpeg) <= STRIP_BYTES


def test_train_saves_the_snapshot_with_the_lowest_kid(
    trainer: Trainer, fake_steps: type[FakeSteps], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([0.5, 0.4, 0.1, 0.2, 0.3, 0.15, 0.11, 0.12])
    monkeypatch.setattr("components.train_gan.loop.kid", lambda real, fake, groups: next(values))
    weights: dict[int, list[np.ndarray]] = {}
    fake_steps.faults = lambda gan, done: weights.update({done: gan.generator.get_weights()})
    models = trainer.run(tmp_path, kimg=0.256)  # 8 steps, a snapshot after each
    record = load_json(models)
    assert record["best_kimg"] == record["kid"]["kimg"][2] == 0.096
    saved = keras.saving.load_model(models / "gan-vasc.keras", compile=False).get_weights()
    assert all(np.array_equal(one, other) for one, other in zip(saved, weights[3], strict=True))
    assert not all(np.array_equal(one, other) for one, other in zip(saved, weights[8], strict=True))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"kimg": 0.0}, "parameter.invalid"),
        ({"kimg": math.nan}, "parameter.invalid"),
        ({"kimg": 0.0, "failed_class": "continue"}, "parameter.invalid"),
        ({"failed_class": "perhaps"}, "parameter.invalid"),
        ({"architecture": "unknown"}, "parameter.invalid"),
        ({"classes": ["mel"]}, "train_gan.unknown_class"),
        ({"classes": ["df", "df"]}, "train_gan.repeated_class"),
    ],
)
def test_train_with_an_invalid_setting_fails(
    trainer: Trainer, tmp_path: Path, changes: dict[str, Any], code: str
) -> None:
    with raises_user_error(code):
        trainer.run(tmp_path, **changes)
    assert list(tmp_path.iterdir()) == []


def once(steps: set[int], fault: Callable[[GAN], None]) -> Callable[[GAN, int], None]:
    """Return a fault that happens the first time that training reaches each of some steps."""
    remaining = set(steps)

    def apply(gan: GAN, done: int) -> None:
        if done in remaining:
            remaining.remove(done)
            fault(gan)

    return apply


def make_not_finite(gan: GAN) -> None:
    gan.finite.assign(False)


def collapse(gan: GAN) -> None:
    for network in (gan.generator, gan.sampler):
        network.set_weights([np.zeros_like(weight) for weight in network.get_weights()])


def spoil_discriminator(gan: GAN) -> None:
    kernel = gan.discriminator.trainable_variables[0]
    kernel.assign(np.full(kernel.shape, np.nan, np.float32))


def crash(gan: GAN) -> None:
    raise ZeroDivisionError


def test_train_after_divergence_rolls_back_once_with_half_the_learning_rate(
    trainer: Trainer, fake_steps: type[FakeSteps], tmp_path: Path
) -> None:
    """A process that is killed before or after the rollback ends with the same bytes."""
    rates: dict[int, list[float]] = {}

    def diverge_at_4(crash_at: set[int]) -> Callable[[GAN, int], None]:
        diverge, stop = once({4}, make_not_finite), once(crash_at, crash)

        def apply(gan: GAN, done: int) -> None:
            rates.setdefault(done, []).append(float(gan.generator_optimizer.learning_rate))
            diverge(gan, done)
            stop(gan, done)

        return apply

    changes = {"kimg": 0.256, "checkpoint_interval_s": 0.0}  # 8 steps, a snapshot after each
    fake_steps.faults = diverge_at_4(set())
    whole = trainer.run(tmp_path / "whole", **changes)
    assert rates[3] == pytest.approx([1e-4])
    assert rates[4] == pytest.approx([1e-4, 0.5e-4])
    assert rates[8] == pytest.approx([0.5e-4])
    record = load_json(whole)
    assert record["rolled_back_kimg"] == 0.128
    assert record["kid"]["kimg"] == record["losses"]["kimg"] == [round(0.032 * step, 3) for step in range(1, 9)]
    changes["checkpoints"] = str(tmp_path / "checkpoints")
    fake_steps.faults = once({2}, crash)
    with pytest.raises(ZeroDivisionError):
        trainer.run(tmp_path / "resumed", **changes)
    fake_steps.faults = diverge_at_4({6})
    with pytest.raises(ZeroDivisionError):
        trainer.run(tmp_path / "resumed", **changes)
    fake_steps.faults = None
    resumed = trainer.run(tmp_path / "resumed", **changes)
    assert file_sha256(resumed / "gan-vasc.keras") == file_sha256(whole / "gan-vasc.keras")
    assert load_json(resumed) == record


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (make_not_finite, "a loss is not finite"),
        (collapse, "all samples are equal"),
        (spoil_discriminator, "a weight is not finite"),
        (lambda gan: gan.silent_steps.assign(200), "the discriminator's loss was zero for 200 steps"),
    ],
)
def test_train_with_a_fault_that_returns_fails_and_writes_nothing(
    trainer: Trainer,
    fake_steps: type[FakeSteps],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    fault: Callable[[GAN], None],
    reason: str,
) -> None:
    """After the first fault it rolls back to the snapshot before, after the second it fails."""
    fake_steps.faults = once({2, 3}, fault)
    with pytest.raises(DivergedError, match=reason):
        trainer.run(tmp_path, kimg=0.256)
    assert f"diverged after 0.1 kimg ({reason}); rolling back to 0.0 kimg" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_train_rolls_back_to_the_snapshot_before_a_silence(
    trainer: Trainer, fake_steps: type[FakeSteps], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not to a snapshot within it, from which training would be silent again."""
    monkeypatch.setattr("components.train_gan.loop.MAX_SILENT_STEPS", 3)
    fake_steps.faults = once(
        {5, 6, 7}, lambda gan: gan.silent_steps.assign(int(gan.generator_optimizer.iterations) - 4)
    )
    rolled_back_to = []
    roll_back = Training._roll_back

    def note(training: Training, done: float, fault: str) -> None:
        roll_back(training, done, fault)
        rolled_back_to.append(training.history.step)
        fake_steps.faults = None

    monkeypatch.setattr(Training, "_roll_back", note)
    models = trainer.run(tmp_path, kimg=0.256)
    assert rolled_back_to == [4]
    assert load_json(models)["rolled_back_kimg"] == 0.224


@pytest.mark.parametrize(("kimg", "steps"), [(0.1, [1, 2, 3, 4]), (8, [32, 64, 96, 128, 160, 192, 224, 250])])
def test_snapshots_are_at_the_end_of_a_call(trainer: Trainer, kimg: float, steps: list[int]) -> None:
    with trainer.training(kimg=kimg) as training:
        assert sorted(training.snapshot_steps) == steps


@pytest.mark.parametrize(
    ("start_kimg", "kimg", "factors"),
    [
        (0, 32, (1, 0.55, 0.1)),
        (0, 3.2, (1, 1, 1)),
        (10, 8, (1, 1, 1)),
        (16, 8, (1, 0.55, 0.1)),
        (24, 3.2, (FINE_TUNING_RATE, 0.55 * FINE_TUNING_RATE, 0.1 * FINE_TUNING_RATE)),
    ],
)
def test_learning_rate_decays_along_a_cosine_unless_few_images_are_shown(
    trainer: Trainer, start_kimg: float, kimg: float, factors: tuple[float, ...]
) -> None:
    recipe = Recipe("bce", learning_rate=1e-3, final_rate=0.1)
    packed = b""
    if start_kimg:
        with trainer.training(recipe, kimg=0.032) as shared:
            description, arrays = unpack(export_start(shared, "tiny"))
            packed = pack(description | {"kimg": start_kimg}, arrays)
    with trainer.training(recipe, kimg=kimg, start=packed) as training:
        rates, steps = [], training.steps
        for training.history.step in (0, steps // 2, steps):
            training.set_learning_rate()
            rates.append(float(training.gan.generator_optimizer.learning_rate))
            assert float(training.gan.discriminator_optimizer.learning_rate) == rates[-1]
    # Half of a cosine is at the mean of both ends. The optimiser rounds to float32: 2⁻²⁴ = 6e-8.
    assert rates == pytest.approx([factor * 1e-3 for factor in factors], rel=1e-7)


@pytest.mark.parametrize(("start_kimg", "factor"), [(SETTLING_KIMG / 2, 1), (SETTLING_KIMG, FINE_TUNING_RATE)])
def test_train_from_a_start_records_the_learning_rate_that_it_used(
    trainer: Trainer, fake_steps: type[FakeSteps], tmp_path: Path, start_kimg: float, factor: float
) -> None:
    with trainer.training(kimg=0.032) as shared:
        description, arrays = unpack(export_start(shared, "dcgan"))
    (tmp_path / START_FILE).write_bytes(pack(description | {"kimg": start_kimg}, arrays))
    rates: list[float] = []
    fake_steps.faults = lambda gan, done: rates.append(float(gan.generator_optimizer.learning_rate))
    record = load_json(trainer.run(tmp_path, kimg=0.032, start=tmp_path))
    assert record["start_kimg"] == start_kimg
    assert record["settings"]["learning_rate"] == pytest.approx(factor * 1e-4)
    # The optimiser rounds to float32: 2⁻²⁴ = 6e-8.
    assert rates == pytest.approx([record["settings"]["learning_rate"]], rel=1e-7)


def test_train_with_a_failing_class_raises_or_continues_as_configured(
    trainer: Trainer, fake_steps: type[FakeSteps], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor = Training.monitor

    def fail_df(training: Training, *arguments: Any) -> None:
        if "df" in training.label:
            raise RuntimeError("broken\nsecond line")
        monitor(training, *arguments)

    monkeypatch.setattr(Training, "monitor", fail_df)
    with pytest.raises(RuntimeError, match="broken"):
        trainer.run(tmp_path, classes=["df", "vasc"], kimg=0.064)
    assert list(tmp_path.iterdir()) == []
    models = trainer.run(tmp_path, classes=["df", "vasc"], kimg=0.064, failed_class="continue")
    failed = load_gan_record(models / "gan-df.json")
    assert isinstance(failed, FailedGan)
    assert failed.failed == r"RuntimeError: broken\nsecond line"
    assert load_gan_record(models / "gan-vasc.json").status == "trained"
    assert {path.name for path in models.glob("gan-df*")} == {"gan-df.json", "gan-df.html"}
    assert "RuntimeError: broken" in (models / "gan-df.html").read_text()


def test_train_with_a_class_that_fails_before_its_first_step_trains_the_others(
    trainer: Trainer, fake_steps: type[FakeSteps], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = Training.__init__

    def fail_df(training: Training, label: str, *arguments: Any) -> None:
        if "df" in label:
            raise MemoryError("out of memory")
        build(training, label, *arguments)

    monkeypatch.setattr(Training, "__init__", fail_df)
    models = trainer.run(tmp_path, classes=["df", "vasc"], kimg=0.032, failed_class="continue")
    assert load_json(models, "df")["failed"] == "MemoryError: out of memory"
    assert load_json(models)["status"] == "trained"


def settings_in(trainer: Trainer, folder: Path, architecture: str = "dcgan", **changes: Any) -> dict[str, Any]:
    """Return the arguments of `train` with checkpoints in a folder, as `trained` has them."""
    return trainer.settings(folder, **checkpointed(folder, architecture), **changes)


def slots_in(folder: Path) -> list[Path]:
    return [folder / "checkpoints" / "train_gan-vasc" / name for name in SLOTS]


@pytest.fixture
def finished(trained: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the checkpoints of a finished training, without its result."""
    shutil.copytree(trained["dcgan"] / "checkpoints", tmp_path / "checkpoints")
    return tmp_path


def test_train_that_had_finished_writes_the_same_bytes_without_training(
    trainer: Trainer, trained: dict[str, Path], finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.train_gan.loop.Together", None)
    train_quickly(**settings_in(trainer, finished))
    assert load_json(finished / "gans" / "models") == load_json(trained["dcgan"] / "gans" / "models")


def test_train_with_a_damaged_newest_checkpoint_resumes_from_the_one_before(
    trainer: Trainer, trained: dict[str, Path], finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = max(slots_in(finished), key=lambda path: unpack(path.read_bytes())[0]["number"])
    newest.write_bytes(newest.read_bytes()[:-1000])
    train_quickly(**settings_in(trainer, finished))
    output = capsys.readouterr().out
    assert f"warning: {newest.name} is damaged" in output
    assert "resuming at 0.2 of 0.256 kimg" in output
    assert load_json(finished / "gans" / "models") == load_json(trained["dcgan"] / "gans" / "models")


def test_train_with_checkpoints_of_other_settings_starts_again(
    trainer: Trainer, finished: Path, fake_steps: type[FakeSteps], capsys: pytest.CaptureFixture[str]
) -> None:
    train_quickly(**settings_in(trainer, finished, kimg=0.064))
    output = capsys.readouterr().out
    assert "train_gan vasc: starting again" in output
    assert "resuming" not in output
    assert load_json(finished / "gans" / "models")["kimg"] == 0.064


def test_train_with_a_checkpoint_that_lacks_an_array_fails(trainer: Trainer, finished: Path) -> None:
    for path in slots_in(finished):
        state, arrays = unpack(path.read_bytes())
        arrays.pop(sorted(arrays)[-1])
        path.write_bytes(pack(state, arrays))
    with raises_user_error("checkpoint.invalid") as caught:
        train_quickly(**settings_in(trainer, finished))
    assert caught.value.fields == {"label": "train_gan vasc"}
