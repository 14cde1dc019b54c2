"""Sizes of the Argo workflow of a run, estimated from the compiled pipeline and from measured parts.

Measured on Argo Workflows 4.0.5 with Kubeflow Pipelines 2.17.0, in runs with 12 to 1,894 nodes:

- Each container task has six nodes: driver, executor and pod, each below a node for its retries. A DAG, which is the
  root, a nested pipeline, a loop or an iteration, has as many. This gives 1,902 nodes for 153 containers and 164 DAGs
  (measured: 1,894) and 180 for 16 and 14 (measured: 176).
- A node has 464 bytes in the compressed status (878,920 bytes for 1,894 nodes whose inputs are small).
- An artifact of a collected list has 625 bytes in the arguments of the pod, with KFP's default store. They are in six
  nodes and compress to a third: 26 and 32 kB of arguments of two tasks made the status of 176 nodes 118 kB larger.
"""

import json
from typing import Any

from tests.helpers.compiled import Compiled, is_loop

NODES_PER_TASK = 6
NODE_BYTES = 464
ARTIFACT_BYTES = 625
COMPRESSION = 1 / 3


def count_containers(compiled: Compiled, iterations: dict[str, int]) -> tuple[int, int]:
    """Return the numbers of container tasks and of DAGs of a run.

    Args:
        compiled: the pipeline.
        iterations: loop → number of its items.
    """

    def count(tasks: dict[str, Any]) -> tuple[int, int]:
        containers, dags = 0, 1
        for name, task in tasks.items():
            if name in compiled.executed():
                containers += 1
                continue
            inner_containers, inner_dags = count(compiled.inside(task))
            times = iterations[task["taskInfo"]["name"]] if is_loop(task) else 1
            containers += inner_containers * times
            dags += inner_dags * times + is_loop(task)
        return containers, dags

    return count(compiled.dags()["root"])


def count_collected(compiled: Compiled, task: str, iterations: dict[str, int]) -> int:
    """Return the number of artifacts in the inputs of a task; a collected list has one for each iteration."""
    producers = compiled.producers(task)
    return sum(iterations[it["taskInfo"]["name"]] if it and is_loop(it) else 1 for it in producers)


def argument_bytes(compiled: Compiled, task: str, iterations: dict[str, int]) -> int:
    """Return the size of a pod's arguments: its inputs and outputs, as JSON, and its program."""
    component = compiled.spec["components"][compiled.tasks()[task]["componentRef"]["name"]]
    executor = compiled.spec["deploymentSpec"]["executors"][component["executorLabel"]]
    outputs = len(component.get("outputDefinitions", {}).get("artifacts", {}))
    artifacts = count_collected(compiled, task, iterations) + outputs
    return artifacts * ARTIFACT_BYTES + len(json.dumps(executor)) + len(json.dumps(component))


def status_bytes(compiled: Compiled, iterations: dict[str, int]) -> int:
    """Return the size of the compressed status of all nodes, in base64."""
    containers, dags = count_containers(compiled, iterations)
    artifacts = sum(count_collected(compiled, name, iterations) for name in compiled.executed())
    nodes = NODES_PER_TASK * (containers + dags)
    return round(nodes * NODE_BYTES + NODES_PER_TASK * artifacts * ARTIFACT_BYTES * COMPRESSION)
