import base64
import io
import json
import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.generate_images.generate import generate
from components.shared.errors import UserError
from components.shared.files import file_sha256
from components.shared.image_set import decoded, read_header, read_rows
from components.train_gan import architectures
from components.train_gan.gan import GAN
from components.train_gan.recipe import Recipe
from components.train_gan.train import STRIP_BYTES, _shown, strip, train, train_or_tell


@pytest.mark.parametrize(
    ("name", "generator", "discriminator"), [("dcgan", 2_782_432, 1_094_785), ("resnet", 880_019, 897_809)]
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
    images = nets.generator(size).predict_on_batch(np.zeros((2, nets.LATENT), np.float32))
    assert images.shape == (2, size, size, 3)
    assert np.abs(images).max() <= 1
    assert nets.discriminator(size).predict_on_batch(images).shape == (2, 1)


@pytest.fixture(scope="module")
def judge(splits: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The classifier that judges snapshots, which is the same in all runs here, made once: by a first, short one."""
    folder = tmp_path_factory.mktemp("judge")
    run(splits, folder, kimg=0.001, checkpoints=str(folder))
    return next(folder.glob("features-*"))


@pytest.fixture
def kept(judge: Path, tmp_path: Path) -> str:
    """A folder for checkpoints with the judge in it."""
    (tmp_path / "kept").mkdir()
    shutil.copy(judge, tmp_path / "kept")
    return str(tmp_path / "kept")


def run(splits: dict[str, Path], folder: Path, **settings: object) -> dict[str, float]:
    arguments = {
        "dx": "vasc",
        "train_set": splits["train"],
        "architecture": "dcgan",
        "kimg": 0.3,
        "seed": 1,
        "generator": folder / "generator.keras",
        "record": folder / "record",
        "progress_page": folder / "progress",
        "validation_set": splits["validation"],
    }
    return train(**(arguments | settings))


@pytest.mark.parametrize("architecture", architectures.NAMES)
def test_trains_on_its_class_and_says_what_it_did(splits: dict[str, Path], tmp_path: Path, architecture: str):
    losses = run(splits, tmp_path, architecture=architecture)
    assert all(np.isfinite(value) for value in losses.values())
    record = json.loads((tmp_path / "record").read_text())
    assert (record["dx"], record["real_images"], record["kimg"]) == ("vasc", 14, 0.32)
    assert record["model_sha256"] == file_sha256(tmp_path / "generator.keras")
    assert record["losses"]["kimg"] == [round(0.032 * step, 3) for step in range(1, 11)]
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
    assert record["best_kimg"] == curve["kimg"][int(np.argmin(curve["value"]))] == losses["best_kimg"]
    assert losses["kid"] == min(curve["value"])
    assert (curve["against"], curve["images"]["validation"]) == ("validation and training", 4)
    # The generator is drawn from without train_gan's code.
    generate(tmp_path / "generator.keras", tmp_path / "record", 3, 1, tmp_path / "images", tmp_path / "sheet")
    assert set(read_rows(tmp_path / "images", "train", ["source"])["source"]) == {architecture}


def test_the_seed_decides(splits: dict[str, Path], tmp_path: Path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(splits, tmp_path / name, seed=seed, kimg=0.03)
    a, b, c = (file_sha256(tmp_path / name / "generator.keras") for name in "abc")
    assert a == b != c


@pytest.mark.parametrize("size", [32, 128, 512])
def test_a_strip_stays_small_whatever_it_shows(size: int):
    noise = np.random.default_rng(0).integers(0, 256, (16, size, size, 3)).astype(np.uint8)
    assert 1_000 < len(strip(noise)) <= STRIP_BYTES


def test_the_result_is_the_best_snapshot_and_not_the_last(
    splits: dict[str, Path], tmp_path: Path, kept: str, monkeypatch: pytest.MonkeyPatch
):
    """Trained on as far as the best snapshot alone, the generator is the same."""
    best = 3
    values = iter([0.5, 0.4, 0.1, 0.2, 0.3, 0.15, 0.11, 0.12])
    monkeypatch.setattr("components.train_gan.quality.kid", lambda real, fake: next(values))
    run(splits, tmp_path / "whole", kimg=0.256, checkpoints=kept)
    record = json.loads((tmp_path / "whole" / "record").read_text())
    assert record["best_kimg"] == record["kid"]["kimg"][best - 1] == 0.096
    values = iter([0.5, 0.4, 0.1])
    shutil.rmtree(tmp_path / "kept" / "train_gan-vasc")
    run(splits, tmp_path / "part", kimg=0.096, checkpoints=kept)
    assert file_sha256(tmp_path / "whole" / "generator.keras") == file_sha256(tmp_path / "part" / "generator.keras")


def test_real_images_are_turned_as_the_recipe_says(splits: dict[str, Path]):
    with decoded(splits["train"], "train", "vasc") as pixels:
        plain, turned = (
            next(_shown(pixels, Recipe("bce", turns=turns), 4, 7, 0))[0].astype(int) for turns in (False, True)
        )
    assert (plain != turned).any()
    assert np.sort(plain.reshape(32, -1)).tolist() == np.sort(turned.reshape(32, -1)).tolist()


def test_what_a_step_is_shown_depends_on_its_number_alone(splits: dict[str, Path]):
    with decoded(splits["train"], "train", "vasc") as pixels:
        recipe = Recipe("bce", turns=True)
        whole = list(islice(_shown(pixels, recipe, 4, 7, 0), 6))
        for one, other in zip(whole[4:], _shown(pixels, recipe, 4, 7, 4), strict=False):
            for a, b in zip(one, other, strict=True):
                np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    noise = np.concatenate([np.asarray(noise) for _, noise, _ in whole])
    assert len(np.unique(noise)) == noise.size
    draws = np.concatenate([np.asarray(draws).ravel() for *_, draws in whole])
    assert len(np.unique(draws)) > 0.99 * draws.size
    assert ((draws >= 0) & (draws < 1)).all()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"kimg": 0.0}, "gan_kimg is 0.0"),
        ({"kimg": float("nan")}, "gan_kimg is nan"),
        ({"architecture": "nope"}, "choose one of dcgan"),
        ({"dx": "mel"}, "no training image of the class mel"),
    ],
)
def test_a_wrong_setting_is_one_sentence(
    splits: dict[str, Path], tmp_path: Path, settings: dict[str, object], sentence: str
):
    with pytest.raises(UserError, match=sentence):
        run(splits, tmp_path, **settings)
    assert not list(tmp_path.iterdir())


def failing(monkeypatch: pytest.MonkeyPatch, fault: Callable[[GAN, dict[str, float]], None], steps: set[int]) -> None:
    """Does something to the GAN or its losses when training reaches steps, the first time that it reaches them."""
    step, left = GAN.step, set(steps)

    def with_fault(gan: GAN, *shown: object) -> dict[str, float]:
        losses = step(gan, *shown)
        done = int(gan.generator_optimizer.iterations)
        if done in left:
            left.remove(done)
            fault(gan, losses)
        return losses

    monkeypatch.setattr(GAN, "step", with_fault)


def not_a_number(gan: GAN, losses: dict[str, float]) -> None:
    losses["now"] = float("nan")


def collapse(gan: GAN, losses: dict[str, float]) -> None:
    gan.sampler.set_weights([np.zeros_like(weight) for weight in gan.sampler.get_weights()])


def test_divergence_goes_back_once_with_half_the_rate(
    splits: dict[str, Path],
    tmp_path: Path,
    kept: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    rates = {}

    def note_rate(gan: GAN, losses: dict[str, float]) -> None:
        for optimizer in (gan.generator_optimizer, gan.discriminator_optimizer):
            rates.setdefault(int(optimizer.iterations), []).append(round(float(optimizer.learning_rate), 9))

    settings = {"kimg": 0.512, "checkpoint_every_s": 0.0, "checkpoints": kept}  # 16 steps, every second a snapshot
    with monkeypatch.context() as patch:
        failing(patch, not_a_number, {7})
        failing(patch, note_rate, {6, 16})
        run(splits, tmp_path / "whole", **settings)
    assert "warning: diverged after 0.2 kimg (a loss is not a number); back to 0.2 kimg" in capsys.readouterr().out
    assert rates == {6: [1e-4, 1e-4], 16: [0.5e-4, 0.5e-4]}
    record = json.loads((tmp_path / "whole" / "record").read_text())
    assert record["rolled_back_kimg"] == 0.224
    assert record["losses"]["kimg"] == [round(0.032 * step, 3) for step in range(1, 17)]
    assert record["kid"]["kimg"] == [round(0.064 * step, 3) for step in range(1, 9)]
    # Stopped before it diverges, and again after it went back: the same in the end.
    shutil.rmtree(tmp_path / "kept" / "train_gan-vasc")
    for stop in (7, 9):
        with monkeypatch.context() as patch:
            failing(patch, not_a_number, {7} if stop > 7 else set())
            failing(patch, lambda gan, losses: 1 / 0, {stop})
            with pytest.raises(ZeroDivisionError):
                run(splits, tmp_path / "resumed", **settings)
    run(splits, tmp_path / "resumed", **settings)
    assert file_sha256(tmp_path / "resumed" / "generator.keras") == file_sha256(tmp_path / "whole" / "generator.keras")
    resumed = json.loads((tmp_path / "resumed" / "record").read_text())
    assert {**resumed, "seconds": 0} == {**record, "seconds": 0}


def test_a_second_divergence_is_reported_and_never_a_result(
    splits: dict[str, Path], tmp_path: Path, kept: str, monkeypatch: pytest.MonkeyPatch
):
    failing(monkeypatch, collapse, {8, 10})
    with pytest.raises(RuntimeError, match=r"the GAN of vasc diverged .* for the second time: the samples are all the"):
        run(splits, tmp_path, kimg=0.512, checkpoints=kept)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_discriminator_at_zero_loss_for_long_is_a_divergence(
    splits: dict[str, Path], tmp_path: Path, kept: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("components.train_gan.train.SILENT", 100.0)
    monkeypatch.setattr("components.train_gan.train.SILENT_STEPS", 10)
    run(splits, tmp_path / "nine", kimg=0.28, checkpoints=kept)
    shutil.rmtree(tmp_path / "kept" / "train_gan-vasc")
    with pytest.raises(RuntimeError, match="the discriminator's loss was zero for 10 steps"):
        run(splits, tmp_path / "ten", kimg=0.3, checkpoints=kept)


def test_a_class_that_fails_ends_the_run_or_is_left_out_as_asked(splits: dict[str, Path], tmp_path: Path):
    files = {name: tmp_path / name for name in ("record", "progress_page")}
    settings = {"architecture": "dcgan", "kimg": 0.2, "seed": 1, "generator": tmp_path / "generator.keras"}
    # A rate at which it diverges at once, and at half of it again.
    settings |= {"validation_set": splits["validation"], "recipe": Recipe("bce", learning_rate=1e30)}
    with pytest.raises(RuntimeError, match="diverged"):
        train_or_tell("df", splits["train"], failed_class="fail", **files, **settings)
    assert list(tmp_path.iterdir()) == []
    assert train_or_tell("df", splits["train"], failed_class="continue", **files, **settings) == {}
    facts = json.loads(files["record"].read_text())
    assert facts["dx"] == "df"
    assert "diverged" in facts["failed"]
    assert (tmp_path / "generator.keras").stat().st_size == 0
    assert "diverged" in files["progress_page"].read_text()
    # The phase behind it writes an empty set, of which the arms are made as of any other.
    generate(tmp_path / "generator.keras", files["record"], 5, 1, tmp_path / "images", tmp_path / "sheet")
    assert len(read_rows(tmp_path / "images", "train", ["dx"])) == 0
    assert read_header(tmp_path / "images") == read_header(splits["train"])


@pytest.mark.parametrize("policy", ["fail", "continue"])
def test_a_mistake_is_never_a_failed_class(splits: dict[str, Path], tmp_path: Path, policy: str):
    with pytest.raises(UserError, match="gan_kimg"):
        train_or_tell(
            "df", splits["train"], tmp_path / "r", tmp_path / "p", policy,
            architecture="dcgan", kimg=0.0, seed=1, generator=tmp_path / "g.keras", validation_set=splits["validation"],
        )  # fmt: skip
    with pytest.raises(UserError, match="failed_class"):
        train_or_tell("df", splits["train"], tmp_path / "r", tmp_path / "p", "perhaps")
