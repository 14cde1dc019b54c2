"""The tasks of a run, read from its Argo Workflow manifest.

Kubeflow's `task_details` lists drivers and retry nodes as tasks, and freezes once Argo compresses the node status. The
manifest, from `GET /apis/v1beta1/runs/ID`, stays complete. This module only parses; hosts and pods use it.
"""

import base64
import binascii
import graphlib
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from components.shared.errors import ERROR_RECORD_PREFIX, UserError, printable
from components.shared.parameters import arm_names
from components.shared.parameters import check as check_parameters
from components.shared.workflow_size import describe_pack, pack_classifiers

MAX_NODES_BYTES = 256_000_000
"""Size limit of the decompressed node status; Argo fails a workflow long before."""
MAX_REASON_LENGTH = 500

PENDING, WAITING, RUNNING, RETRYING = "pending", "waiting", "running", "retrying"
SUCCEEDED, CACHED, SKIPPED, FAILED, CANCELLED = "succeeded", "cached", "skipped", "failed", "cancelled"
CANCELLING = "cancelling"
FINAL_STATES = (SUCCEEDED, FAILED, CANCELLED)
"""The states in which a run has finished."""

# Tasks with a label or annotation of the pod have templates whose names begin with `metadata-`.
_EXECUTOR = re.compile(r"(metadata-[0-9-]+-)?(retry-)?system-container-executor")
_IMPLEMENTATION = re.compile(r"(metadata-[0-9-]+-)?(retry-)?system-container-impl")
_DAG_DRIVER = "system-dag-driver"
_ATTEMPT = re.compile(r"\((\d+)\)")
_ITERATION = re.compile(r".*\((\d+):[^()]*\)(?=\.)")
_CANCELLED_PODS = re.compile(
    r"exit code 143|exceeded its deadline|workflow (deadline|shutdown)|[Tt]erminate|[Ss]topped"
)
_OUT_OF_MEMORY, _OUT_OF_TIME = "out of memory", "time limit exceeded"
_FINAL_REASONS = (_OUT_OF_MEMORY, _OUT_OF_TIME)
"""Failures that neither KFP's retry policy nor the one in `manifests/workflow-controller` repeats."""
_REASONS = (
    ("OOMKilled", _OUT_OF_MEMORY),
    ("DeadlineExceeded", _OUT_OF_TIME),
    ("exceeded its deadline", _OUT_OF_TIME),
    ("longer than the specified deadline", _OUT_OF_TIME),
    ("low on resource", "evicted from its node"),
    ("Evicted", "evicted from its node"),
    ("evicted", "evicted from its node"),
    ("pod deleted", "pod deleted, for example because its node was lost"),
)


@dataclass(frozen=True)
class Task:
    """One container task, with all of its attempts.

    Attributes:
        key: path in the workflow without attempt numbers; unique.
        name: name in the backend, such as `train-classifier-2`.
        label: display name with the task's classes, arms or seeds; unique.
        state: one of this module's constants.
        reason: why it waits or failed; empty otherwise.
        error: the record that the task printed as its error, if Argo has it.
        attempts: how often a pod was requested.
        pods: number of pods that were created; the cluster may refuse one.
        intervals: start and end of each pod; None if it has not finished.
        pod: name of the last pod that was created; empty if there is none.
        log_uri: address of its `executor-logs` artifact; may be empty.
    """

    key: str
    name: str
    label: str
    state: str
    reason: str = ""
    error: UserError | None = None
    attempts: int = 0
    pods: int = 0
    intervals: tuple[tuple[datetime, datetime | None], ...] = ()
    started: datetime | None = None
    pod: str = ""
    log_uri: str = ""

    @property
    def phase(self) -> str:
        """The name of the component function: `train_classifier` for `train-classifier-2`."""
        return re.sub(r"-\d+$", "", self.name).replace("-", "_")

    @property
    def retries(self) -> int:
        """Number of attempts after the first."""
        return max(self.attempts - 1, 0)

    def seconds(self, now: datetime) -> float:
        """Return the time of all pods from creation to end, including their wait for a node."""
        return sum(max(((end or now) - start).total_seconds(), 0.0) for start, end in self.intervals)


@dataclass(frozen=True)
class Workflow:
    """A run.

    Attributes:
        name, namespace: of the Workflow resource.
        state: one of this module's constants.
        handled: state of the part that an exit handler reports on; the run's, if there is no exit handler.
        tasks: in order of start; those that have not started are last.
    """

    name: str
    namespace: str
    state: str
    handled: str
    tasks: tuple[Task, ...]


@dataclass
class _Node:
    """One node of Argo's status."""

    id: str
    name: str
    kind: str
    phase: str
    template: str
    boundary: str
    message: str
    host: str
    started: datetime | None
    finished: datetime | None
    parameters: dict[str, str]
    children: list[str]
    key: str = ""
    attempts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self.key = _ATTEMPT.sub("", self.name)
        self.attempts = tuple(map(int, _ATTEMPT.findall(self.name)))

    @property
    def ended(self) -> bool:
        return self.phase in ("Succeeded", "Failed", "Error", "Skipped", "Omitted")

    @property
    def created(self) -> bool:
        """Whether the pod of this node was created."""
        return self.kind == "Pod" and (self.phase != "Error" or bool(self.host))


@dataclass
class _Manifest:
    """The content of the manifest, by name."""

    workflow: str
    namespace: str
    long_pod_names: bool
    cancelled: bool
    nodes: dict[str, _Node]
    specs: dict[tuple[str, str], dict[str, Any]]
    runtime: dict[str, Any] = field(default_factory=dict)


def parse_run(run: Any) -> Workflow:
    """Return the workflow of a run.

    Args:
        run: the answer to `GET /apis/v1beta1/runs/ID`, as `json.loads` returns it.

    Raises:
        UserError: `workflow.absent`, `workflow.offloaded` or `workflow.unreadable`.
    """
    try:
        text = run["pipeline_runtime"].get("workflow_manifest")
        if not text:
            raise UserError(
                "the run has no Workflow manifest yet", "repeat the command in a few seconds", "workflow.absent"
            )
        return parse_manifest(json.loads(text))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError, OverflowError) as error:
        raise UserError(
            f"the run's Workflow manifest cannot be read ({type(error).__name__})",
            "check that the address is that of a Kubeflow Pipelines API of version 2",
            "workflow.unreadable",
        ) from error


def parse_manifest(manifest: Mapping[str, Any]) -> Workflow:
    """Return the workflow that a manifest describes; raises as `parse_run`, and the usual errors of malformed JSON."""
    content = _read(manifest)
    phase = str(manifest.get("status", {}).get("phase") or "")
    state = _run_state(phase, content.cancelled)
    exits = {node.key.removesuffix(".onExit") for node in content.nodes.values() if node.key.endswith(".onExit")}
    handlers = [node for node in content.nodes.values() if node.key in exits and not node.name.endswith(")")]
    handled = _run_state(_latest(handlers).phase, content.cancelled) if handlers else state
    tasks = _tasks(content, state in FINAL_STATES)
    return Workflow(content.workflow, content.namespace, state, handled, tuple(tasks))


def _run_state(phase: str, cancelled: bool) -> str:
    if phase == "Succeeded":
        return SUCCEEDED
    if phase in ("Failed", "Error"):
        return CANCELLED if cancelled else FAILED
    if phase == "Running":
        return CANCELLING if cancelled else RUNNING
    return PENDING


def _read(manifest: Mapping[str, Any]) -> _Manifest:
    metadata, spec, status = manifest["metadata"], manifest["spec"], manifest.get("status") or {}
    nodes = status.get("nodes") or {}
    if not nodes and status.get("compressedNodes"):
        nodes = json.loads(_decompress(status["compressedNodes"]))
    if not nodes and status.get("offloadNodeStatusVersion"):
        raise UserError(
            "Argo keeps the state of this run's tasks in a database",
            "see the run in the Kubeflow UI",
            "workflow.offloaded",
        )
    specs: dict[tuple[str, str], dict[str, Any]] = {}
    for template in spec.get("templates") or []:
        for task in (template.get("dag") or {}).get("tasks") or []:
            text = _parameters(task.get("arguments")).get("task")
            if text:
                specs[template["name"], task["name"].removesuffix("-driver")] = json.loads(text)
    annotations = metadata.get("annotations") or {}
    content = _Manifest(
        workflow=str(metadata["name"]),
        namespace=str(metadata.get("namespace") or ""),
        long_pod_names=annotations.get("workflows.argoproj.io/pod-name-format", "v2") != "v1",
        cancelled=spec.get("activeDeadlineSeconds") == 0 or spec.get("shutdown") in ("Stop", "Terminate"),
        nodes={str(key): _node(str(key), node) for key, node in nodes.items()},
        specs=specs,
    )
    for node in content.nodes.values():
        if "runtime-config" in node.parameters and node.key.endswith(".root-driver"):
            values = json.loads(node.parameters["runtime-config"] or "{}").get("parameterValues")
            content.runtime = values if isinstance(values, dict) else {}
    return content


def _decompress(text: str) -> bytes:
    decoder = zlib.decompressobj(wbits=31)
    try:
        data = decoder.decompress(base64.b64decode(text), MAX_NODES_BYTES)
    except (binascii.Error, zlib.error) as error:
        raise ValueError("not base64 of gzip") from error
    if decoder.unconsumed_tail or not decoder.eof:
        raise ValueError("too large or truncated")
    return data


def _parameters(holder: Any) -> dict[str, str]:
    entries = (holder or {}).get("parameters") or []
    return {str(entry["name"]): str(entry.get("value") or "") for entry in entries}


def _node(key: str, node: Mapping[str, Any]) -> _Node:
    return _Node(
        id=key,
        name=str(node["name"]),
        kind=str(node.get("type") or ""),
        phase=str(node.get("phase") or ""),
        template=str(node.get("templateName") or ""),
        boundary=str(node.get("boundaryID") or ""),
        message=str(node.get("message") or ""),
        host=str(node.get("hostNodeName") or ""),
        started=_time(node.get("startedAt")),
        finished=_time(node.get("finishedAt")),
        parameters=_parameters(node.get("inputs")),
        children=[str(child) for child in node.get("children") or []],
    )


def _time(text: Any) -> datetime | None:
    if not text:
        return None
    moment = datetime.fromisoformat(str(text))
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _latest(nodes: Iterable[_Node]) -> _Node:
    """Return the node of the last attempt."""
    return max(nodes, key=lambda node: (node.attempts, node.id))


def _tasks(content: _Manifest, finished: bool) -> list[Task]:
    nodes_by_key: dict[str, list[_Node]] = {}
    drivers: dict[str, list[_Node]] = {}
    pods: dict[str, list[_Node]] = {}
    for node in content.nodes.values():
        if node.kind == "Pod" and _IMPLEMENTATION.fullmatch(node.template):
            pods.setdefault(node.key, []).append(node)
        elif _EXECUTOR.fullmatch(node.template):
            nodes_by_key.setdefault(node.key, []).append(node)
        elif node.key.endswith("-driver") and node.kind != "Skipped":
            drivers.setdefault(node.key.removesuffix("-driver"), []).append(node)
    rank = _ranks(content.nodes)
    ordered_tasks: list[tuple[tuple[Any, ...], Task]] = []
    items = _loop_items(content, drivers | nodes_by_key, pods)
    for key in nodes_by_key.keys() | drivers.keys():
        is_container = key in nodes_by_key or any(node.template not in ("", _DAG_DRIVER) for node in drivers[key])
        attempts = sorted(pods.get(f"{key}.executor", []), key=lambda node: (node.attempts, node.id))
        task = _task(content, key, nodes_by_key.get(key, []), drivers.get(key, []), attempts, finished)
        if not is_container:
            if task.state != FAILED:
                continue
            task = replace(task, label=f"{_display_name(content, drivers[key][0], key)} (driver)")
        else:
            node = (nodes_by_key.get(key) or drivers[key])[0]
            task = replace(task, label=_label(_display_name(content, node, key), items.get(key, ())))
        first = min(rank.get(node.id, 0) for node in (*nodes_by_key.get(key, ()), *drivers.get(key, ())))
        order = task.started.timestamp() if task.started else float("inf")
        ordered_tasks.append(((order, first, key), task))
    return list(_unique(task for _, task in sorted(ordered_tasks, key=lambda pair: pair[0])))


def _unique(tasks: Iterable[Task]) -> Iterator[Task]:
    """Yield the tasks; those with a label that exists already get a number."""
    count: dict[str, int] = {}
    for task in tasks:
        count[task.label] = number = count.get(task.label, 0) + 1
        yield task if number == 1 else replace(task, label=f"{task.label} ({number})")


def _ranks(nodes: Mapping[str, _Node]) -> dict[str, int]:
    """Return the length of the longest path to each node, for the order of tasks that have not started."""
    parents: dict[str, list[str]] = {key: [] for key in nodes}
    for key, node in nodes.items():
        for child in node.children:
            if child in parents:
                parents[child].append(key)
    rank: dict[str, int] = {}
    for key in graphlib.TopologicalSorter(parents).static_order():
        rank[key] = max((rank[parent] + 1 for parent in parents[key]), default=0)
    return rank


def _task(
    content: _Manifest, key: str, nodes: list[_Node], drivers: list[_Node], pods: list[_Node], finished: bool
) -> Task:
    """Return the task without its label."""
    wrappers = [node for node in nodes if not node.name.endswith(")")] or nodes
    top = _latest(wrappers) if wrappers else None
    last = pods[-1] if pods else None
    driver_pods = [node for node in drivers if node.kind == "Pod"]
    driver = _latest(driver_pods or drivers) if drivers else None
    current = (
        last if last and (not driver or last.attempts[: len(driver.attempts) - 1] >= driver.attempts[:-1]) else None
    )
    source: _Node | None
    if current:
        source = current
        state = _pod_state(current, top)
    elif top and top.phase == "Succeeded":
        source, state = top, CACHED
    elif driver and driver.phase in ("Failed", "Error"):
        wrapper = _latest([node for node in drivers if node.kind != "Pod"] or drivers)
        source, state = driver, FAILED if wrapper.ended else RETRYING
    elif driver and driver.phase in ("Pending", "Running"):
        source, state = driver, WAITING if driver.phase == "Pending" else PENDING
    elif top and top.phase in ("Failed", "Error"):
        source, state = top, FAILED
    elif top and top.phase == "Running" and driver:
        source, state = top, PENDING
    else:
        source, state = None, SKIPPED if (top and top.ended) or finished else PENDING
    if content.cancelled and state == FAILED and source:
        text = " ".join((source.message, top.message if top else ""))
        state = CANCELLED if _CANCELLED_PODS.search(text) else state
    if finished and state in (PENDING, WAITING, RUNNING, RETRYING):
        state = CANCELLED if content.cancelled else FAILED
    reason, error = ("", None)
    if state in (WAITING, FAILED, RETRYING) and source:
        reason, error = describe_failure(source.message or (top.message if top else ""))
    if state == RETRYING and (error or reason in _FINAL_REASONS):
        state = FAILED  # Argo waits out the backoff, a minute, before it decides not to repeat the task
    created = [node for node in pods if node.created]
    logged = created[-1] if created else None
    if not pods and state == FAILED and driver and driver.created:
        logged = driver
    started = min((node.started for node in pods if node.started), default=None)
    if state == CACHED and source:
        started = source.started
    if driver and driver.started and not started and state not in (SKIPPED, PENDING):
        started = driver.started
    return Task(
        key=key,
        name=key.rpartition(".")[2],
        label="",
        state=state,
        reason=reason,
        error=error,
        attempts=len(pods),
        pods=len(created),
        intervals=tuple((node.started, node.finished) for node in created if node.started),
        started=started,
        pod=_pod_name(content, logged) if logged else "",
        log_uri=_log_uri(logged) if logged else "",
    )


def _pod_state(pod: _Node, top: _Node | None) -> str:
    if pod.phase == "Pending":
        return WAITING
    if pod.phase == "Running":
        return RUNNING
    if pod.phase == "Succeeded":
        return SUCCEEDED
    return RETRYING if top and not top.ended else FAILED


def describe_failure(message: str) -> tuple[str, UserError | None]:
    """Return a short reason from Argo's message about a pod, and the error record in it, if there is one.

    Example:
        >>> describe_failure("main: OOMKilled (exit code 137)")
        ('out of memory', None)
    """
    if ERROR_RECORD_PREFIX in message:
        error = parse_error_record(message)
        if error:
            return error.message[:MAX_REASON_LENGTH], error
    for mark, reason in _REASONS:
        if mark in message:
            return reason, None
    return printable(message)[:MAX_REASON_LENGTH], None


def parse_error_record(line: str) -> UserError | None:
    """Return the error that a line of a log carries; None if it carries none. A truncated record keeps its message."""
    _, mark, text = line.partition(ERROR_RECORD_PREFIX)
    if not mark:
        return None
    try:
        record = json.JSONDecoder().raw_decode(text)[0]
        return UserError(
            str(record["message"]), str(record.get("hint") or ""), str(record.get("code") or "unspecified")
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        match = re.match(r'\{"message": "((?:[^"\\]|\\.)*)"', text)
        return UserError(match[1], "", "unspecified") if match else None


def _spec(content: _Manifest, node: _Node, key: str) -> dict[str, Any]:
    """Return the compiled task behind a node."""
    boundary = content.nodes.get(node.boundary)
    name = key.rpartition(".")[2].removesuffix("-driver")
    spec = content.specs.get((boundary.template, name)) if boundary else None
    if spec is None and (text := node.parameters.get("task")):
        spec = json.loads(text)
    return spec if isinstance(spec, dict) else {}


def _display_name(content: _Manifest, node: _Node, key: str) -> str:
    info = _spec(content, node, key).get("taskInfo") or {}
    return printable(str(info.get("name") or key.rpartition(".")[2]))


def _label(name: str, item: Iterable[str]) -> str:
    shown = "; ".join(part for part in item if part)
    return f"{name} [{shown}]" if shown else name


_DISTINCTIVE = ("classes", "pack", "arms", "arm", "seeds", "seed")
"""Inputs that distinguish the tasks of a loop."""


def _loop_items(
    content: _Manifest, nodes_by_key: Mapping[str, list[_Node]], pods: Mapping[str, list[_Node]]
) -> dict[str, tuple[str, ...]]:
    """Return what distinguishes the tasks of loops: classes, arms and seeds, otherwise the number of the iteration."""
    known: dict[str, dict[str, str]] = {}
    for key, nodes in nodes_by_key.items():
        values: dict[str, Any] = {}
        for name, value in (_spec(content, nodes[0], key).get("inputs") or {}).get("parameters", {}).items():
            if "constant" in (value.get("runtimeValue") or {}):
                values[name] = value["runtimeValue"]["constant"]
        values |= next(iter(map(_arguments, (*pods.get(f"{key}.executor", ()), *nodes))), {})
        known[key] = {name: str(values[name]) for name in _DISTINCTIVE if name in values}
    classes = {_iteration(key)[0]: values["classes"] for key, values in known.items() if "classes" in values}
    items: dict[str, tuple[str, ...]] = {}
    for key, values in known.items():
        prefix, number = _iteration(key)
        if number is None:
            continue
        arms = values.get("arms") or values.get("arm") or ""
        seeds = values.get("seeds") or (values.get("seed", "") if arms else "")
        label = values.get("classes") or (classes.get(prefix, "") if not arms else "")
        pack = values.get("pack") or _cached_pack(content, _spec(content, nodes_by_key[key][0], key), number)
        if pack:
            parts = tuple(_describe(pack))
        else:  # of a run of an earlier version, which had arms and seeds
            parts = (label, arms, f"seed{'s' if ',' in seeds else ''} {seeds.replace('*', '')}" if seeds else "")
            if not (label or seeds):
                parts = (*parts[:2], f"item {number + 1}")
        items[key] = tuple(printable(part) for part in parts)
    return items


def _describe(pack: str) -> Sequence[str]:
    """Return the parts of a label; a pack that cannot be read, as in another version, is shown unchanged."""
    try:
        return describe_pack(pack)
    except ValueError:
        return [pack]


def _iteration(key: str) -> tuple[str, int | None]:
    """Return the path of the iteration that a task belongs to, and its number from 0."""
    match = _ITERATION.match(key)
    return (match[0], int(match[1])) if match else ("", None)


def _arguments(node: _Node) -> dict[str, Any]:
    """Return the arguments of a task that was not taken from the cache."""
    values = _executor_input(node).get("inputs", {}).get("parameterValues")
    return values if isinstance(values, dict) else {}


def _executor_input(node: _Node) -> dict[str, Any]:
    try:
        command = json.loads(node.parameters.get("pod-spec-patch") or "{}")["containers"][0]["command"]
        executor_input = json.loads(command[command.index("--executor_input") + 1])
    except (ValueError, KeyError, IndexError, TypeError):
        return {}
    return executor_input if isinstance(executor_input, dict) else {}


def _log_uri(node: _Node) -> str:
    try:
        logs = _executor_input(node)["outputs"]["artifacts"]["executor-logs"]["artifacts"]
        return str(logs[0]["uri"])
    except (KeyError, IndexError, TypeError):
        return ""


def _cached_pack(content: _Manifest, spec: Mapping[str, Any], number: int) -> str:
    """Return the pack of a cached classifier task, which has no arguments: the loop's items follow from the form."""
    inputs = spec.get("inputs") or {}
    form = content.runtime
    arms, shares, seeds = form.get("arms"), form.get("synthetic_shares"), form.get("classifier_seeds")
    per_task: Any = 0
    for (_, name), other in content.specs.items():
        if name == "check-inputs":
            parameters = (other.get("inputs") or {}).get("parameters") or {}
            per_task = ((parameters.get("classifiers_per_task") or {}).get("runtimeValue") or {}).get("constant")
    if "pack" not in (inputs.get("parameters") or {}) or not isinstance(per_task, int | float) or per_task < 1:
        return ""
    try:
        chosen = {"arms": arms, "synthetic_shares": shares, "classifier_seeds": seeds}
        given = check_parameters(chosen | {name: form[name] for name in ("synthetic",) if name in form})
        packs = pack_classifiers(arm_names(given), given["classifier_seeds"], int(per_task))
        return (packs.synthetic if "synthetic_images" in (inputs.get("artifacts") or {}) else packs.real)[number]
    except (UserError, IndexError):
        return ""


def _pod_name(content: _Manifest, node: _Node) -> str:
    """Return the name of a node's pod, as Argo composes it."""
    if not content.long_pod_names:
        return node.id
    number = node.id.rpartition("-")[2]
    return f"{content.workflow}-{node.template}"[: 253 - len(number) - 1] + f"-{number}"
