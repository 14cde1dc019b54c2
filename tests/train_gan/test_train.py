import base64
import io
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from components.generate_images.generate import generate
from components.shared.errors import UserError
from components.shared.files import file_sha256
from components.shared.image_set import read_header, read_rows
from components.train_gan import architectures
from components.train_gan.gan import GAN, to_model_space
from components.train_gan.train import STRIP_BYTES, strip, train, train_or_tell


@pytest.mark.parametrize(("name", "generator", "discriminator"), [("dcgan", 2_782_432, 1_094_785)])
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


def test_model_space():
    assert np.asarray(to_model_space(np.array([0, 255], np.uint8))).tolist() == [-1, 1]


def test_a_step_has_the_losses_of_binary_cross_entropy_and_moves_both_networks():
    """The discriminator gives logits of its weights alone: the losses are then known."""
    generator = keras.Sequential([keras.Input((2,)), keras.layers.Dense(12), keras.layers.Reshape((2, 2, 3))])
    discriminator = keras.Sequential(
        [keras.Input((2, 2, 3)), keras.layers.Flatten(), keras.layers.Dense(1, kernel_initializer="zeros")]
    )
    discriminator.layers[-1].bias.assign([0.7])
    gan = GAN(generator, discriminator, 2, seed=0)
    gan.compile(keras.optimizers.SGD(1e-2), keras.optimizers.SGD(1e-2))
    result = gan.train_on_batch(np.zeros((4, 2, 2, 3), np.uint8), return_dict=True)
    sigmoid = 1 / (1 + np.exp(-0.7))
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    logits = np.full((4, 1), 0.7, np.float32)
    assert result["generator_loss"] == pytest.approx(-np.log(sigmoid), rel=1e-5)
    assert result["discriminator_loss"] == pytest.approx(-np.log(sigmoid) - np.log(1 - sigmoid), rel=1e-5)
    expected = float(loss(np.ones((4, 1)), logits)) + float(loss(np.zeros((4, 1)), logits))
    assert result["discriminator_loss"] == pytest.approx(expected, rel=1e-5)
    # d/db of the discriminator's loss: −(1 − σ) + σ.
    moved = 0.7 - 1e-2 * (2 * sigmoid - 1)
    assert float(np.asarray(discriminator.layers[-1].bias)[0]) == pytest.approx(moved, rel=1e-5)


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
    }
    return train(**(arguments | settings))


def test_trains_on_its_class_and_repeats_itself(splits: dict[str, Path], tmp_path: Path):
    hashes = []
    for name in ("one", "two"):
        losses = run(splits, tmp_path / name)
        assert all(np.isfinite(value) for value in losses.values())
        hashes.append(file_sha256(tmp_path / name / "generator.keras"))
    assert hashes[0] == hashes[1]
    record = json.loads((tmp_path / "one" / "record").read_text())
    assert (record["dx"], record["real_images"], record["kimg"]) == ("vasc", 14, 0.32)
    assert record["model_sha256"] == hashes[0]
    assert record["losses"]["kimg"][-1] == 0.32
    rows = read_rows(splits["train"], "train")
    assert record["seen"] == sorted(rows.loc[rows["dx"] == "vasc", "pixel_sha256"].str[:16])
    strips = record["snapshots"]
    assert [one["kimg"] for one in (strips[0], strips[-1])] == [0.0, 0.32]
    assert len(strips) == 5
    for snapshot in strips:
        with Image.open(io.BytesIO(base64.b64decode(snapshot["jpeg"])), formats=("JPEG",)) as image:
            assert image.size == (5 * 32, 32)
    page = (tmp_path / "one" / "progress").read_text()
    assert page.count("data:image/png") == 9  # before training, and at eight snapshots
    assert "after 0.32 kimg" in page


@pytest.mark.parametrize("size", [32, 128, 512])
def test_a_strip_stays_small_whatever_it_shows(size: int):
    noise = np.random.default_rng(0).integers(0, 256, (16, size, size, 3)).astype(np.uint8)
    assert 1_000 < len(strip(noise)) <= STRIP_BYTES


def test_learns_a_colour():
    """Two small networks on pictures of one colour: the generator's colour comes near it, from grey."""
    keras.utils.set_random_seed(0)
    generator = keras.Sequential([keras.Input((4,)), keras.layers.Dense(12, "tanh"), keras.layers.Reshape((2, 2, 3))])
    discriminator = keras.Sequential([keras.Input((2, 2, 3)), keras.layers.Flatten(), keras.layers.Dense(1)])
    gan = GAN(generator, discriminator, 4, seed=0)
    gan.compile(keras.optimizers.Adam(1e-2, 0.5), keras.optimizers.Adam(1e-2, 0.5))
    rng = np.random.default_rng(0)
    colour = np.array([200, 40, 90])
    noise = rng.standard_normal((256, 4)).astype(np.float32)

    def distance() -> float:
        made = (np.asarray(generator(noise)) + 1) * 127.5
        return float(np.abs(made.mean((0, 1, 2)) - colour).mean())

    before = distance()
    for _ in range(400):
        gan.train_on_batch(np.clip(colour + rng.normal(0, 20, (32, 2, 2, 3)), 0, 255).astype(np.uint8))
    assert before > 45
    assert distance() < 20


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


def test_a_class_that_fails_ends_the_run_or_is_left_out_as_asked(
    splits: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("components.train_gan.train.LEARNING_RATE", 1e30)  # so that it diverges at once
    files = {name: tmp_path / name for name in ("record", "progress_page")}
    settings = {"architecture": "dcgan", "kimg": 0.2, "seed": 1, "generator": tmp_path / "generator.keras"}
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
            architecture="dcgan", kimg=0.0, seed=1, generator=tmp_path / "g.keras",
        )  # fmt: skip
    with pytest.raises(UserError, match="failed_class"):
        train_or_tell("df", splits["train"], tmp_path / "r", tmp_path / "p", "perhaps")
