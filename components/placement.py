"""Phase → where its tasks run on a cluster, from a file that is read when the pipeline is compiled.

A local run takes no notice of any of it.
"""

import os
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import yaml
from kfp import dsl, kubernetes
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.container_images import PHASE_OF
from components.shared.errors import UserError

DEFAULT = Path(__file__).resolve().parent.parent / "manifests" / "placement.yaml"
FILE_VARIABLE = "PLACEMENT"
"""Names another file than the default."""

Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$")]
"""As Kubernetes writes amounts: `500m`, `4`, `8Gi`."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Toleration(_Strict):
    """A taint that the tasks put up with, as in a pod."""

    key: str
    operator: str = Field(default="Exists", pattern="^(Exists|Equal)$")
    value: str | None = None
    effect: str | None = Field(default=None, pattern="^(NoSchedule|PreferNoSchedule|NoExecute)$")


class Nodes(_Strict):
    """Which nodes: all that have these labels, those with these taints among them."""

    node_selector: dict[str, str] = {}
    tolerations: list[Toleration] = []


class Accelerator(Nodes):
    """What GAN training asks for.

    Attributes:
        type: the resource's name: `nvidia.com/gpu`, a MIG slice such as `nvidia.com/mig-1g.10gb`; `none` for a cluster
            without.
        count: how many for each task, of `gans_per_task` classes.
        at_a_time: so many tasks train GANs at once.
    """

    type: str = Field(default="nvidia.com/gpu", pattern=r"^(none|[a-z0-9.-]+/[A-Za-z0-9._-]+)$")
    count: int = Field(default=1, ge=1, le=16)
    at_a_time: int = Field(default=8, ge=1, le=1000)


class Resources(_Strict):
    """One phase's request, which is its limit as well: a task that outgrows it ends itself, not its neighbours.

    Attributes:
        cpu, memory: as Kubernetes writes them.
        retries: how often a failed task is started again, after one minute, two, four …
        timeout_h: hours after which a task is stopped.
        accelerator: whether it asks for the accelerator.
    """

    cpu: Quantity
    memory: Quantity
    retries: int = Field(ge=0, le=100)
    timeout_h: float = Field(gt=0)
    accelerator: bool = False


class Prices(_Strict):
    """Of an hour, in any currency; 0 where unknown."""

    cpu: float = Field(default=0, ge=0)
    memory_gib: float = Field(default=0, ge=0)
    accelerator: float = Field(default=0, ge=0)
    currency: str = ""


class Placement(_Strict):
    """The whole file: see `manifests/placement.yaml`, which says what each entry is for."""

    phases: dict[str, Resources]
    accelerator: Accelerator = Accelerator()
    nodes: Nodes = Nodes()
    queue: str = ""
    webhook_secret: str = ""
    api: str = ""
    ui: str = ""
    prices: Prices = Prices()


@cache
def placement() -> Placement:
    """The file's content.

    Raises:
        UserError: it can't be read, or an entry can't be used.
    """
    path = Path(os.environ.get(FILE_VARIABLE) or DEFAULT)
    try:
        return Placement.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} can't be read as YAML ({type(error).__name__}); give another PLACEMENT.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"{path}: {where} can't be used ({first['msg']}); mend that entry.") from error


def place(task: dsl.PipelineTask, phase: str) -> dsl.PipelineTask:
    """Says where a task runs, how much it may use, how often it is tried and when it is given up."""
    file = placement()
    wanted = file.phases[phase]
    task.set_cpu_request(wanted.cpu).set_cpu_limit(wanted.cpu)
    task.set_memory_request(wanted.memory).set_memory_limit(wanted.memory)
    if wanted.retries:
        # Argo counts the longest backoff from the first attempt's start, and stops an attempt that runs beyond it.
        longest_s = round((wanted.retries + 1) * wanted.timeout_h * 3600) + 60 * 2**wanted.retries
        task.set_retry(wanted.retries, "60s", 2, f"{longest_s}s")
    # Kubeflow sets all else that Pod Security's `restricted` asks for, but not this.
    kubernetes.set_security_context(task, run_as_non_root=True)
    kubernetes.set_timeout(task, round(wanted.timeout_h * 3600))
    # The images run with a read-only root; what a task writes beside its artifacts goes here.
    kubernetes.empty_dir_mount(task, volume_name="tmp", mount_path="/tmp")  # noqa: S108
    _send(task, file.nodes)
    if wanted.accelerator and file.accelerator.type != "none":
        task.set_accelerator_type(file.accelerator.type).set_accelerator_limit(file.accelerator.count)
        _send(task, file.accelerator)
    if file.queue:
        kubernetes.add_pod_label(task, "kueue.x-k8s.io/queue-name", file.queue)
    return task


def _send(task: dsl.PipelineTask, nodes: Nodes) -> None:
    for key, value in nodes.node_selector.items():
        kubernetes.add_node_selector(task, key, value)
    for toleration in nodes.tolerations:
        kubernetes.add_toleration(task, **toleration.model_dump(exclude_none=True))


def rates() -> dict[str, Any]:
    """What an hour of each phase asks for and costs, for the run's last report: phase → cpu, memory_gib, accelerators
    and price; and the currency. Tasks with a name of their own stand there like a phase."""
    file = placement()
    phases = {}
    for phase, wanted in (file.phases | {task: file.phases[name] for task, name in PHASE_OF.items()}).items():
        accelerators = file.accelerator.count if wanted.accelerator and file.accelerator.type != "none" else 0
        cpu, memory_gib = _amount(wanted.cpu), _amount(wanted.memory) / 2**30
        price = cpu * file.prices.cpu + memory_gib * file.prices.memory_gib + accelerators * file.prices.accelerator
        phases[phase] = {"cpu": cpu, "memory_gib": memory_gib, "accelerators": accelerators, "price": round(price, 6)}
    return {"phases": phases, "currency": file.prices.currency}


def _amount(quantity: str) -> float:
    """A Kubernetes quantity as a number."""
    units = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
    number = quantity.rstrip("mkKMGTi")
    return float(number) * units.get(quantity.removeprefix(number), 1)
