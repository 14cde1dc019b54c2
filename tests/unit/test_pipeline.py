"""The compiled pipeline, as the Kubeflow backend reads it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.container_images import PHASE_OF
from components.placement import placement

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("build") / "pipeline.yaml"
    subprocess.run([sys.executable, "-m", "counterweight.compile", path], cwd=ROOT, check=True, capture_output=True)
    return path.read_bytes()


@pytest.fixture(scope="module")
def spec(compiled: bytes) -> dict[str, Any]:
    return next(iter(yaml.safe_load_all(compiled)))


def test_compiles_to_the_same_bytes_every_time(compiled: bytes, tmp_path: Path):
    subprocess.run([sys.executable, "-m", "counterweight.compile", tmp_path / "again.yaml"], cwd=ROOT, check=True)
    assert (tmp_path / "again.yaml").read_bytes() == compiled
    assert len(compiled) < 200_000


def test_the_form_has_24_described_entries_with_defaults(spec: dict[str, Any]):
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    assert len(parameters) <= 24
    for name, entry in parameters.items():
        assert entry["parameterType"] in ("STRING", "NUMBER_INTEGER", "NUMBER_DOUBLE", "LIST"), name
        assert entry["defaultValue"], f"{name}: older UIs show zero, empty and false as missing"
        assert len(entry["description"]) > 10, name


@pytest.fixture(scope="module")
def platform(compiled: bytes) -> dict[str, dict[str, Any]]:
    """What is said to Kubernetes of each executor."""
    documents = list(yaml.safe_load_all(compiled))
    return documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def tasks(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """All tasks by name, those of the loops among them."""
    found: dict[str, dict[str, Any]] = {}
    for component in [spec["root"], *spec["components"].values()]:
        inside = component.get("dag", {}).get("tasks", {})
        assert not found.keys() & inside.keys(), "no two tasks have one name"
        found |= inside
    return found


def loops(spec: dict[str, Any]) -> dict[str, tuple[dict[str, Any], set[str]]]:
    """Loops by the input that they go over: the loop's task, and the names of the tasks inside."""
    return {
        name: (task, set(spec["components"][task["componentRef"]["name"]]["dag"]["tasks"]))
        for name, task in tasks(spec).items()
        if "parameterIterator" in task
    }


def test_gans_fan_out_over_the_rare_classes_and_classifiers_over_the_seeds(spec: dict[str, Any]):
    over = {}
    for task, inside in loops(spec).values():
        over[tuple(sorted(inside))] = task["parameterIterator"]["items"]["inputParameter"]
    assert over == {
        ("generate-images", "train-gan"): "pipelinechannel--prepare-data-Output",
        ("train-classifier",): "pipelinechannel--seeds",
        ("train-classifier-2",): "pipelinechannel--seeds",
        ("train-classifier-3",): "pipelinechannel--seeds",
    }


def test_all_that_judges_synthetic_images_has_one_ruler(spec: dict[str, Any]):
    inside = tasks(spec)
    for name in ("train-gan", "generate-images"):
        assert set(inside[name]["inputs"]["artifacts"]) >= {"train", "validation", "features"}
    (loop,) = (task for task, names in loops(spec).values() if "train-gan" in names)
    features = [entry for key, entry in loop["inputs"]["artifacts"].items() if key.endswith("features")]
    assert features == [{"taskOutputArtifact": {"outputArtifactKey": "features", "producerTask": "shared-pretraining"}}]


def test_only_evaluate_reads_the_test_split(spec: dict[str, Any]):
    readers = {
        name
        for name, task in tasks(spec).items()
        for entry in task.get("inputs", {}).get("artifacts", {}).values()
        if entry.get("taskOutputArtifact", {}).get("outputArtifactKey") in ("test", "external_set")
    }
    assert readers == {"evaluate"}


def test_the_arms_differ_in_name_and_training_set_alone(spec: dict[str, Any]):
    sources, arms = {}, []
    for task, inside in loops(spec).values():
        if "train-gan" in inside:
            continue
        (name,) = inside
        arm = tasks(spec)[name]["inputs"]
        train = arm["artifacts"].pop("train")["componentInputArtifact"]
        source = task["inputs"]["artifacts"][train]["taskOutputArtifact"]["outputArtifactKey"]
        sources[arm["parameters"].pop("arm")["runtimeValue"]["constant"]] = source
        # The seed comes from the loop's own item, which has the loop's number in its name.
        assert arm["parameters"].pop("seed")["componentInputParameter"].startswith("pipelinechannel--seeds-loop-item")
        arms.append(arm)
    assert sources == {"baseline": "train", "oversampled": "oversampled", "augmented": "augmented"}
    assert arms[0] == arms[1] == arms[2]


def executed(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The tasks that run a phase."""
    return {
        name: task
        for name, task in tasks(spec).items()
        if "executorLabel" in spec["components"][task["componentRef"]["name"]]
    }


def phase(name: str) -> str:
    """A task's or an executor's phase."""
    name = name.removeprefix("exec-").rstrip("-0123456789").replace("-", "_")
    return PHASE_OF.get(name, name)


def test_publish_and_the_exit_task_are_never_cached_and_all_else_is(spec: dict[str, Any]):
    for name, task in executed(spec).items():
        assert bool(task.get("cachingOptions")) == (name not in ("publish", "notify")), name


def test_the_exit_task_runs_however_the_run_ends(spec: dict[str, Any]):
    root = spec["root"]["dag"]["tasks"]
    assert set(root) == {"exit-handler-1", "notify"}
    assert root["notify"]["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
    assert root["notify"]["dependentTasks"] == ["exit-handler-1"]
    assert root["notify"]["inputs"]["parameters"]["status"] == {"taskFinalStatus": {"producerTask": "exit-handler-1"}}


def test_each_task_says_where_it_runs_how_often_it_is_tried_and_when_it_is_given_up(
    spec: dict[str, Any], platform: dict[str, dict[str, Any]]
):
    for name, task in executed(spec).items():
        wanted = placement().phases[phase(name)]
        retry = task.get("retryPolicy", {})
        assert retry.get("maxRetryCount", 0) == wanted.retries, name
        # Argo counts it from the first attempt's start: the last one must fit in.
        longest_s = float(retry["backoffMaxDuration"].removesuffix("s"))
        assert longest_s > (wanted.retries + 1) * wanted.timeout_h * 3600, name
    executors = spec["deploymentSpec"]["executors"]
    assert set(executors) == set(platform)
    for name, kubernetes in platform.items():
        wanted = placement().phases[phase(name)]
        resources = executors[name]["container"]["resources"]
        assert resources["resourceMemoryLimit"] == resources["resourceMemoryRequest"] == wanted.memory
        assert resources["resourceCpuLimit"] == resources["resourceCpuRequest"] == wanted.cpu
        assert ("accelerator" in resources) == (phase(name) == "train_gan")
        assert kubernetes["activeDeadlineSeconds"] == str(round(wanted.timeout_h * 3600))
        assert kubernetes["emptyDirMounts"] == [{"mountPath": "/tmp", "volumeName": "tmp"}]
        assert kubernetes["securityContext"] == {"runAsNonRoot": True}
        assert "cloud.google.com/gke-spot" in {entry["key"] for entry in kubernetes["tolerations"]}
    gpu = executors["exec-train-gan"]["container"]["resources"]["accelerator"]
    assert (gpu["resourceType"], gpu["resourceCount"]) == ("nvidia.com/gpu", "1")


def test_what_trains_gans_knows_its_run_by_its_pods_label_and_not_by_a_parameter(
    spec: dict[str, Any], platform: dict[str, dict[str, Any]]
):
    """A run's id among a task's inputs would keep every run from another's cached result."""
    told = {name: entry["fieldPathAsEnv"] for name, entry in platform.items() if "fieldPathAsEnv" in entry}
    run = [{"fieldPath": "metadata.labels['pipeline/runid']", "name": "COUNTERWEIGHT_RUN"}]
    assert told == {"exec-train-gan": run, "exec-shared-pretraining": run}
    for name, task in executed(spec).items():
        if name not in ("publish", "notify"):
            assert "{{$.pipeline_job" not in str(task.get("inputs")), name


def test_the_webhook_comes_from_a_secret_that_need_not_be_there(platform: dict[str, dict[str, Any]]):
    (secret,) = platform["exec-notify"]["secretAsEnv"]
    assert secret["keyToEnv"] == [{"envVar": "COUNTERWEIGHT_WEBHOOK", "secretKey": "url"}]
    assert secret["optional"] is True
    assert [name for name, entry in platform.items() if "secretAsEnv" in entry] == ["exec-notify"]


def test_each_phase_has_its_own_image_pinned_by_content(spec: dict[str, Any]):
    images = {name: entry["container"]["image"] for name, entry in spec["deploymentSpec"]["executors"].items()}
    assert len(set(images.values())) == 8
    for name, reference in images.items():
        repository, _, tag = reference.partition(":")
        assert repository == f"counterweight/{phase(name).replace('_', '-')}"
        assert len(tag) == 16
        assert set(tag) <= set("0123456789abcdef")
