"""Tasks of runs, from the Workflow manifests of real runs."""

import base64
import gzip
import json
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest

from components.shared import workflow
from components.shared.errors import ERROR_RECORD_PREFIX, UserError
from components.shared.workflow import Task, Workflow, parse_manifest, parse_run
from tests.helpers import recordings

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def read(name: str) -> Workflow:
    return parse_run(recordings.load(name)[0])


def by_label(run: Workflow) -> dict[str, Task]:
    return {task.label: task for task in run.tasks}


RECORD = ERROR_RECORD_PREFIX + UserError("image_size is 50", "choose 48", "parameter.invalid").to_json()


def manifest_of(*nodes: dict[str, Any], **status: Any) -> dict[str, Any]:
    """Return a manifest with one task `x` whose nodes are these."""
    found = {node["name"]: {"id": f"w-{number}", "templateName": "", **node} for number, node in enumerate(nodes)}
    return {"metadata": {"name": "w"}, "spec": {}, "status": {"phase": "Running", "nodes": found, **status}}


def executor(phase: str) -> dict[str, Any]:
    return {"name": "w(0).x", "type": "Retry", "phase": phase, "templateName": "retry-system-container-executor"}


def pod(phase: str, message: str = "", attempt: int = 0) -> dict[str, Any]:
    template = "retry-system-container-impl"
    times = {"startedAt": f"2026-11-26T10:0{attempt}:00Z"}
    if phase not in ("Pending", "Running"):
        times["finishedAt"] = f"2026-11-26T10:0{attempt}:30Z"
    name = f"w(0).x(0).executor({attempt})"
    return {"name": name, "type": "Pod", "phase": phase, "templateName": template, "message": message, **times}


@pytest.mark.parametrize(
    ("name", "state", "states"),
    [
        ("succeeded-details-frozen", "succeeded", {"succeeded": 16}),
        ("succeeded-all-cached", "succeeded", {"cached": 14, "succeeded": 2}),
        ("started-by-kfp-client", "succeeded", {"cached": 14, "succeeded": 2}),
        ("scheduled-second-tick", "succeeded", {"cached": 14, "succeeded": 2}),
        ("failed-default-output", "failed", {"cached": 14, "failed": 1, "succeeded": 1}),
        ("failed-user-error", "failed", {"failed": 1, "skipped": 4, "succeeded": 1}),
        ("terminated", "cancelled", {"cached": 4, "cancelled": 2, "skipped": 5, "succeeded": 1}),
        ("succeeded-after-retries", "succeeded", {"cached": 4, "succeeded": 12}),
        ("out-of-memory", "failed", {"cached": 7, "failed": 3, "skipped": 2, "succeeded": 1}),
        ("refused-by-pod-security", "failed", {"failed": 1, "skipped": 1}),
        ("twenty-seeds", "failed", {"cached": 27, "failed": 1, "skipped": 1, "succeeded": 41}),
        ("too-wide", "failed", {"cached": 7, "failed": 1, "skipped": 1, "succeeded": 151}),
        ("workflow-deleted-with-its-schedule", "running", {"pending": 1}),
        ("flat-succeeded", "succeeded", {"succeeded": 11}),
        ("packs-succeeded", "succeeded", {"succeeded": 12}),
        ("pod-annotation-succeeded", "succeeded", {"succeeded": 12}),
        ("flat-all-cached", "succeeded", {"cached": 9, "succeeded": 2}),
        ("flat-succeeded-after-retry", "succeeded", {"cached": 6, "succeeded": 6}),
        ("flat-user-error", "failed", {"failed": 1, "skipped": 3}),
        ("flat-terminated", "cancelled", {"cancelled": 1, "skipped": 4, "succeeded": 2}),
    ],
)
def test_parse_run_recording_gives_each_task_once_with_its_state(name: str, state: str, states: dict[str, int]):
    run = read(name)
    assert (run.state, Counter(task.state for task in run.tasks)) == (state, states)
    assert len({task.label for task in run.tasks}) == len({task.key for task in run.tasks}) == len(run.tasks)
    started = [task.started for task in run.tasks if task.started]
    assert started == sorted(started)
    assert all(task.started is None for task in run.tasks[len(started) :])
    assert not any("driver" in task.label or "iteration" in task.label for task in run.tasks)


def test_parse_run_every_recording_is_covered():
    assert len(recordings.NAMES) == 20


def test_parse_run_loop_tasks_carry_their_item():
    tasks = by_label(read("succeeded-details-frozen"))
    assert tasks["Train GAN [df]"].name == "train-gan"
    assert tasks["Generate images [vasc]"].phase == "generate_images"
    assert tasks["Train classifier: augmented [augmented; seed 2]"].phase == "train_classifier"
    assert tasks["Train GAN [df]"].pod == "counterweight-krvfj-retry-system-container-impl-1382389040"
    assert tasks["Train GAN [df]"].log_uri.endswith("/executor-logs")
    assert tasks["Train GAN [df]"].seconds(NOW) == 30


@pytest.mark.parametrize("cached", [False, True])
def test_parse_run_classifiers_have_the_arms_and_seeds_of_their_pack(cached: bool):
    """A cached task has no arguments; its pack follows from the run's parameters."""
    found = recordings.manifest("packs-succeeded")
    for node in found["status"]["nodes"].values():
        parameters = node.get("inputs", {}).get("parameters", [])
        if cached and "train-classifier" in node["name"]:
            parameters[:] = [it for it in parameters if it["name"] != "pod-spec-patch"]
    labels = [task.label for task in parse_manifest(found).tasks if "classifier" in task.label]
    assert labels == [
        "Train classifier [baseline,oversampled,class_weights; seeds 1,2]",
        "Train classifier [balanced_sampling,strong_augmentation,logit_adjustment; seeds 1,2]",
        "Train classifier [augmented@0.5,augmented@1; seeds 1,2]",
    ]


def test_parse_run_loops_in_a_nested_pipeline_carry_their_item():
    labels = [task.label for task in read("flat-succeeded").tasks]
    assert labels == [
        "Check inputs",
        "Prepare data",
        "Train features",
        "Train classifier [baseline,oversampled; seeds 1,2]",
        "Pretrain GAN",
        "Train GAN [df,vasc]",
        "Generate images [df,vasc]",
        "Collect images",
        "Train classifier [augmented; seeds 1,2]",
        "Evaluate",
        "Publish",
    ]


def test_parse_run_error_record_in_the_termination_message_is_the_reason():
    task = by_label(read("flat-user-error"))["Check inputs"]
    assert task.error is not None
    assert (task.error.code, task.reason) == ("storage.empty", "gs://lab/missing: no object is below this prefix")


def test_parse_manifest_loop_task_keeps_its_label_while_its_driver_runs():
    manifest = recordings.manifest_as_of("flat-all-cached", "2026-11-26T11:01:10Z")
    (task,) = (task for task in parse_manifest(manifest).tasks if task.name == "train-gan")
    assert task.label == "Train GAN [item 1]"


def test_parse_run_cached_loop_tasks_are_numbered():
    assert "Train GAN [item 2]" in by_label(read("succeeded-all-cached"))


def test_parse_run_retried_tasks_are_one_task():
    tasks = by_label(read("succeeded-after-retries"))
    assert tasks["Train GAN [df]"].retries == 1
    assert tasks["Train GAN [vasc]"].retries == 0
    assert len(tasks["Train GAN [df]"].intervals) == 2


@pytest.mark.parametrize(
    ("name", "label", "reason"),
    [
        ("out-of-memory", "Train classifier: baseline [baseline; seed 7]", "out of memory"),
        ("failed-user-error", "Prepare data", "main: Error (exit code 1)"),
        ("too-wide", "Evaluate", 'configmaps is forbidden: User "system:serviceaccount:kubeflow:argo" cannot create'),
        ("refused-by-pod-security", "Prepare data", 'pods "flat-run-ltthh-system-container-impl-2342901246" is forbid'),
    ],
)
def test_parse_run_failed_task_has_the_reason(name: str, label: str, reason: str):
    assert by_label(read(name))[label].reason.startswith(reason)


@pytest.mark.parametrize(
    ("name", "label", "retries"), [("too-wide", "Evaluate", 1), ("refused-by-pod-security", "Prepare data", 80)]
)
def test_parse_run_refused_pods_take_no_time(name: str, label: str, retries: int):
    task = by_label(read(name))[label]
    assert (task.retries, task.pods, task.pod, task.seconds(NOW)) == (retries, 0, "", 0)


def test_parse_run_terminated_tasks_are_cancelled_with_their_classes():
    tasks = by_label(read("terminated"))
    assert tasks["Train GAN [df]"].state == tasks["Train GAN [vasc]"].state == "cancelled"
    assert tasks["Generate images [df]"].state == "skipped"


def test_parse_manifest_in_an_exit_handler_reports_the_handled_part():
    """While the notification runs, the workflow runs; what it reports on has finished."""
    run = parse_manifest(recordings.manifest_as_of("failed-user-error", "2026-11-26T04:13:57Z"))
    assert (run.state, run.handled) == ("running", "failed")
    run = parse_manifest(recordings.manifest_as_of("succeeded-after-retries", "2026-11-26T04:27:00Z"))
    assert (run.state, run.handled) == ("running", "succeeded")


@pytest.mark.parametrize(
    ("nodes", "state", "reason"),
    [
        (
            [pod("Pending", "Unschedulable: 0/3 nodes: Insufficient nvidia.com/gpu")],
            "waiting",
            "Unschedulable: 0/3 nod",
        ),
        ([pod("Running")], "running", ""),
        ([pod("Failed", "main: Error (exit code 1)")], "retrying", "main: Error"),
        ([pod("Failed", "main: Error (exit code 1): " + RECORD)], "failed", "image_size is 50"),
        ([pod("Failed", "OOMKilled"), pod("Running", attempt=1)], "running", ""),
        ([pod("Error", "The node was low on resource: memory.")], "retrying", "evicted from its node"),
        (
            [pod("Failed", "Pod was active on the node longer than the specified deadline")],
            "failed",
            "time limit exc",
        ),
    ],
)
def test_parse_manifest_task_that_has_not_finished(nodes: list[dict[str, Any]], state: str, reason: str):
    (task,) = parse_manifest(manifest_of(executor("Running"), *nodes)).tasks
    assert (task.state, task.retries) == (state, len(nodes) - 1)
    assert task.reason.startswith(reason)
    assert bool(task.reason) == bool(reason)


def test_parse_manifest_error_record_in_the_message_becomes_the_error():
    record = UserError("image_size is 50", "choose 48", "parameter.invalid").to_json()
    message = f"main: Error (exit code 2): {ERROR_RECORD_PREFIX}{record}"
    (task,) = parse_manifest(manifest_of(executor("Failed"), pod("Failed", message))).tasks
    assert task.error is not None
    assert (task.reason, task.error.hint, task.error.code) == ("image_size is 50", "choose 48", "parameter.invalid")


def test_parse_error_record_truncated_keeps_the_message():
    line = f"{ERROR_RECORD_PREFIX}{UserError('image_size is 50', 'choose 48', 'a.b').to_json()}"
    error = workflow.parse_error_record(line[:60])
    assert error is not None
    assert error.message == "image_size is 50"
    assert workflow.parse_error_record("epoch 1") is None
    assert workflow.parse_error_record(line[:30]) is None


def test_parse_run_cached_classifiers_have_the_seeds_of_the_form():
    """A cached task has no arguments; its seeds follow from the run's parameters."""
    inputs = {"parameters": {"pack": {"componentInputParameter": "item"}}, "artifacts": {"synthetic_images": {}}}
    train = {"taskInfo": {"name": "Train classifier"}, "inputs": inputs}
    check = {"inputs": {"parameters": {"classifiers_per_task": constant(2)}}}
    values = {"classifier_seeds": [4, 5, 6], "arms": "all", "synthetic_shares": [0.5]}
    form = json.dumps({"parameterValues": values})
    path = "w(0).root(0).for-loop-1(0).iteration-iterations(1:1)(0).iteration-item(0)"
    task = executor("Succeeded") | {"name": f"{path}.train-classifier", "boundaryID": "dag"}
    driver = {"name": "w(0).root-driver", "inputs": {"parameters": [{"name": "runtime-config", "value": form}]}}
    found = manifest_of(task, driver, {"name": path, "templateName": "loop"})
    found["status"]["nodes"]["dag"] = found["status"]["nodes"].pop(path)
    found["spec"]["templates"] = [template("loop", "train-classifier", train), template("root", "check-inputs", check)]
    assert [task.label for task in parse_manifest(found).tasks] == ["Train classifier [augmented@0.5; seed 6]"]


def constant(value: Any) -> dict[str, Any]:
    return {"runtimeValue": {"constant": value}}


def template(name: str, task: str, spec: dict[str, Any]) -> dict[str, Any]:
    arguments = {"parameters": [{"name": "task", "value": json.dumps(spec)}]}
    return {"name": name, "dag": {"tasks": [{"name": f"{task}-driver", "arguments": arguments}]}}


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ({}, "workflow.unreadable"),
        ([], "workflow.unreadable"),
        ({"pipeline_runtime": {}}, "workflow.absent"),
        ({"pipeline_runtime": None}, "workflow.unreadable"),
        ({"pipeline_runtime": {"workflow_manifest": "[" * 200_000}}, "workflow.unreadable"),
        ({"pipeline_runtime": {"workflow_manifest": '{"metadata": {}}'}}, "workflow.unreadable"),
    ],
)
def test_parse_run_malformed_answer_is_a_user_error(answer: Any, code: str):
    with pytest.raises(UserError) as caught:
        parse_run(answer)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ({"compressedNodes": "no base64"}, "workflow.unreadable"),
        ({"compressedNodes": base64.b64encode(gzip.compress(b"{}")[:-9]).decode()}, "workflow.unreadable"),
        ({"compressedNodes": base64.b64encode(gzip.compress(b" " * 20_000)).decode()}, "workflow.unreadable"),
        ({"offloadNodeStatusVersion": "fnv:1"}, "workflow.offloaded"),
        ({"nodes": {"a": {"name": "a", "startedAt": "yesterday"}}}, "workflow.unreadable"),
    ],
)
def test_parse_run_malformed_status_is_a_user_error(monkeypatch: pytest.MonkeyPatch, status: Any, code: str):
    monkeypatch.setattr(workflow, "MAX_NODES_BYTES", 10_000)
    text = json.dumps({"metadata": {"name": "w"}, "spec": {}, "status": status})
    with pytest.raises(UserError) as caught:
        parse_run({"pipeline_runtime": {"workflow_manifest": text}})
    assert caught.value.code == code
