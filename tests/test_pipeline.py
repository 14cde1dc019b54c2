"""The compiled pipeline, as the Kubeflow backend reads it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("build") / "pipeline.yaml"
    subprocess.run([sys.executable, "-m", "tools.compile", path], cwd=ROOT, check=True, capture_output=True)
    return path.read_bytes()


@pytest.fixture(scope="module")
def spec(compiled: bytes) -> dict[str, Any]:
    return next(iter(yaml.safe_load_all(compiled)))


def test_compiles_to_the_same_bytes_every_time(compiled: bytes, tmp_path: Path):
    subprocess.run([sys.executable, "-m", "tools.compile", tmp_path / "again.yaml"], cwd=ROOT, check=True)
    assert (tmp_path / "again.yaml").read_bytes() == compiled
    assert len(compiled) < 200_000


def test_the_form_has_at_most_15_described_scalars_with_defaults(spec: dict[str, Any]):
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    assert len(parameters) <= 15
    for name, entry in parameters.items():
        assert entry["parameterType"] in ("STRING", "NUMBER_INTEGER", "NUMBER_DOUBLE"), name
        assert entry["defaultValue"], f"{name}: older UIs show zero, empty and false as missing"
        assert len(entry["description"]) > 10, name


def tasks(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """All tasks by name, those of the loop among them."""
    found = dict(spec["root"]["dag"]["tasks"])
    for component in spec["components"].values():
        found |= component.get("dag", {}).get("tasks", {})
    return found


def test_gans_and_images_fan_out_over_the_rare_classes(spec: dict[str, Any]):
    loop = spec["root"]["dag"]["tasks"]["for-loop-1"]
    assert loop["parameterIterator"]["items"]["inputParameter"] == "pipelinechannel--prepare-data-Output"
    inside = spec["components"][loop["componentRef"]["name"]]["dag"]["tasks"]
    assert set(inside) == {"train-gan", "generate-images"}


def test_only_evaluate_reads_the_test_split(spec: dict[str, Any]):
    readers = {
        name
        for name, task in tasks(spec).items()
        for entry in task.get("inputs", {}).get("artifacts", {}).values()
        if entry.get("taskOutputArtifact", {}).get("outputArtifactKey") == "test"
    }
    assert readers == {"evaluate"}


def test_the_arms_differ_in_name_and_training_set_alone(spec: dict[str, Any]):
    arms = [
        spec["root"]["dag"]["tasks"][name]["inputs"]
        for name in ("train-classifier", "train-classifier-2", "train-classifier-3")
    ]
    names = [arm["parameters"].pop("arm")["runtimeValue"]["constant"] for arm in arms]
    sources = [arm["artifacts"].pop("train")["taskOutputArtifact"]["outputArtifactKey"] for arm in arms]
    assert dict(zip(names, sources, strict=True)) == {
        "baseline": "train",
        "oversampled": "oversampled",
        "augmented": "augmented",
    }
    assert arms[0] == arms[1] == arms[2]


def test_publish_is_never_cached_and_all_else_is(spec: dict[str, Any]):
    for name, task in tasks(spec).items():
        if "parameterIterator" not in task:
            assert bool(task.get("cachingOptions")) == (name != "publish"), name


def test_each_phase_has_its_own_image_pinned_by_content(spec: dict[str, Any]):
    images = {name: entry["container"]["image"] for name, entry in spec["deploymentSpec"]["executors"].items()}
    assert len(set(images.values())) == 7
    for name, reference in images.items():
        repository, _, tag = reference.partition(":")
        phase = name.removeprefix("exec-").rstrip("-0123456789")
        assert repository == f"counterweight/{phase}"
        assert len(tag) == 16
        assert set(tag) <= set("0123456789abcdef")
