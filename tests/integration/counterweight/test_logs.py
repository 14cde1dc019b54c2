"""Commands about one run, against recorded runs."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from components.shared import workflow
from components.shared.errors import ERROR_RECORD_PREFIX, UserError
from counterweight import client, logs, prune, terminate
from counterweight.schedule import PIPELINE
from tests.helpers import recordings
from tests.helpers.kfp_server import KfpServer
from tests.integration.counterweight.conftest import Command

ROOT = Path(__file__).resolve().parents[3]
POD = "counterweight-ftv8h-retry-system-container-impl-1649534573"
"""The pod of the only task that failed in `failed-user-error`."""


@pytest.fixture
def run_id(kfp: KfpServer) -> str:
    """A run whose data folder does not exist."""
    return kfp.record("failed-user-error")


def test_logs_of_a_large_run_lists_each_task_once(kfp: KfpServer, do: Command):
    """The backend's own list of tasks was frozen a third before the end of this run."""
    code, out, _ = do(logs, f"RUN={kfp.record('succeeded-details-frozen')}")
    lines = out.splitlines()
    assert (code, len(lines)) == (0, 17)
    assert lines[0].endswith(": succeeded")
    assert lines[1].startswith("  2026-11-26 03:59:25Z  Prepare data")
    assert " ".join(lines[1].split()[2:]) == "Prepare data succeeded after 9 s"
    assert "how it ended" in lines[-1].split("Z  ")[1]
    assert sum("Train classifier" in line for line in lines) == 6


def test_logs_of_a_cancelled_run_reports_it_as_cancelled(kfp: KfpServer, do: Command):
    run_id = kfp.record("terminated")
    code, out, _ = do(logs, f"RUN={run_id}", "WAIT=1")
    assert code == 3
    assert "run: cancelled" in out
    assert "Train GAN [df]: cancelled after 21 s" in out
    assert "Evaluate: skipped" in out


def test_logs_of_a_failed_task_shows_the_error_of_its_log(kfp: KfpServer, do: Command, run_id: str):
    error = UserError("the folder x does not exist", "name another folder", "data.missing")
    text = f"{'epoch 1' + chr(10)}" * 500 + f"Killed\x1b[31m\n{ERROR_RECORD_PREFIX}{error.to_json()}\n{error.lines()}\n"
    kfp.logs[POD] = text
    code, out, _ = do(logs, f"RUN={run_id}")
    assert code == 0
    lines = out.splitlines()
    assert lines[8] == "Prepare data: the last lines of its log"
    assert lines[-3:] == [r"Killed\x1b[31m", *error.lines().splitlines()]
    assert lines.count("epoch 1") == logs.LOG_LINES - 4
    assert ERROR_RECORD_PREFIX not in out


def test_logs_of_the_ui_at_the_same_address_are_read(kfp: KfpServer, do: Command, run_id: str):
    kfp.ui_logs["kubeflow", POD] = "from the UI"
    assert do(logs, f"RUN={run_id}")[1].endswith("its log\nfrom the UI\n")


@pytest.mark.parametrize(("name", "task"), [("refused-by-pod-security", "Prepare data"), ("too-wide", "Evaluate")])
def test_logs_of_a_pod_that_was_not_created_names_no_command(kfp: KfpServer, do: Command, name: str, task: str):
    out = do(logs, f"RUN={kfp.record(name)}")[1]
    assert f"{task}: no pod was created" in out
    assert "kubectl" not in out


def test_logs_without_the_pod_reads_the_artifact(kfp: KfpServer, do: Command, run_id: str):
    found = kfp.tables["runs"][0]["manifest"]
    uri = next(task.log_uri for task in workflow.parse_manifest(found[-1]).tasks if task.state == "failed")
    kfp.artifacts[uri.removeprefix("minio://mlpipeline/")] = "from the store"
    assert do(logs, f"RUN={run_id}")[1].endswith("its log\nfrom the store\n")


def test_logs_without_any_log_prints_one_kubectl_command(kfp: KfpServer, do: Command, run_id: str):
    out = do(logs, f"RUN={run_id}")[1]
    assert out.splitlines()[-1] == f"  kubectl logs -n kubeflow {POD} -c main"
    assert out.count("kubectl") == 1
    assert "error_message" not in out


def test_logs_of_a_login_page_is_no_log(kfp: KfpServer, do: Command, run_id: str):
    kfp.fault("GET /artifacts/get", "html")
    assert "kubectl logs" in do(logs, f"RUN={run_id}")[1]


def test_logs_of_one_task_by_label_or_name(kfp: KfpServer, do: Command):
    run_id = kfp.record("succeeded-details-frozen")
    for name in ("Train GAN [df]", "Train GAN", "train-gan"):
        code, out, _ = do(logs, f"RUN={run_id}", f"TASK={name}")
        assert (code, out.count("kubectl logs")) == (0, 1 if "[" in name else 2)
    with pytest.raises(UserError) as caught:
        logs.run([f"RUN={run_id}", "TASK=evaluation"], sys.stdout)
    assert caught.value.code == "run.unknown_task"
    assert "Evaluate" in caught.value.fields["choices"]


def test_logs_wait_prints_each_change_until_the_run_finishes(kfp: KfpServer, do: Command):
    moments = ("2026-11-26T03:59:30Z", "2026-11-26T04:01:20Z", "2026-11-26T04:03:50Z")
    run_id = kfp.record("succeeded-details-frozen", *moments)
    code, out, _ = do(logs, f"RUN={run_id}", "WAIT=1")
    followed = [line.partition("Z ")[2] for line in out.splitlines() if line[2] == ":"]
    assert code == 0
    assert followed[:2] == ["run: running", "Prepare data: running for " + followed[1].partition("for ")[2]]
    finished = [line.rpartition(": ")[0] for line in followed if ": succeeded" in line]
    assert len(finished) == len(set(finished)) == 17
    assert followed[-1] == "run: succeeded"


def test_logs_wait_prints_a_retry_whose_wait_no_request_saw(kfp: KfpServer, do: Command):
    run_id = kfp.record("flat-succeeded-after-retry", "2026-11-26T11:08:15Z", "2026-11-26T11:09:00Z")
    code, out, _ = do(logs, f"RUN={run_id}", "WAIT=1")
    label = "Train classifier [baseline,oversampled; seeds 1,2]: "
    lines = [line.partition(label)[2] for line in out.splitlines() if label in line]
    assert code == 0
    assert [(line.split()[0], "(1 retry)" in line) for line in lines] == [
        ("running", False),
        ("running", True),
        ("succeeded", True),
    ]


def test_logs_wait_shows_why_a_task_waits(kfp: KfpServer, do: Command, run_id: str):
    manifest = kfp.manifest({"train-gan": "PENDING"}, "RUNNING")
    manifest["status"]["nodes"]["w-01"]["message"] = "Unschedulable: Insufficient nvidia.com/gpu"
    kfp.tables["runs"][0]["manifest"].insert(0, manifest)
    kfp.life.insert(0, ("RUNNING", {}))
    out = do(logs, f"RUN={run_id}", "WAIT=1")[1]
    assert "train-gan: waiting: Unschedulable: Insufficient nvidia.com/gpu" in out


def test_logs_wait_without_the_manifest_still_follows_the_run(kfp: KfpServer, do: Command, run_id: str):
    kfp.life.insert(0, ("RUNNING", {}))
    kfp.fault("GET /apis/v1beta1/runs", "status", status=403, times=2)
    code, out, _ = do(logs, f"RUN={run_id}", "WAIT=1")
    assert (code, out.count("warning: the tasks of the run are unknown")) == (1, 1)


def test_logs_wait_api_becomes_unreachable_reports_that_the_run_continues(
    kfp: KfpServer, do: Command, run_id: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(client, "CALL_LIMIT_S", 0.3)
    kfp.life = [("RUNNING", {})]
    original = KfpServer.handle

    def once(self: KfpServer, method: str, target: str, body: object) -> object:
        if self.count("GET /apis/v2beta1/runs/") > 1:
            self.fault(".*", "drop", times=999)
        return original(self, method, target, body)

    monkeypatch.setattr(KfpServer, "handle", once)
    code, out, err = do(logs, f"RUN={run_id}", "WAIT=1")
    assert code == 5
    assert f"make logs RUN={run_id} WAIT=1" in out
    assert "is unreachable" in err


def test_logs_without_the_manifest_prints_the_state_and_one_kubectl_command(
    kfp: KfpServer, do: Command, run_id: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("KFP_NAMESPACE", "team")
    kfp.fault("GET /apis/v1beta1/runs", "status", status=404)
    code, out, _ = do(logs, f"RUN={run_id}")
    assert (code, out.splitlines()[0].partition("): ")[2].partition(":")[0]) == (0, "failed")
    command = f"  kubectl logs -n team -l pipeline/runid={run_id} -c main --prefix --tail=-1"
    assert out.splitlines()[-1] == command


def test_logs_names_of_a_manifest_are_quoted_in_the_command(kfp: KfpServer, do: Command, run_id: str):
    kfp.tables["runs"][0]["manifest"][-1]["metadata"]["name"] = "x; touch y"
    assert "kubectl logs -n kubeflow 'x; touch y-retry" in do(logs, f"RUN={run_id}")[1]


EXIT_CODES = {"succeeded": 0, "failed": 1, "cancelled": 3, "cancelling": 4}


@pytest.mark.parametrize("name", recordings.NAMES)
def test_commands_replay_of_each_recording(kfp: KfpServer, do: Command, name: str):
    """Each task is printed once with its final state; the exit code is that of the run."""
    run_id = kfp.record(name)
    found = workflow.parse_run(recordings.load(name)[0])
    state = "cancelling" if name == "workflow-deleted-with-its-schedule" else found.state
    code, followed, err = do(logs, f"RUN={run_id}", "WAIT=1", "TIMEOUT=1")
    assert code == EXIT_CODES[state], err
    assert f" run: {state}" in followed
    code, shown, err = do(logs, f"RUN={run_id}")
    assert code == 0, err
    listed = shown.partition("\n\n")[0].splitlines()
    assert len(listed) == 1 + len(found.tasks)
    for task in found.tasks:
        line = next(line for line in listed[1:] if f"Z  {task.label} " in line or f"--  {task.label} " in line)
        assert f" {task.state}" in line
        if state in workflow.FINAL_STATES:
            assert followed.count(f"Z {task.label}: ") == 1
    assert shown.count("kubectl logs") == sum(task.state == "failed" and bool(task.pod) for task in found.tasks)
    code, out, err = do(terminate, f"RUN={run_id}")
    assert (code, "had finished" in out) == (0, state != "cancelling"), err
    kfp.tables["pipelines"].append({"pipeline_id": "p", "display_name": PIPELINE, "name": PIPELINE})
    kfp.tables["runs"][0]["pipeline_version_reference"] = {"pipeline_id": "p", "pipeline_version_id": "v"}
    assert f"  {state} " in do(prune)[1]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([], "run.missing"),
        (["RUN=nowhere"], "run.unknown"),
        (["RUN=../pipelines"], "run.invalid_id"),
        (["RUN=.."], "run.invalid_id"),
    ],
)
@pytest.mark.parametrize("module", [logs, terminate])
def test_commands_run_that_does_not_exist_is_a_user_error(kfp: KfpServer, module: Any, words: list[str], code: str):
    with pytest.raises(UserError) as caught:
        module.run(words, sys.stdout)
    assert (caught.value.code, caught.value.exit_code) == (code, 2)


def test_terminate_running_run_is_cancelled(kfp: KfpServer, do: Command, run_id: str):
    kfp.life = [("RUNNING", {})]
    kfp.histories.clear()
    code, out, _ = do(terminate, f"RUN={run_id}")
    assert (code, kfp.count("POST .*:terminate")) == (0, 1)
    assert out == f"{run_id} is being cancelled: cancelled\n"
    code, out, _ = do(terminate, f"RUN={run_id}")
    assert (code, kfp.count("POST .*:terminate")) == (0, 1)
    assert out == f"{run_id} had finished: cancelled\n"


def test_terminate_lost_answer_is_a_success(kfp: KfpServer, do: Command, run_id: str):
    kfp.life = [("RUNNING", {})]
    kfp.histories.clear()
    kfp.fault("POST .*:terminate", "lose")
    code, out, _ = do(terminate, f"RUN={run_id}")
    assert (code, kfp.count("POST .*:terminate")) == (0, 2)
    assert "cancelled" in out


def test_terminate_without_permission_exits_5(kfp: KfpServer, do: Command, run_id: str):
    kfp.life = [("RUNNING", {})]
    kfp.fault("POST .*:terminate", "status", status=403)
    assert do(terminate, f"RUN={run_id}")[0] == 5


def test_commands_as_processes_exit_with_the_codes(kfp: KfpServer, run_id: str):
    def started(name: str, *words: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "counterweight", name, *words],
            cwd=ROOT,
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    commands = {
        1: started("logs", f"RUN={run_id}", "WAIT=1"),
        2: started("terminate"),
        5: started("logs", f"RUN={run_id}", KFP_HOST=kfp.url.replace("http:", "https:")),
    }
    for code, command in commands.items():
        out, err = command.communicate(timeout=240)
        assert command.returncode == code, out + err
        assert "Traceback" not in err
