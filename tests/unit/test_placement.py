"""Where tasks run on a cluster: the file, and what of it stands in the compiled pipeline."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from components import placement
from components.shared.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
FILE = yaml.safe_load(placement.DEFAULT.read_text(encoding="utf-8"))


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Reads a file made of the default one with some entries replaced."""

    def read_(**entries: Any) -> placement.Placement:
        path = tmp_path / "placement.yaml"
        path.write_text(yaml.safe_dump(FILE | entries), encoding="utf-8")
        monkeypatch.setenv(placement.FILE_VARIABLE, str(path))
        placement.placement.cache_clear()
        return placement.placement()

    yield read_
    placement.placement.cache_clear()


def test_every_phase_has_its_place():
    phases = {path.parent.name for path in (ROOT / "components").glob("*/component.py")}
    assert set(placement.placement().phases) == phases


@pytest.mark.parametrize(
    ("quantity", "amount"), [("4", 4), ("500m", 0.5), ("1.5", 1.5), ("2k", 2000), ("8Gi", 8 * 2**30), ("3M", 3e6)]
)
def test_quantities_are_kubernetes_own(quantity: str, amount: float):
    assert placement._amount(quantity) == amount


def test_an_hour_costs_what_was_asked_for(read: Any):
    read(prices={"cpu": 0.03, "memory_gib": 0.004, "accelerator": 0.7, "currency": "EUR"})
    rates = placement.rates()
    assert rates["currency"] == "EUR"
    assert rates["phases"]["train_gan"] == {
        "cpu": 4, "memory_gib": 8, "accelerators": 1, "price": pytest.approx(4 * 0.03 + 8 * 0.004 + 0.7)
    }  # fmt: skip
    assert rates["phases"]["shared_pretraining"] == rates["phases"]["train_gan"]
    assert rates["phases"]["publish"]["accelerators"] == 0


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        (
            {"phases": {"train_gan": {"cpu": "4", "memory": "8 GB", "retries": 1, "timeout_h": 1}}},
            "memory can't be used",
        ),
        ({"accelerator": {"type": "gpu"}}, "accelerator.type can't be used"),
        ({"accelerator": {"count": 0}}, "accelerator.count can't be used"),
        ({"acelerator": {}}, "acelerator can't be used"),
        ({"nodes": {"tolerations": [{"key": "a", "effect": "Never"}]}}, "effect can't be used"),
    ],
)
def test_an_entry_that_cannot_be_used_is_one_sentence(read: Any, entries: dict[str, Any], sentence: str):
    with pytest.raises(UserError, match=sentence):
        read(**entries)


@pytest.mark.parametrize("content", [b"\xff", b"{", None])
def test_a_file_that_cannot_be_read_is_one_sentence(
    tmp_path: Path, content: bytes | None, monkeypatch: pytest.MonkeyPatch
):
    if content is not None:
        (tmp_path / "p.yaml").write_bytes(content)
    monkeypatch.setenv(placement.FILE_VARIABLE, str(tmp_path / "p.yaml"))
    placement.placement.cache_clear()
    with pytest.raises(UserError, match="can't be read as YAML"):
        placement.placement()
    placement.placement.cache_clear()


def test_a_mig_slice_other_nodes_and_a_queue_reach_the_pipeline(tmp_path: Path):
    own = tmp_path / "placement.yaml"
    accelerator = {
        "type": "nvidia.com/mig-1g.10gb",
        "count": 2,
        "at_a_time": 3,
        "node_selector": {"pool": "gpu"},
        "tolerations": [{"key": "gpu"}],
    }
    own.write_text(yaml.safe_dump(FILE | {"accelerator": accelerator, "queue": "batch", "webhook_secret": ""}))
    command = [sys.executable, "-m", "counterweight.compile", tmp_path / "pipeline.yaml"]
    environment = {**os.environ, placement.FILE_VARIABLE: str(own)}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    spec, platform = yaml.safe_load_all((tmp_path / "pipeline.yaml").read_text())
    executors = spec["deploymentSpec"]["executors"]
    assert executors["exec-train-gan"]["container"]["resources"]["accelerator"] == {
        "count": "2", "resourceCount": "2", "resourceType": "nvidia.com/mig-1g.10gb", "type": "nvidia.com/mig-1g.10gb"
    }  # fmt: skip
    kubernetes = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert kubernetes["exec-train-gan"]["nodeSelector"] == {"labels": {"pool": "gpu"}}
    assert {entry["key"] for entry in kubernetes["exec-train-gan"]["tolerations"]} == {
        "cloud.google.com/gke-spot",
        "gpu",
    }
    for name, entry in kubernetes.items():
        assert entry["podMetadata"] == {"labels": {"kueue.x-k8s.io/queue-name": "batch"}}, name
        assert "secretAsEnv" not in entry, name
    loops = [
        task
        for component in [spec["root"], *spec["components"].values()]
        for task in component.get("dag", {}).get("tasks", {}).values()
        if "parameterIterator" in task and "train-gan" in str(spec["components"][task["componentRef"]["name"]]["dag"])
    ]
    assert [loop["iteratorPolicy"]["parallelismLimit"] for loop in loops] == [3]
