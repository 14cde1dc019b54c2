"""Small image sets in the form that prepare_data writes, for tests of later phases."""

import contextlib
import gc
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import docker
from components import placement
from components.prepare_data.sources import demo
from components.shared.errors import UserError
from components.shared.image_set import REAL, Header, encode_png, pixel_sha256, write_image_set
from components.shared.records import DataClasses, write_record
from counterweight import build_images
from counterweight.containers import connect
from tests.helpers.patients import add_patients

TIME_LIMITS_S = {"unit": 180, "integration": 300, "e2e": 1500}
"""Of one test, by the folder that it lies in."""

# Test processes share the cores (pytest-xdist): one TensorFlow thread each beats many that wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")


SLOW_FILES = (
    "test_train.py", "test_report.py", "test_leakage.py", "test_browser.py", "test_generate.py", "test_task_table.py",
    "test_gan.py", "test_new_phase.py", "test_prepare.py", "test_sample_metrics.py", "test_pretrain.py",
    "test_pipeline.py", "test_near_duplicates.py", "test_publish.py", "test_manifests.py", "test_gradients.py",
)  # fmt: skip
"""These start first, so that all cores finish at the same time (`--no-loadscope-reorder` keeps the order)."""


def pytest_collection_finish() -> None:
    """Exempt what is imported from garbage collection, which Keras starts for each model."""
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its folder (`unit`, `integration`, `e2e`) and set the time limit of that folder."""
    order = {name: number for number, name in enumerate(SLOW_FILES)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))
    for item in items:
        kind = item.path.relative_to(TESTS).parts[0]
        item.add_marker(kind)
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TIME_LIMITS_S[kind]))


TESTS = Path(__file__).resolve().parent
CLASSES = ("df", "nv", "vasc")
COLOURS = {"df": (200, 90, 60), "nv": (90, 60, 40), "vasc": (160, 30, 90)}


def write_set(path: Path, split: str, counts: dict[str, int], size: int = 32, seed: int = 0) -> Path:
    """Write an image set of noise around a colour per class, with two images per lesion."""
    rng = np.random.default_rng([seed, len(split)])
    header = Header(classes=CLASSES, image_size=size, split=split, data_sha256="d" * 64, split_sha256="5" * 64)
    with write_image_set(path, header) as out:
        for dx, count in counts.items():
            base = np.array(COLOURS[dx])
            images = np.clip(base + rng.normal(0, 25, (count, size, size, 3)), 0, 255).astype(np.uint8)
            numbers = range(count)
            rows = pd.DataFrame(
                {
                    "image_id": [f"{split}-{dx}-{n}" for n in numbers],
                    "lesion_id": [f"{split}-{dx}-lesion-{n // 2}" for n in numbers],
                    "dx": dx,
                    "source": REAL,
                    "pixel_sha256": [pixel_sha256(image) for image in images],
                }
            )
            out.write(rows, [encode_png(image) for image in images])
    return path


@pytest.fixture(autouse=True)
def own_options() -> Iterator[None]:
    """Options that a test sets on a command line do not remain for the next one."""
    yield
    if placement._overrides:
        placement._overrides.clear()
        placement.placement.cache_clear()


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo dataset, generated once; tests only read it."""
    return demo.fetch("demo", tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="session")
def splits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small image set per split."""
    folder = tmp_path_factory.mktemp("splits")
    return {
        "train": write_set(folder / "train", "train", {"df": 10, "nv": 60, "vasc": 14}),
        "validation": write_set(folder / "validation", "validation", {"df": 4, "nv": 12, "vasc": 4}),
        "test": write_set(folder / "test", "test", {"df": 4, "nv": 14, "vasc": 6}),
    }


@pytest.fixture(scope="session")
def training_data(splits: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of that name that prepare_data writes, with the training and validation set of `splits`."""
    folder = tmp_path_factory.mktemp("training_data")
    for split in ("train", "validation"):
        shutil.copyfile(splits[split], folder / f"{split}.parquet")
    write_record(folder / "classes.json", DataClasses(rare=["df", "vasc"]))
    return folder


@pytest.fixture(scope="session")
def patients_data(training_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`training_data`, whose images have patients."""
    folder = tmp_path_factory.mktemp("patients_data")
    for split in ("train", "validation"):
        add_patients(training_data / f"{split}.parquet", folder / f"{split}.parquet")
    shutil.copyfile(training_data / "classes.json", folder / "classes.json")
    return folder


@pytest.fixture(scope="session")
def features(splits: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The feature extractor of `splits`."""
    from components.shared.features import train_features

    path = tmp_path_factory.mktemp("features") / "features.keras"
    train_features(splits["train"], 1, path, "test")
    return path


@pytest.fixture(scope="session")
def rare_data(training_data: Path, features: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of that name that train_features writes, from `training_data`."""
    from components.train_features.train import write_rare_data

    folder = tmp_path_factory.mktemp("train_features") / "rare_data"
    write_rare_data(training_data, features, 1, folder)
    return folder


@pytest.fixture(scope="session")
def make_set() -> Callable[..., Path]:
    """`write_set`, for a test that needs another set."""
    return write_set


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    """A client of the available container engine; the test is skipped without one."""
    try:
        client = connect()
    except UserError:
        pytest.skip("CONTAINERS ARE NOT TESTED: neither Docker nor Podman answers")
    with contextlib.closing(client):
        yield client


@pytest.fixture(scope="session")
def built(engine: docker.DockerClient) -> dict[str, str]:
    """The images of the current code, phase → reference; missing ones are built, which takes minutes."""
    build_images.build(build_images.PHASES)
    return {phase: build_images.image(phase) for phase in build_images.PHASES}
