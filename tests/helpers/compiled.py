"""The compiled pipeline, as the Kubeflow backend reads it, with any placement."""

import importlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from components import placement
from counterweight import compile as compiler

FILE = yaml.safe_load(placement.DEFAULT.read_text(encoding="utf-8"))


def is_loop(task: Mapping[str, Any]) -> bool:
    """Return whether a task is a loop."""
    return "parameterIterator" in task


@dataclass(frozen=True)
class Compiled:
    """Both documents of a compiled pipeline: `spec`, and `platform`, the Kubernetes settings of each executor."""

    content: bytes
    spec: dict[str, Any]
    platform: dict[str, dict[str, Any]]

    def dags(self) -> dict[str, dict[str, Any]]:
        """Return component → its tasks; the root is `root`."""
        components = {"root": self.spec["root"], **self.spec["components"]}
        return {name: entry["dag"]["tasks"] for name, entry in components.items() if "dag" in entry}

    def tasks(self) -> dict[str, dict[str, Any]]:
        """Return all tasks by name, including those in loops; a loop by its display name, which is unique."""
        found: dict[str, dict[str, Any]] = {}
        for tasks in self.dags().values():
            named = {task["taskInfo"]["name"] if is_loop(task) else name: task for name, task in tasks.items()}
            assert not found.keys() & named.keys(), "task names are unique"
            found |= named
        return found

    def producers(self, name: str) -> list[dict[str, Any]]:
        """Return the tasks that make the input artifacts of a task, one for each input."""
        tasks = next(tasks for tasks in self.dags().values() if name in tasks)
        sources = tasks[name].get("inputs", {}).get("artifacts", {}).values()
        return [tasks[it["taskOutputArtifact"]["producerTask"]] if "taskOutputArtifact" in it else {} for it in sources]

    def executed(self) -> dict[str, dict[str, Any]]:
        """Return the tasks that run a phase."""
        components = self.spec["components"]
        return {n: t for n, t in self.tasks().items() if "executorLabel" in components[t["componentRef"]["name"]]}

    def loops(self) -> dict[str, dict[str, Any]]:
        """Return the loops by name."""
        return {name: task for name, task in self.tasks().items() if is_loop(task)}

    def inside(self, task: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Return the tasks of a loop or of a nested pipeline."""
        return self.spec["components"][task["componentRef"]["name"]]["dag"]["tasks"]


@contextmanager
def quick_stack() -> Iterator[None]:
    """Let KFP read the stack, which it does at each setting of a task, without source lines: they take seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inspect, "stack", partial(inspect.stack, 0))
        yield


def compile_pipeline(folder: Path, entries: Mapping[str, Any] | None = None) -> Compiled:
    """Compile the pipeline with a placement file in which some entries are replaced."""
    with pytest.MonkeyPatch.context() as patch, quick_stack():
        if entries is not None:
            (folder / "placement.yaml").write_text(yaml.safe_dump(FILE | dict(entries)), encoding="utf-8")
            patch.setenv(placement.FILE_VARIABLE, str(folder / "placement.yaml"))
        placement.placement.cache_clear()
        if "pipeline" in sys.modules:
            importlib.reload(sys.modules["pipeline"])
        path = folder / "pipeline.yaml"
        compiler.main(path)
    placement.placement.cache_clear()
    content = path.read_bytes()
    spec, platform = yaml.load_all(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return Compiled(content, spec, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"])
