"""A small run in the form of its artifacts, with untrained classifiers, and its evaluation."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.evaluate.evaluate import evaluate
from components.prepare_data.near_duplicates import perceptual_hashes, thumbnail
from components.shared import html_page, keras_setup
from components.shared.arms import share_of
from components.shared.files import file_sha256
from components.shared.image_set import (
    encode_png,
    open_pixels,
    pixel_sha256,
    read_header,
    read_rows,
    seen_hashes,
    write_image_set,
)
from components.shared.records import (
    ClassifierRecord,
    SampleQuality,
    SyntheticSources,
    TrainedGan,
    write_record,
)
from tests.helpers.published_run import write_manifest

ARMS = ("baseline", "oversampled", "augmented@1")
SEEDS = (1, 2)
SYNTHETIC_IMAGES = 9


@dataclass(frozen=True)
class RunFolders:
    """The artifacts that evaluate reads, below one folder."""

    folder: Path

    @property
    def arguments(self) -> dict[str, Any]:
        return {
            "training_data": self.folder / "training_data",
            "test_data": self.folder / "test_data",
            "synthetic_images": self.folder / "synthetic_images",
            "classifiers": [self.folder / "classifiers_real", self.folder / "classifiers_synthetic"],
            "positive_classes": "vasc",
            "parameters": {"data": "test", "data_external": "none", "data_split": "random", "random_seed": 1},
        }

    def record(self, arm: str, seed: int) -> Path:
        part = "synthetic" if share_of(arm) else "real"
        stem = arm if seed == SEEDS[0] else f"{arm}-seed{seed}"
        return self.folder / f"classifiers_{part}" / "models" / f"{stem}.json"

    @property
    def gan(self) -> Path:
        return self.folder / "synthetic_images" / "models" / "gan-df.json"

    def evaluate(self, **changes: Any) -> dict[str, Any]:
        """Return the results in the form of `metrics.json`."""
        out = {"results": self.folder / "results", "report": self.folder / "report.html"}
        return evaluate(**(self.arguments | out | changes)).model_dump(exclude_unset=True)


def edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None removes a key."""
    removed = {key for key, value in changes.items() if value is None}
    value = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: it for key, it in value.items() if key not in removed}))


def _classifier(seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(4, 5, 4, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, "softmax", kernel_initializer=keras.initializers.RandomNormal(0, 4, seed)),
        ]
    )


def _write_classifiers(run: RunFolders, splits: dict[str, Path]) -> None:
    header = read_header(splits["train"])
    with open_pixels(splits["train"], "train") as pixels, open_pixels(splits["validation"], "validation") as held_out:
        hashes = seen_hashes(pixels, held_out)
    for number, arm in enumerate(ARMS):
        for seed in SEEDS:
            path = run.record(arm, seed)
            path.parent.mkdir(parents=True, exist_ok=True)
            model = _classifier(10 * number + seed)
            keras_setup.save_model(model, path.with_suffix(".keras"))
            record = {
                "arm": arm,
                "parameters": model.count_params(),
                "model_sha256": file_sha256(path.with_suffix(".keras")),
                "data_sha256": header.data_sha256,
                "split_sha256": header.split_sha256,
                "train_set_sha256": f"{number}" * 64,
                "train_rows": 84 + 9 * (arm != "baseline"),
                "settings": {"epochs": 2, "augmentation": "none", "seed": seed, "batch": 32, "precision": "float32"},
                "epochs": 2,
                "real_views": 1.9,
                "validated_epochs": [1, 2],
                "history": {"loss": [1.0, 0.9], "val_loss": [1.1, 1.2], "val_balanced_accuracy": [0.5, 0.4]},
                "versions": {"keras": keras.__version__},
                "seconds": 1.5,
                "seen": hashes,
            }
            write_record(path, ClassifierRecord(**record))


def _write_synthetic(run: RunFolders, splits: dict[str, Path]) -> None:
    folder = run.folder / "synthetic_images"
    header = read_header(splits["train"])
    images = np.random.default_rng(5).integers(0, 256, (SYNTHETIC_IMAGES, 32, 32, 3)).astype(np.uint8)
    (folder / "synthetic").mkdir(parents=True)
    with write_image_set(folder / "synthetic" / "df.parquet", header) as out:
        rows = {"image_id": [f"df-{n}" for n in range(len(images))], "dx": "df", "source": "gan"}
        hashes = [pixel_sha256(image) for image in images]
        out.write(pd.DataFrame(rows | {"pixel_sha256": hashes}), [encode_png(image) for image in images])
    strip = html_page.encode_jpeg_base64(html_page.contact_sheet(images[:4], 4), 4, 7_500)
    gan = TrainedGan(
        dx="df", architecture="dcgan", classes=list(header.classes), image_size=32, data_sha256=header.data_sha256,
        split_sha256=header.split_sha256, recipe={"loss": "bce"}, latent=8, kimg=4.0, start_kimg=0.0, best_kimg=2.0,
        real_images=10, parameters={"generator": 1, "discriminator": 1}, precision="float32", rolled_back_kimg=None,
        losses={"kimg": [2.0, 4.0], "generator": [1.0, 1.1], "discriminator": [0.9, 0.8]},
        kid={"kimg": [2.0, 4.0], "value": [0.1, 0.2], "against": "validation and training",
             "images": {"validation": 4, "synthetic": 256}},
        versions={}, seconds=3.0, model_sha256="a" * 64, seen=[], settings={"seed": 1},
        snapshots=[{"kimg": 2.0, "jpeg": strip}],
    )  # fmt: skip
    run.gan.parent.mkdir(parents=True)
    write_record(run.gan, gan)
    quality = SampleQuality(
        dx="df", images=SYNTHETIC_IMAGES, drawn=12, kid=0.1, density=0.8, coverage=0.7, texture=0.6, copies=1,
        separability=0.9, separability_spectrum=0.97,
        copy_threshold=0.1, curated=2, reject=0.2, against="validation and training",
        nearest=[{"distance": 0.3, "image_id": "train-df-0", "index": 4}], pairs_jpeg=strip,
    )  # fmt: skip
    write_record(folder / "synthetic" / "df.json", quality)
    write_record(folder / "sources.json", SyntheticSources(sources={}))


@pytest.fixture(scope="session")
def run(splits: dict[str, Path], features: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolders:
    """Everything that evaluate reads, without external images; tests must not change it."""
    found = RunFolders(tmp_path_factory.mktemp("run"))
    training, test = found.arguments["training_data"], found.arguments["test_data"]
    for folder in (training, test):
        folder.mkdir()
    shutil.copy(splits["train"], training / "train.parquet")
    shutil.copy(splits["validation"], training / "validation.parquet")
    (training / "classes.json").write_text('{"rare": ["df"]}')
    shutil.copy(splits["test"], test / "test.parquet")
    _write_classifiers(found, splits)
    _write_synthetic(found, splits)
    shutil.copy(features, found.arguments["synthetic_images"] / "models" / "features.keras")
    return found


@pytest.fixture
def changed_run(run: RunFolders, tmp_path: Path) -> RunFolders:
    """A copy of the run for a test to change."""
    shutil.copytree(run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("results", "report.html"))
    return RunFolders(tmp_path / "run")


@pytest.fixture
def remedies_run(changed_run: RunFolders) -> RunFolders:
    """The run without synthetic images, as its phases write it."""
    synthetic = changed_run.arguments["synthetic_images"]
    changed_run.gan.unlink()
    shutil.rmtree(synthetic / "synthetic")
    shutil.rmtree(changed_run.folder / "classifiers_synthetic" / "models")
    return changed_run


@pytest.fixture(scope="session")
def evaluated(run: RunFolders, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The results of the run, and the folder with `results/` and `report.html`."""
    folder = tmp_path_factory.mktemp("evaluated")
    return run.evaluate(results=folder / "results", report=folder / "report.html"), folder


@pytest.fixture(scope="session")
def published_run(
    run: RunFolders, evaluated: tuple[dict[str, Any], Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The run as publish leaves it; tests must not change it."""
    folder = tmp_path_factory.mktemp("published") / "run"
    shutil.copytree(evaluated[1] / "results", folder)
    for part in (run.arguments["synthetic_images"], *run.arguments["classifiers"]):
        shutil.copytree(part, folder, dirs_exist_ok=True)
    parts = []
    for split, path in (
        ("train", run.arguments["training_data"] / "train.parquet"),
        ("validation", run.arguments["training_data"] / "validation.parquet"),
        ("test", run.arguments["test_data"] / "test.parquet"),
    ):
        with open_pixels(path, split) as pixels:
            small = b"".join(thumbnail(Image.fromarray(image)) for image in pixels.images)
            hashes = perceptual_hashes(np.frombuffer(small, np.uint8).reshape(-1, 32, 32))
        rows = read_rows(path, split, ["image_id", "lesion_id", "dx", "split", "pixel_sha256"])
        parts.append(rows.assign(perceptual_hash=hashes))
    pd.concat(parts).to_csv(folder / "splits.csv", index=False)
    return write_manifest(folder)


@pytest.fixture
def published(published_run: Path, tmp_path: Path) -> Path:
    """A copy of the published run for a test to change."""
    return Path(shutil.copytree(published_run, tmp_path / "published"))


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Replace matplotlib's figures by empty SVG, for tests that do not look at them."""
    from components.evaluate.report import plots

    def draw_nothing(*_: Any) -> str:
        return '<svg role="img" aria-label="figure"></svg>'

    monkeypatch.setattr(plots, "draw_svg", draw_nothing)
    return draw_nothing
