"""Where each phase's tasks run on a cluster, and the options that are compiled into the pipeline.

Both come from a YAML file that is read when the pipeline is compiled. A local run uses the options only.
"""

import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from components.container_images import PHASE_OF
from components.shared.errors import UserError
from components.shared.initial_weights import MARK, check_network
from components.shared.parameters import Options, parse
from components.shared.records import describe_invalid
from components.shared.safe_yaml import load_yaml
from components.shared.stores.addresses import is_signed

if TYPE_CHECKING:
    from kfp import dsl

DEFAULT = Path(__file__).resolve().parent.parent / "manifests" / "placement.yaml"
FILE_VARIABLE = "PLACEMENT"
"""Environment variable that names another file than the default."""

BACKOFF_S = 15
"""Before the first retry; doubles for each further one. Argo reports even a final failure this much later."""

Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$")]
"""An amount in Kubernetes' notation: `500m`, `4`, `8Gi`."""


StorageVariable = Annotated[str, Field(pattern=r"^(AWS|AZURE)_[A-Z0-9_]+$")]
"""An environment variable that a client of S3 or Azure reads."""

SecretName = Annotated[str, Field(pattern=r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?)?$")]
"""The name of a Kubernetes secret, or an empty text."""

USES_STORAGE = ("check_inputs", "prepare_data", "train_gan", "train_classifier", "publish")
"""Phases that read or write object storage themselves."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Toleration(_Strict):
    """A taint that the tasks tolerate, as in a pod."""

    key: str
    operator: str = Field(default="Exists", pattern="^(Exists|Equal)$")
    value: str | None = None
    effect: str | None = Field(default=None, pattern="^(NoSchedule|PreferNoSchedule|NoExecute)$")


class Nodes(_Strict):
    """The nodes that have these labels, including those with these taints."""

    node_selector: dict[str, str] = {}
    tolerations: list[Toleration] = []


class Accelerator(Nodes):
    """The accelerators that GAN training requests.

    Attributes:
        type: name of the resource: `nvidia.com/gpu`, a MIG slice such as `nvidia.com/mig-1g.10gb`, or `none`.
        count: number for each task.
        at_a_time: tasks that train GANs at the same time.
    """

    type: str = Field(default="nvidia.com/gpu", pattern=r"^(none|[a-z0-9.-]+/[A-Za-z0-9._-]+)$")
    count: int = Field(default=1, ge=1, le=16)
    at_a_time: int = Field(default=8, ge=1, le=1000)


class Resources(_Strict):
    """One phase's request, which is also its limit: a task that exceeds it fails alone.

    Attributes:
        cpu, memory: in Kubernetes' notation.
        retries: maximum number of retries of a failed task, after 15 s, 30 s, one minute …
        timeout_h: hours after which a task is stopped.
        accelerator: whether it requests the accelerator.
        scratch: maximum size of the files in its `/tmp`, on the node's disk; the pod is evicted beyond it.
    """

    cpu: Quantity
    memory: Quantity
    retries: int = Field(ge=0, le=100)
    timeout_h: float = Field(gt=0)
    accelerator: bool = False
    scratch: Quantity = "50Gi"


class Storage(_Strict):
    """Access to object storage, for the tasks that read or write it.

    Attributes:
        variables: environment variables, such as AWS_ENDPOINT_URL.
        secret: a Kubernetes secret.
        keys: key of the secret → environment variable.
    """

    variables: dict[StorageVariable, str] = {}
    secret: SecretName = ""
    keys: dict[str, StorageVariable] = {"accesskey": "AWS_ACCESS_KEY_ID", "secretkey": "AWS_SECRET_ACCESS_KEY"}

    @field_validator("variables")
    @classmethod
    def _has_no_secret(cls, variables: dict[str, str]) -> dict[str, str]:
        # Everybody who may see the pipeline sees the variables.
        for name, value in variables.items():
            if re.search("SECRET|TOKEN|PASSWORD|ACCOUNT_KEY|CONNECTION_STRING", name) and not name.endswith("_FILE"):
                raise ValueError(f"{name} is a secret; name a Kubernetes secret in secret, and its key in keys")
            if re.search(r"//[^/?#]*@", value) or is_signed(value):
                raise ValueError(f"{name} contains a password or signature")
        return variables


class Prices(_Strict):
    """Prices per hour, in any currency; 0 if unknown."""

    cpu: float = Field(default=0, ge=0)
    memory_gib: float = Field(default=0, ge=0)
    accelerator: float = Field(default=0, ge=0)
    currency: str = ""


class Placement(_Strict):
    """The whole file; `manifests/placement.yaml` documents each entry."""

    phases: dict[str, Resources]
    options: Options = Options()
    accelerator: Accelerator = Accelerator()
    nodes: Nodes = Nodes()
    queue: str = ""
    notify: bool = False
    webhook_secret: SecretName = ""
    kaggle_secret: SecretName = ""
    storage: Storage = Storage()
    api: str = ""
    ui: str = ""
    prices: Prices = Prices()

    @property
    def notifies(self) -> bool:
        """Whether the pipeline has a task that reports the end of each run."""
        return self.notify or bool(self.webhook_secret)


_overrides: dict[str, Any] = {}


def override_options(given: Mapping[str, str]) -> None:
    """Replace options of the file, for pipelines that are compiled in this process from now on.

    Call it before `pipeline` is imported: options are compiled in.

    Raises:
        UserError: `parameter.unknown` or `parameter.invalid`.

    Example:
        >>> override_options({"gans_per_task": "1"})
    """
    _overrides.update(parse(given, Options))
    placement.cache_clear()


@cache
def placement() -> Placement:
    """Return the content of the file, with the overridden options.

    Raises:
        UserError: `placement.unreadable`, `placement.invalid` or `weights.other_network`.
    """
    path = Path(os.environ.get(FILE_VARIABLE) or DEFAULT)
    try:
        content = Placement.model_validate(load_yaml(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        field, problem = describe_invalid(error)
        where = field or "the file"
        raise UserError(
            f"{path}: {where}: {problem}",
            "correct that entry; manifests/placement.yaml documents each entry",
            "placement.invalid",
            path=str(path),
            entry=where,
        ) from error
    except (OSError, ValueError, yaml.YAMLError) as error:  # a date such as 2026-13-99 is a ValueError
        raise UserError(
            f"{path} cannot be read as YAML ({getattr(error, 'strerror', None) or type(error).__name__})",
            "name another file in PLACEMENT",
            "placement.unreadable",
            path=str(path),
        ) from error
    options = content.options.model_copy(update=_overrides)
    check_network(options.weights, options.classifier)
    return content.model_copy(update={"options": options})


def option_settings() -> dict[str, str | float]:
    """Return the options that change a run's results, by their names."""
    options = placement().options
    return {
        "classifier": options.classifier,
        "gan_architecture": options.gan_architecture,
        "metadata": options.metadata,
        "synthetic_scope": options.synthetic_scope,
        "synthetic_selection": options.synthetic_selection,
        "synthetic_until": options.synthetic_until,
        "synthetic_weight": options.synthetic_weight,
        "synthetic_smoothing": options.synthetic_smoothing,
        "weights": options.weights.rpartition(MARK)[2],
    }


_plan: list[str] = [""]


def set_plan(text: str) -> None:
    """Set the plan that runs of pipelines cite which are compiled in this process from now on; empty for none.

    Call it before `pipeline` is imported: the text is compiled in.
    """
    _plan[0] = text


def plan_text() -> str:
    """Return the text of the plan to cite; empty for none."""
    return _plan[0]


def place(task: "dsl.PipelineTask", phase: str) -> "dsl.PipelineTask":
    """Set a task's nodes, resources, retries, time limit and access to object storage."""
    from kfp import kubernetes  # takes a second; commands that compile nothing skip it

    file = placement()
    resources = file.phases[phase]
    task.set_cpu_request(resources.cpu).set_cpu_limit(resources.cpu)
    task.set_memory_request(resources.memory).set_memory_limit(resources.memory)
    if resources.retries:
        # Argo counts the longest backoff from the first attempt's start, and stops an attempt that runs beyond it.
        longest_s = round((resources.retries + 1) * resources.timeout_h * 3600) + BACKOFF_S * 2**resources.retries
        task.set_retry(resources.retries, f"{BACKOFF_S}s", 2, f"{longest_s}s")
    # Kubeflow sets everything else that Pod Security's `restricted` requires.
    kubernetes.set_security_context(task, run_as_non_root=True)
    kubernetes.set_timeout(task, round(resources.timeout_h * 3600))
    # What a task writes besides its artifacts. The root is read-only in local containers; KFP 2.17 cannot set that.
    kubernetes.empty_dir_mount(
        task,
        volume_name="tmp",
        mount_path="/tmp",  # noqa: S108
        size_limit=resources.scratch,
    )
    _select_nodes(task, file.nodes)
    if resources.accelerator and file.accelerator.type != "none":
        task.set_accelerator_type(file.accelerator.type).set_accelerator_limit(file.accelerator.count)
        _select_nodes(task, file.accelerator)
    if phase in USES_STORAGE:
        for name, value in file.storage.variables.items():
            task.set_env_variable(name, value)
        if file.storage.secret:
            kubernetes.use_secret_as_env(task, file.storage.secret, file.storage.keys)
    if file.queue:
        kubernetes.add_pod_label(task, "kueue.x-k8s.io/queue-name", file.queue)
    return task


def _select_nodes(task: "dsl.PipelineTask", nodes: Nodes) -> None:
    from kfp import kubernetes

    for key, value in nodes.node_selector.items():
        kubernetes.add_node_selector(task, key, value)
    for toleration in nodes.tolerations:
        kubernetes.add_toleration(task, **toleration.model_dump(exclude_none=True))


def rates() -> dict[str, Any]:
    """Return what an hour of each phase's tasks requests and costs.

    Returns:
        `phases`: phase → `cpu`, `memory_gib`, `accelerators`, `price`; `currency`.
    """
    file = placement()
    phases = {}
    tasks = {task: file.phases[phase] for task, phase in PHASE_OF.items()}
    for phase, resources in (file.phases | tasks).items():
        accelerators = file.accelerator.count if resources.accelerator and file.accelerator.type != "none" else 0
        cpu, memory_gib = _amount(resources.cpu), _amount(resources.memory) / 2**30
        price = cpu * file.prices.cpu + memory_gib * file.prices.memory_gib + accelerators * file.prices.accelerator
        phases[phase] = {"cpu": cpu, "memory_gib": memory_gib, "accelerators": accelerators, "price": round(price, 6)}
    return {"phases": phases, "currency": file.prices.currency}


def _amount(quantity: str) -> float:
    """Return a Kubernetes quantity as a number."""
    units = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
    number = quantity.rstrip("mkKMGTi")
    return float(number) * units.get(quantity.removeprefix(number), 1)
