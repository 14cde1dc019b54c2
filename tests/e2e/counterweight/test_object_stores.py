"""A whole run on data in a store, published to each store by the component, and read back by the commands."""

import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.publish.component import publish
from scripts import verify_published
from tests.helpers.object_servers import Place, azure_place, azure_server, gs_place, s3_place, s3_server

ROOT = Path(__file__).resolve().parents[3]
SMALL = [
    "PRESET=demo",
    "data_image_size=32",
    "arms=baseline,oversampled,augmented",
    "synthetic_shares=1",
    "synthetic_classes=df",
    "synthetic_per_class=4",
    "gan_kimg=0.1",
    "gan_shared_kimg=0",
    "classifier_epochs=1",
    "classifier_seeds=1",
]


def command(folder: Path, *words: str) -> str:
    """Run a command of the package and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "counterweight", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=1400,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def stores() -> Iterator[dict[str, Place]]:
    """All three stores at once, as a run may use several."""
    with (
        s3_server() as s3,
        azure_server() as azure,
        gs_place() as gs_bucket,
        s3_place(s3) as s3_bucket,
        azure_place(azure) as container,
    ):
        stores = {"s3": s3_bucket, "az": container, "gs": gs_bucket}
        for place in stores.values():  # each of them removed the variables of the others
            os.environ.update(place.variables)
        yield stores


@pytest.fixture(scope="module")
def trained(stores: dict[str, Place], demo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which a run was trained on data in S3."""
    folder = tmp_path_factory.mktemp("trained")
    for path in demo_folder.rglob("*"):
        if path.is_file():
            stores["s3"].put(f"demo/{path.relative_to(demo_folder).as_posix()}", path.read_bytes())
    command(folder, "run", f"DATA={stores['s3'].uri('demo')}", "OUT=out", *SMALL)
    return folder


def artifact(path: Path) -> SimpleNamespace:
    """Return what the component uses of one of Kubeflow's artifacts."""
    return SimpleNamespace(path=str(path), uri=str(path), metadata={})


def publish_again(trained: Path, output: str, scratch: Path) -> str:
    """Publish the artifacts of the run with the component, as its task does, and return the place."""
    (artifacts,) = (trained / "runs/.cache/artifacts").glob("counterweight-*")
    return str(
        publish.python_func(
            test_data=artifact(artifacts / "prepare-data/test_data"),
            data_profile=artifact(artifacts / "prepare-data/data_profile"),
            synthetic_images=artifact(artifacts / "balance-dataset/synthetic_images"),
            classifiers_real=[artifact(path) for path in artifacts.glob("for-loop-1-*/train-classifier*/classifiers")],
            classifiers_synthetic=[artifact(path) for path in artifacts.glob("for-loop-2-*/train-*/classifiers")],
            results=artifact(artifacts / "evaluate/results"),
            report=artifact(artifacts / "evaluate/report"),
            output=output,
            run="run-1",
            verdict="not established",
            promote_if="always",
            published=artifact(scratch / "published"),
        )
    )


@pytest.fixture(scope="module")
def published(trained: Path, stores: dict[str, Place], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Scheme → the address of the published run."""
    scratch = tmp_path_factory.mktemp("published")
    return {scheme: publish_again(trained, place.uri("results"), scratch / scheme) for scheme, place in stores.items()}


@pytest.fixture(scope="module")
def new_images(stores: dict[str, Place]) -> dict[str, str]:
    """Scheme → the address of eight new images in two class folders."""
    rng = np.random.default_rng(8)
    for place in stores.values():
        for number in range(8):
            buffer = io.BytesIO()
            coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3)).astype(np.uint8))
            coarse.resize((40, 40), Image.Resampling.BICUBIC).save(buffer, "PNG")
            place.put(f"new/{('df', 'nv')[number % 2]}/{number}.png", buffer.getvalue())
    return {scheme: place.uri("new") for scheme, place in stores.items()}


SCHEMES = ("s3", "az", "gs")
each = pytest.mark.parametrize("scheme", SCHEMES)


@each
def test_published_run_is_complete_and_its_hashes_match(
    scheme: str, trained: Path, stores: dict[str, Place], published: dict[str, str]
):
    assert published[scheme] == stores[scheme].uri("results/run-1")
    found = {
        name.removeprefix("results/run-1/"): content for name, content in stores[scheme].contents("results").items()
    }
    manifest = json.loads(found.pop("manifest.json"))
    assert manifest["candidate"] == "models/augmented@1.keras"
    assert {name: entry["sha256"] for name, entry in manifest["files"].items()} == {
        name: hashlib.sha256(content).hexdigest() for name, content in found.items()
    }
    local = {path for path in (trained / "out").rglob("*") if path.is_file() and path.name != "manifest.json"}
    assert {path.relative_to(trained / "out").as_posix(): path.read_bytes() for path in local} == found
    assert verify_published.main(stores[scheme].uri("results")) == 0


@each
def test_commands_read_the_published_run_and_new_images(
    scheme: str, published: dict[str, str], new_images: dict[str, str], tmp_path: Path
):
    other = SCHEMES[SCHEMES.index(scheme) - 1]
    command(tmp_path, "predict", f"RUN={published[scheme]}", f"DATA={new_images[other]}", "OUT=predictions")
    table = pd.read_parquet(tmp_path / "predictions" / "predictions.parquet")
    assert sorted(table["image"]) == sorted(f"{('df', 'nv')[number % 2]}/{number}.png" for number in range(8))
    assert table.filter(like="p_").sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-5)

    command(tmp_path, "evaluate", f"RUN={published[scheme]}", f"EXTERNAL={new_images[other]}", "OUT=external")
    results = json.loads((tmp_path / "external" / "metrics.json").read_text())
    counts = {dx: count["images"] for dx, count in results["external"]["counts"].items()}
    assert {dx: count for dx, count in counts.items() if count} == {"df": 4, "nv": 4}


def test_one_run_in_two_stores_has_no_difference(published: dict[str, str], tmp_path: Path):
    printed = command(tmp_path, "compare", f"RUN={published['s3']},{published['az']}", "OUT=compare.html")
    assert (tmp_path / "compare.html").is_file()
    assert "the settings are equal" in printed
    lines = [line for line in printed.splitlines() if line.startswith("augmented")]
    assert lines
    assert all("0.000" in line for line in lines)
