"""Short trainings of GANs on the small image sets."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.shared.features import Features, load_features
from components.shared.image_set import open_pixels
from components.shared.parameters import Options, choices
from components.train_gan import architectures
from components.train_gan.gan import GAN
from components.train_gan.loop import Training
from components.train_gan.pretrain import pretrain
from components.train_gan.recipe import Recipe
from components.train_gan.train import train
from tests.helpers import tiny_architecture

KIMG = 0.256
"""Budget of the trained GANs: 8 steps, a snapshot after each. All calls have the same length, so one is compiled."""


ARCHITECTURES = choices(Options)["gan_architecture"]
RECIPES = {name: replace(architectures.load(name).RECIPE, penalise_every=1) for name in ARCHITECTURES}
"""Recipe of the trained GANs: only one kind of step is compiled. test_gan.py checks the others."""

SNAPSHOT_IMAGES = 64
"""Samples from which the KID of a snapshot is computed, instead of 256."""


def train_quickly(**settings: Any) -> None:
    """`train` with small snapshots."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("components.train_gan.loop.SNAPSHOT_IMAGES", SNAPSHOT_IMAGES)
        train(**settings)


@dataclass(frozen=True)
class Trainer:
    """Runs `train` with short settings, into a folder.

    Attributes:
        training_data, features, no_start: inputs of the phase.
        extractor: `features`, loaded; its compiled prediction serves all tests.
    """

    training_data: Path
    features: Path
    no_start: Path
    extractor: Features

    def settings(self, folder: Path, **changes: Any) -> dict[str, Any]:
        """Return the arguments of `train`."""
        values: dict[str, Any] = {
            "classes": ["vasc"],
            "rare_data": self.training_data,
            "features": self.features,
            "start": self.no_start,
            "architecture": "dcgan",
            "kimg": KIMG,
            "seed": 1,
            "failed_class": "fail",
            "gans": folder / "gans",
        }
        return values | changes

    def run(self, folder: Path, **changes: Any) -> Path:
        """Train, and return the folder with models and records."""
        train_quickly(**self.settings(folder, **changes))
        return folder / "gans" / "models"

    @contextmanager
    def training(self, recipe: Recipe | None = None, **changes: Any) -> Iterator[Training]:
        """Yield a training of `vasc` with tiny networks that has not started."""
        values: dict[str, Any] = {"kimg": KIMG, "seed": 1, "settings": {}} | changes
        with (
            open_pixels(self.training_data / "train.parquet", "train", "vasc") as pixels,
            open_pixels(self.training_data / "validation.parquet", "validation", "vasc") as validation_pixels,
        ):
            yield Training(
                "train_gan vasc",
                "tiny",
                tiny_architecture,
                recipe or tiny_architecture.RECIPE,
                pixels,
                validation_pixels,
                self.extractor,
                **values,
            )


def checkpointed(folder: Path, architecture: str) -> dict[str, Any]:
    """Return settings of `train` with a checkpoint in a folder after each snapshot."""
    return {
        "architecture": architecture,
        "recipe": RECIPES[architecture],
        "checkpoints": str(folder / "checkpoints"),
        "checkpoint_interval_s": 0.0,
    }


def load_json(models: Path, dx: str = "vasc") -> dict[str, Any]:
    """Return the record of a class, without the time that training took."""
    record = json.loads((models / f"gan-{dx}.json").read_text())
    record.pop("seconds", None)
    return record


@pytest.fixture(scope="session")
def trainer(training_data: Path, features: Path, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    return Trainer(training_data, features, tmp_path_factory.mktemp("no_start"), load_features(features))


@pytest.fixture(scope="session")
def trained(trainer: Trainer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """For each architecture, the folder of a GAN of `vasc`, with a checkpoint after each of its eight snapshots."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ARCHITECTURES}
    for name, folder in folders.items():
        trainer.run(folder, **checkpointed(folder, name))
    return folders


@pytest.fixture(scope="session")
def pretrained(trainer: Trainer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `pretrain` wrote: a GAN of `df` and `vasc`."""
    folder = tmp_path_factory.mktemp("pretrained") / "start"
    pretrain(["df", "vasc"], trainer.training_data, trainer.features, "dcgan", 0.064, 1, folder)
    return folder


class FakeSteps:
    """A replacement of `Together` that only moves the weights by the learning rate and the images of each step.

    The training loop around the steps is the real one; nothing is compiled.
    """

    faults: Callable[[GAN, int], None] | None = None
    """Called after each call's steps with a GAN and its number of steps."""

    def __init__(self, gans: Sequence[GAN]) -> None:
        self.gans = gans

    def advance(self, images: Sequence[np.ndarray], rows: Sequence[np.ndarray], first: int) -> None:
        for gan, its_images, its_rows in zip(self.gans, images, rows, strict=True):
            rate = float(gan.generator_optimizer.learning_rate)
            for row in its_rows:
                shift = np.float32(rate * its_images[row].mean() / 255)
                for variable in gan.generator.trainable_variables:
                    variable.assign(np.asarray(variable) + shift)
            iterations = gan.generator_optimizer.iterations
            iterations.assign(int(iterations) + len(its_rows))
            if self.faults is not None:
                type(self).faults(gan, int(iterations))


@pytest.fixture
def fake_steps(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> type[FakeSteps]:
    """Training of tiny networks without real steps; set `faults` to disturb it."""

    class Steps(FakeSteps):
        pass

    monkeypatch.setattr("components.train_gan.loop.Together", Steps)
    monkeypatch.setattr(architectures, "load", lambda name: tiny_architecture)
    for module in ("train", "pretrain"):
        monkeypatch.setattr(f"components.train_gan.{module}.load_features", lambda path: trainer.extractor)
    return Steps
