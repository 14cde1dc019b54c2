import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.shared.errors import UserError
from components.shared.features import load_features
from components.shared.files import file_sha256
from components.shared.image_set import open_pixels, read_rows
from components.train_gan import architectures
from components.train_gan.gan import GAN, Together
from components.train_gan.loop import Training
from components.train_gan.progress_html import STRIP_BYTES, strips
from components.train_gan.recipe import Recipe
from components.train_gan.state import History
from components.train_gan.train import train


@pytest.mark.parametrize(
    ("name", "generator", "discriminator"), [("dcgan", 2_782_432, 1_094_785), ("resnet", 883_843, 897_809)]
)
def test_architectures_at_128_px(name: str, generator: int, discriminator: int):
    nets = architectures.load(name)
    made, judge = nets.generator(128), nets.discriminator(128)
    assert (made.count_params(), judge.count_params()) == (generator, discriminator)
    assert made.output_shape == (None, 128, 128, 3)
    assert judge.output_shape == (None, 1)


@pytest.mark.parametrize("name", architectures.NAMES)
@pytest.mark.parametrize("size", [32, 48, 64])
def test_architectures_at_other_sizes(name: str, size: int):
    nets = architectures.load(name)
    generator = nets.generator(size)
    images = generator.predict_on_batch(np.zeros((2, generator.input_shape[-1]), np.float32))
    assert images.shape == (2, size, size, 3)
    assert np.abs(images).max() <= 1
    assert nets.discriminator(size).predict_on_batch(images).shape == (2, 1)


def test_noise_reaches_every_size_and_the_code_decides_the_form():
    """A change in the noise of one pixel stays near it; one in the code is seen everywhere."""
    keras.utils.set_random_seed(1)
    generator = architectures.load("resnet").generator(64)
    latent = generator.input_shape[-1]
    assert latent == 64 + 8**2 + 16**2 + 32**2 + 64**2
    inputs = np.random.default_rng(0).standard_normal((1, latent), np.float32)

    def changed(index: int) -> np.ndarray:
        other = inputs.copy()
        other[0, index] += 1
        images = generator.predict_on_batch(np.concatenate([inputs, other]))
        return np.abs(images[1] - images[0]).max(axis=2) > 1e-6

    assert changed(0).mean() > 0.9
    begins = np.cumsum([64, 8**2, 16**2, 32**2])
    for begin, side in zip(begins, (8, 16, 32, 64), strict=True):
        scale = 64 // side
        where = changed(begin + (side // 2) * side + side // 2)  # the pixel in the middle
        assert where[32, 32]
        assert 0 < where.mean() <= min(1, (16 * scale / 64) ** 2), side


@pytest.fixture
def run(splits: dict[str, Path], features: Path, tmp_path: Path) -> Callable[..., dict[str, float]]:
    """`train` on the small sets, into a folder."""
    (tmp_path / "cold").touch()

    def trained(folder: Path, **settings: Any) -> dict[str, float]:
        arguments = {
            "classes": ["vasc"],
            "train_set": splits["train"],
            "validation_set": splits["validation"],
            "features": features,
            "start": tmp_path / "cold",
            "architecture": "dcgan",
            "kimg": 0.3,
            "seed": 1,
            "failed_class": "fail",
            "generators": folder / "generators",
            "record": folder / "record",
            "progress_page": folder / "progress",
        }
        return train(**(arguments | settings))

    return trained


def record_of(folder: Path) -> dict[str, Any]:
    (record,) = json.loads((folder / "record").read_text())
    return record


def model_of(folder: Path) -> str:
    return file_sha256(folder / "generators" / "vasc.keras")


@pytest.mark.parametrize("architecture", architectures.NAMES)
def test_trains_on_its_class_and_says_what_it_did(
    splits: dict[str, Path], tmp_path: Path, run: Callable[..., dict[str, float]], architecture: str
):
    losses = run(tmp_path, architecture=architecture)
    assert all(np.isfinite(value) for value in losses.values())
    record = record_of(tmp_path)
    assert (record["dx"], record["real_images"], record["kimg"]) == ("vasc", 14, 0.32)
    assert record["model_sha256"] == model_of(tmp_path)
    # After each of the calls: they end at the eight snapshots.
    assert record["losses"]["kimg"] == record["kid"]["kimg"] == [0.064, 0.096, 0.128, 0.16, 0.224, 0.256, 0.288, 0.32]
    assert record["recipe"]["loss"] == {"dcgan": "bce", "resnet": "relativistic"}[architecture]
    rows = pd.concat([read_rows(splits[split], split) for split in ("train", "validation")])
    assert record["seen"] == sorted(rows.loc[rows["dx"] == "vasc", "pixel_sha256"].str[:16])
    strips = record["snapshots"]
    assert [one["kimg"] for one in (strips[0], strips[-1])] == [0.0, 0.32]
    assert len(strips) == 5
    for snapshot in strips:
        with Image.open(io.BytesIO(base64.b64decode(snapshot["jpeg"])), formats=("JPEG",)) as image:
            assert image.size == (5 * 32, 32)
    page = (tmp_path / "progress").read_text()
    assert page.count("data:image/png") == 9  # before training, and at eight snapshots
    assert "after 0.32 kimg" in page
    curve = record["kid"]
    assert len(curve["kimg"]) == len(curve["value"]) == 8
    assert record["best_kimg"] == curve["kimg"][int(np.argmin(curve["value"]))] == losses["vasc_best_kimg"]
    assert losses["vasc_kid"] == min(curve["value"])
    assert (curve["against"], curve["images"]["validation"]) == ("validation and training", 4)
    # The generator is drawn from without train_gan's code.
    generator = keras.saving.load_model(tmp_path / "generators" / "vasc.keras", compile=False)
    assert type(generator).__module__.startswith("keras.")
    assert generator.predict_on_batch(np.zeros((3, record["latent"]), np.float32)).shape == (3, 32, 32, 3)


def test_the_seed_decides(tmp_path: Path, run: Callable[..., dict[str, float]]):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(tmp_path / name, seed=seed, kimg=0.03)
    a, b, c = (model_of(tmp_path / name) for name in "abc")
    assert a == b != c


@pytest.mark.parametrize("size", [32, 128, 512])
def test_a_strip_stays_small_whatever_it_shows(size: int):
    noise = np.random.default_rng(0).integers(0, 256, (16, size, size, 3)).astype(np.uint8)
    (shown,) = strips(History(grid_kimg=[0.0], grids=[noise]))
    assert 1_000 < len(shown["jpeg"]) <= STRIP_BYTES


def test_the_result_is_the_best_snapshot_and_not_the_last(
    tmp_path: Path, run: Callable[..., dict[str, float]], monkeypatch: pytest.MonkeyPatch
):
    """Trained on as far as the best snapshot alone, the generator is the same."""
    best = 3
    values = iter([0.5, 0.4, 0.1, 0.2, 0.3, 0.15, 0.11, 0.12])
    monkeypatch.setattr("components.train_gan.loop.kid", lambda real, fake: next(values))
    run(tmp_path / "whole", kimg=0.256)
    record = record_of(tmp_path / "whole")
    assert record["best_kimg"] == record["kid"]["kimg"][best - 1] == 0.096
    values = iter([0.5, 0.4, 0.1])
    run(tmp_path / "part", kimg=0.096)
    assert model_of(tmp_path / "whole") == model_of(tmp_path / "part")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"kimg": 0.0}, "gan_kimg is 0.0"),
        ({"kimg": float("nan")}, "gan_kimg is nan"),
        ({"architecture": "nope"}, "choose one of dcgan"),
        ({"classes": ["mel"]}, "no training image of the class mel"),
        ({"classes": []}, "name at least one, and each once"),
        ({"classes": ["df", "df"]}, "name at least one, and each once"),
        ({"failed_class": "perhaps"}, "choose fail or continue"),
        ({"failed_class": "continue", "kimg": 0.0}, "gan_kimg is 0.0"),
    ],
)
def test_a_wrong_setting_is_one_sentence(
    tmp_path: Path, run: Callable[..., dict[str, float]], settings: dict[str, object], sentence: str
):
    with pytest.raises(UserError, match=sentence):
        run(tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def failing(monkeypatch: pytest.MonkeyPatch, fault: Callable[[GAN], None], steps: set[int]) -> None:
    """Does something to the GAN when training reaches steps, the first time that it reaches them."""
    advance, left = Together.advance, set(steps)

    def with_fault(together: Together, *shown: Any) -> None:
        advance(together, *shown)
        for gan in together.gans:
            done = int(gan.generator_optimizer.iterations)
            if done in left:
                left.remove(done)
                fault(gan)

    monkeypatch.setattr(Together, "advance", with_fault)


def not_a_number(gan: GAN) -> None:
    gan.finite.assign(False)


def collapse(gan: GAN) -> None:
    for network in (gan.generator, gan.sampler):
        network.set_weights([np.zeros_like(weight) for weight in network.get_weights()])


def crash(gan: GAN) -> None:
    raise ZeroDivisionError


def test_divergence_goes_back_once_with_half_the_rate(
    tmp_path: Path,
    run: Callable[..., dict[str, float]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    rates: dict[int, list[float]] = {}

    def note_rate(gan: GAN) -> None:
        for optimizer in (gan.generator_optimizer, gan.discriminator_optimizer):
            rates.setdefault(int(optimizer.iterations), []).append(round(float(optimizer.learning_rate), 9))

    settings = {"kimg": 0.512, "checkpoint_interval_s": 0.0}  # 16 steps, every second a snapshot
    with monkeypatch.context() as patch:
        failing(patch, not_a_number, {8})
        failing(patch, note_rate, {6, 16})
        run(tmp_path / "whole", **settings)
    assert "warning: diverged after 0.3 kimg (a loss is not a number); back to 0.2 kimg" in capsys.readouterr().out
    assert rates == {6: [1e-4, 1e-4], 16: [0.5e-4, 0.5e-4]}
    record = record_of(tmp_path / "whole")
    assert record["rolled_back_kimg"] == 0.256
    assert record["kid"]["kimg"] == record["losses"]["kimg"] == [round(0.064 * step, 3) for step in range(1, 9)]
    # Stopped before it diverges, and again after it went back: the same in the end.
    settings["checkpoints"] = str(tmp_path / "kept")
    for stop in (8, 10):
        with monkeypatch.context() as patch:
            failing(patch, not_a_number, {8} if stop > 8 else set())
            failing(patch, crash, {stop})
            with pytest.raises(ZeroDivisionError):
                run(tmp_path / "resumed", **settings)
    run(tmp_path / "resumed", **settings)
    assert model_of(tmp_path / "resumed") == model_of(tmp_path / "whole")
    assert {**record_of(tmp_path / "resumed"), "seconds": 0} == {**record, "seconds": 0}


def test_a_second_divergence_is_reported_and_never_a_result(
    tmp_path: Path, run: Callable[..., dict[str, float]], monkeypatch: pytest.MonkeyPatch
):
    failing(monkeypatch, collapse, {8, 10})
    with pytest.raises(RuntimeError, match=r"vasc: diverged .* for the second time: the samples are all the"):
        run(tmp_path / "out", kimg=0.512)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_discriminator_at_zero_loss_for_long_is_a_divergence(
    tmp_path: Path, run: Callable[..., dict[str, float]], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("components.train_gan.gan.SILENT", 100.0)
    monkeypatch.setattr("components.train_gan.loop.SILENT_STEPS", 10)
    run(tmp_path / "nine", kimg=0.28)
    with pytest.raises(RuntimeError, match="the discriminator's loss was zero for 10 steps"):
        run(tmp_path / "ten", kimg=0.3)


def test_it_goes_back_to_before_a_silence_and_never_to_a_moment_within(
    tmp_path: Path,
    run: Callable[..., dict[str, float]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr("components.train_gan.loop.SILENT_STEPS", 6)
    failing(monkeypatch, lambda gan: gan.silent_steps.assign(int(gan.generator_optimizer.iterations) - 8), {10, 12, 14})
    run(tmp_path / "out", kimg=0.512)  # a snapshot at every second of 16 steps
    assert "diverged after 0.4 kimg (the discriminator's loss was zero for 6 steps); back to 0.3 kimg" in (
        capsys.readouterr().out
    )
    record = record_of(tmp_path / "out")
    assert record["rolled_back_kimg"] == 0.448
    assert len(record["kid"]["kimg"]) == 8


def test_a_network_that_is_no_number_is_no_moment_to_go_back_to(
    tmp_path: Path,
    run: Callable[..., dict[str, float]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    def spoil(gan: GAN) -> None:
        judge = gan.discriminator.trainable_variables[0]
        judge.assign(np.full(judge.shape, np.nan, np.float32))

    failing(monkeypatch, spoil, {8})
    run(tmp_path / "out", kimg=0.512)
    assert "diverged after 0.3 kimg (a weight is not a number); back to 0.2 kimg" in capsys.readouterr().out
    assert record_of(tmp_path / "out")["rolled_back_kimg"] == 0.256


@pytest.mark.parametrize(("kimg", "marks"), [(0.1, [1, 2, 3, 4]), (8, [32, 64, 96, 128, 160, 192, 224, 250])])
def test_snapshots_are_taken_at_the_end_of_a_call(
    splits: dict[str, Path], features: Path, kimg: float, marks: list[int]
):
    with (
        open_pixels(splits["train"], "train", "vasc") as real,
        open_pixels(splits["validation"], "validation", "vasc") as held,
    ):
        nets = architectures.load("dcgan")
        made = Training("x", "dcgan", nets, nets.RECIPE, real, held, load_features(features), kimg, 1, {})
    assert sorted(made.marks) == marks


def test_a_class_that_fails_ends_the_run_or_is_left_out_as_asked(
    splits: dict[str, Path], tmp_path: Path, run: Callable[..., dict[str, float]], monkeypatch: pytest.MonkeyPatch
):
    # A rate at which it diverges at once, and at half of it again.
    settings = {"classes": ["df"], "recipe": Recipe("bce", learning_rate=1e30), "kimg": 0.2}
    with pytest.raises(RuntimeError, match="diverged"):
        run(tmp_path / "out", **settings)
    assert list((tmp_path / "out").iterdir()) == []
    assert run(tmp_path / "out", **settings, failed_class="continue") == {}
    record = record_of(tmp_path / "out")
    assert record["dx"] == "df"
    assert "diverged" in record["failed"]
    assert list((tmp_path / "out" / "generators").iterdir()) == []
    assert "diverged" in (tmp_path / "out" / "progress").read_text()

    # Of two classes in one process the other goes on, whenever it happens.
    begin = Training.__init__

    def no_df(training: Training, label: str, *arguments: Any) -> None:
        if "df" in label:
            raise MemoryError("too large")
        begin(training, label, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "__init__", no_df)
        run(tmp_path / "none", classes=["df"], failed_class="continue", kimg=0.1)
        run(tmp_path / "one", classes=["df", "vasc"], failed_class="continue", kimg=0.1)
    df, vasc = json.loads((tmp_path / "one" / "record").read_text())
    assert (df["failed"], vasc["dx"]) == ("MemoryError: too large", "vasc")
    step = Training.monitor

    def break_df(training: Training, *arguments: Any) -> None:
        if "df" in training.label:
            raise RuntimeError("broken")
        step(training, *arguments)

    monkeypatch.setattr(Training, "monitor", break_df)
    measured = run(tmp_path / "two", classes=["df", "vasc"], failed_class="continue", kimg=0.2)
    df, vasc = json.loads((tmp_path / "two" / "record").read_text())
    assert (df["failed"], vasc["dx"]) == ("RuntimeError: broken", "vasc")
    assert [path.name for path in (tmp_path / "two" / "generators").iterdir()] == ["vasc.keras"]
    assert measured["vasc_kid"] == min(vasc["kid"]["value"])


def test_a_class_is_trained_the_same_alone_and_beside_others(tmp_path: Path, run: Callable[..., dict[str, float]]):
    run(tmp_path / "alone", kimg=0.1)
    run(tmp_path / "beside", kimg=0.1, classes=["df", "vasc"])
    assert model_of(tmp_path / "alone") == model_of(tmp_path / "beside")
    df, vasc = json.loads((tmp_path / "beside" / "record").read_text())
    assert df["model_sha256"] == file_sha256(tmp_path / "beside" / "generators" / "df.keras") != vasc["model_sha256"]
