"""Where tasks run on a cluster: the file, and its effect on the compiled pipeline."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from components import placement
from components.shared import parameters
from components.shared.errors import UserError
from tests.helpers.compiled import FILE, compile_pipeline

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Read the default file with some entries replaced."""

    def read_(**entries: Any) -> placement.Placement:
        path = tmp_path / "placement.yaml"
        path.write_text(yaml.safe_dump(FILE | entries), encoding="utf-8")
        monkeypatch.setenv(placement.FILE_VARIABLE, str(path))
        placement.placement.cache_clear()
        return placement.placement()

    yield read_
    placement.placement.cache_clear()


def test_placement_has_every_phase():
    phases = {path.parent.name for path in (ROOT / "components").glob("*/component.py")}
    assert set(placement.placement().phases) == phases


@pytest.mark.parametrize(
    ("quantity", "amount"), [("4", 4), ("500m", 0.5), ("1.5", 1.5), ("2k", 2000), ("8Gi", 8 * 2**30), ("3M", 3e6)]
)
def test_amount_reads_kubernetes_quantities(quantity: str, amount: float):
    assert placement._amount(quantity) == amount


def test_rates_multiply_requests_and_prices(read: Any):
    read(prices={"cpu": 0.03, "memory_gib": 0.004, "accelerator": 0.7, "currency": "EUR"})
    rates = placement.rates()
    assert rates["currency"] == "EUR"
    assert rates["phases"]["train_gan"] == {
        "cpu": 4, "memory_gib": 8, "accelerators": 1, "price": pytest.approx(4 * 0.03 + 8 * 0.004 + 0.7)
    }  # fmt: skip
    assert rates["phases"]["pretrain_gan"] == rates["phases"]["train_gan"]
    assert rates["phases"]["publish"]["accelerators"] == 0


@pytest.mark.parametrize(
    ("entries", "entry"),
    [
        (
            {"phases": {"train_gan": {"cpu": "4", "memory": "8 GB", "retries": 1, "timeout_h": 1}}},
            "phases.train_gan.memory",
        ),
        (
            {"phases": {"notify": {"cpu": "1", "memory": "1Gi", "retries": 1, "timeout_h": 1, "scratch": "5 GB"}}},
            "phases.notify.scratch",
        ),
        ({"accelerator": {"type": "gpu"}}, "accelerator.type"),
        ({"accelerator": {"count": 0}}, "accelerator.count"),
        ({"accelerators": {}}, "accelerators"),
        ({"nodes": {"tolerations": [{"key": "a", "effect": "Never"}]}}, "nodes.tolerations.0.effect"),
        ({"options": {"failed_class": "ignore"}}, "options.failed_class"),
        ({"options": {"checkpoints": "ftp://bucket"}}, "options.checkpoints"),
        ({"storage": {"variables": {"AWS_SECRET_ACCESS_KEY": "abc"}}}, "storage.variables"),
        ({"storage": {"variables": {"AZURE_STORAGE_SAS_TOKEN": "sv=1"}}}, "storage.variables"),
        ({"storage": {"variables": {"AWS_ENDPOINT_URL": "https://a:b@c"}}}, "storage.variables"),
        ({"webhook_secret": "https://hooks.example.org/abc"}, "webhook_secret"),
    ],
)
def test_placement_with_an_invalid_entry_fails(read: Any, entries: dict[str, Any], entry: str):
    with pytest.raises(UserError) as caught:
        read(**entries)
    assert (caught.value.code, caught.value.fields["entry"]) == ("placement.invalid", entry)


BOMB = b"a: &a [0, 0, 0, 0, 0, 0, 0, 0, 0, 0]\n" + b"".join(
    b"%c: &%c [%s]\n" % (key, key, b", ".join([b"*%c" % (key - 1)] * 10)) for key in b"bcdefghi"
)
"""A billion values in nine lines."""


@pytest.mark.parametrize("content", [b"\xff", b"{", b"a: 2026-13-99", BOMB, b"[" * 9000, None])
def test_placement_of_an_unreadable_file_fails(tmp_path: Path, content: bytes | None, monkeypatch: pytest.MonkeyPatch):
    if content is not None:
        (tmp_path / "p.yaml").write_bytes(content)
    monkeypatch.setenv(placement.FILE_VARIABLE, str(tmp_path / "p.yaml"))
    placement.placement.cache_clear()
    with pytest.raises(UserError) as caught:
        placement.placement()
    assert caught.value.code == "placement.unreadable"
    placement.placement.cache_clear()


def test_accelerator_nodes_and_queue_reach_the_compiled_pipeline(tmp_path: Path):
    accelerator = {
        "type": "nvidia.com/mig-1g.10gb",
        "count": 2,
        "at_a_time": 3,
        "node_selector": {"pool": "gpu"},
        "tolerations": [{"key": "gpu"}],
    }
    entries = {"accelerator": accelerator, "queue": "batch", "kaggle_secret": "kaggle"}
    compiled = compile_pipeline(tmp_path, entries)
    executors, platform = compiled.spec["deploymentSpec"]["executors"], compiled.platform
    assert executors["exec-train-gan"]["container"]["resources"]["accelerator"] == {
        "count": "2", "resourceCount": "2", "resourceType": "nvidia.com/mig-1g.10gb", "type": "nvidia.com/mig-1g.10gb"
    }  # fmt: skip
    assert platform["exec-train-gan"]["nodeSelector"] == {"labels": {"pool": "gpu"}}
    assert {entry["key"] for entry in platform["exec-train-gan"]["tolerations"]} == {"cloud.google.com/gke-spot", "gpu"}
    for name, entry in platform.items():
        assert entry["podMetadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "batch"}, name
    assert [name for name, entry in platform.items() if "secretAsEnv" in entry] == [
        "exec-check-inputs", "exec-prepare-data"
    ]  # fmt: skip
    assert compiled.loops()["classes"]["iteratorPolicy"]["parallelismLimit"] == 3


def test_access_to_storage_reaches_the_tasks_that_use_it(tmp_path: Path):
    storage = {
        "variables": {"AWS_ENDPOINT_URL": "http://seaweedfs.kubeflow:8333"},
        "secret": "mlpipeline-minio-artifact",
    }
    compiled = compile_pipeline(tmp_path, {"storage": storage})
    names = (
        "check-inputs",
        "prepare-data",
        "read-other-data",
        "pretrain-gan",
        "train-gan",
        "train-classifier",
        "publish",
    )
    expected = {f"exec-{name}" for name in (*names, "train-classifier-2")}
    containers = {name: entry["container"] for name, entry in compiled.spec["deploymentSpec"]["executors"].items()}
    assert {name for name, container in containers.items() if "env" in container} == expected
    assert containers["exec-publish"]["env"] == [
        {"name": "AWS_ENDPOINT_URL", "value": "http://seaweedfs.kubeflow:8333"}
    ]
    secrets = {name: entry["secretAsEnv"] for name, entry in compiled.platform.items() if "secretAsEnv" in entry}
    assert secrets.keys() == expected
    assert {pair["envVar"] for pair in secrets["exec-train-gan"][0]["keyToEnv"]} == {
        "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"
    }  # fmt: skip
    assert secrets["exec-train-gan"][0]["secretName"] == "mlpipeline-minio-artifact"


def test_override_options_replaces_options_of_the_file(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(placement, "_overrides", {})
    placement.override_options({"gans_per_task": "5", "failed_class": "continue"})
    options = placement.placement().options
    assert (options.gans_per_task, options.failed_class, options.promote_if) == (5, "continue", "improved")
    with pytest.raises(UserError) as caught:
        placement.override_options({"gans_per_task": "0"})
    assert (caught.value.code, caught.value.fields["name"]) == ("parameter.invalid", "gans_per_task")
    placement.placement.cache_clear()


def test_file_documents_the_default_of_every_option():
    assert FILE["options"] == parameters.defaults(parameters.Options)


def test_the_file_in_the_repository_lists_every_option():
    options = yaml.safe_load((ROOT / "manifests/placement.yaml").read_text(encoding="utf-8"))["options"]
    assert set(options) == set(parameters.Options.model_fields)
