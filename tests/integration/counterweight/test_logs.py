"""Looking at a run, following it, and ending it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from counterweight import client, logs, terminate
from tests.helpers.kfp_server import KfpServer
from tests.integration.counterweight.conftest import Command

ROOT = Path(__file__).resolve().parents[3]
SPEC = {
    "pipelineInfo": {"name": "counterweight"},
    "root": {
        "dag": {
            "tasks": {
                "prepare-data": {"taskInfo": {"name": "Prepare data"}, "componentRef": {"name": "comp-a"}},
                "for-loop-1": {"taskInfo": {"name": "rare-classes"}, "componentRef": {"name": "comp-loop"}},
            }
        },
        "inputDefinitions": {"parameters": {}},
    },
    "components": {
        "comp-a": {"executorLabel": "exec-a"},
        "comp-loop": {
            "dag": {"tasks": {"train-gan": {"taskInfo": {"name": "Train GAN"}, "componentRef": {"name": "comp-a"}}}}
        },
    },
}


@pytest.fixture
def run_id(kfp: KfpServer) -> str:
    """A run that failed in one class."""
    version = {"pipeline_id": "p", "pipeline_version_id": "v", "display_name": "v", "created_at": kfp.now()}
    kfp.tables["pipeline_versions"].append({**version, "pipeline_spec": SPEC})
    run = {"run_id": "run-1", "display_name": "counterweight-demo", "state": "PENDING", "asked": 0}
    run["pipeline_version_reference"] = {"pipeline_id": "p", "pipeline_version_id": "v"}
    kfp.tables["runs"].append(run)
    tasks = {"counterweight-x7k2p": "FAILED", "root": "FAILED", "for-loop-1": "FAILED"}
    tasks |= {
        "prepare-data-driver": "SUCCEEDED",
        "prepare-data": "SUCCEEDED",
        "train-gan": "FAILED",
        "executor": "FAILED",
    }
    kfp.life = [("FAILED", tasks)]
    return "run-1"


def test_a_run_is_told_by_its_tasks(kfp: KfpServer, do: Command, run_id: str):
    kfp.errors["train-gan"] = "out of memory"
    kfp.logs["pod-of-train-gan"] = "epoch 1\n" * 500 + "Killed\x1b[31m\n"
    code, out, _ = do(logs, f"RUN={run_id}")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "counterweight-demo (run-1): failed: a task failed"
    assert [line.split("Z  ")[1] for line in lines[1:3]] == [
        "Prepare data  succeeded after 2 min 05 s",
        "Train GAN     failed after 2 min 05 s: out of memory",
    ]
    assert lines[4] == "Train GAN: the end of its log"
    assert lines[-1] == r"Killed\x1b[31m"
    assert lines.count("epoch 1") == logs.LOG_LINES - 1


def test_where_the_api_has_no_log_it_says_where_it_is(
    kfp: KfpServer, do: Command, run_id: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("KFP_NAMESPACE", "team")
    out = do(logs, f"RUN={run_id}")[1]
    assert "kubectl logs -n team -l pipeline/runid=run-1 -c main" in out
    assert "error_message" not in out


def test_the_log_of_a_task_by_name(kfp: KfpServer, do: Command, run_id: str):
    kfp.logs["pod-of-prepare-data"] = "1,000 images\n"
    for name in ("Prepare data", "prepare-data"):
        code, out, _ = do(logs, f"RUN={run_id}", f"TASK={name}")
        assert (code, "1,000 images" in out, "Train GAN: the" in out) == (0, True, False)
    code, _, err = do(logs, f"RUN={run_id}", "TASK=evaluate")
    assert (code, "choose one of Prepare data, Train GAN" in err) == (2, True)


def test_a_pipeline_that_is_gone_leaves_the_backends_names(kfp: KfpServer, do: Command, run_id: str):
    kfp.tables["pipeline_versions"].clear()
    out = do(logs, f"RUN={run_id}")[1]
    assert "  prepare-data " in out
    assert "driver" not in out
    assert "executor" not in out


def test_following_ends_with_the_runs_code(kfp: KfpServer, do: Command, run_id: str):
    tasks = kfp.life[0][1]
    kfp.life = [("RUNNING", {"prepare-data": "RUNNING"}), ("FAILED", tasks)]
    code, out, _ = do(logs, f"RUN={run_id}", "WAIT=1")
    assert code == 1
    assert out.index("Prepare data: running") < out.index("run: failed") < out.index("Train GAN: the API has no log")


def test_an_api_that_goes_away_says_that_the_run_goes_on(
    kfp: KfpServer, do: Command, run_id: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(client, "PATIENCE_S", 0.3)
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
    assert "can't be reached" in err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "RUN is not given"),
        (["RUN=nowhere"], "there is no run nowhere at http://127.0.0.1"),
        (["RUN=../pipelines"], "RUN is '../pipelines'; give a run's id"),
        (["RUN=.."], "RUN is '..'; give a run's id"),
        (["RUN=x", "NAME=y"], "NAME is not known here; choose from RUN"),
    ],
)
@pytest.mark.parametrize("module", [logs, terminate])
def test_a_run_that_is_not_there(kfp: KfpServer, do: Command, module: object, words: list[str], sentence: str):
    code, _, err = do(module, *words)
    assert (code, sentence in err) == (2, True), err


def test_a_run_is_ended(kfp: KfpServer, do: Command, run_id: str):
    kfp.life = [("RUNNING", {})]
    code, out, _ = do(terminate, f"RUN={run_id}")
    assert (code, kfp.count("POST .*/runs/run-1:terminate")) == (0, 1)
    assert out == "run-1 was told to end: canceled\n"
    code, out, _ = do(terminate, f"RUN={run_id}")
    assert (code, kfp.count("POST .*/runs/run-1:terminate")) == (0, 1)
    assert "had ended before: canceled" in out


def test_a_lost_answer_to_the_end_is_an_end(kfp: KfpServer, do: Command, run_id: str):
    kfp.life = [("RUNNING", {})]
    kfp.fault("POST .*:terminate", "lose")
    code, out, _ = do(terminate, f"RUN={run_id}")
    assert (code, kfp.count("POST .*:terminate")) == (0, 2)
    assert "canceled" in out


def test_a_run_that_may_not_be_ended(kfp: KfpServer, do: Command, run_id: str):
    kfp.life = [("RUNNING", {})]
    kfp.fault("POST .*:terminate", "status", status=403)
    assert do(terminate, f"RUN={run_id}")[0] == 5


def test_the_commands_themselves_end_with_the_codes(kfp: KfpServer, run_id: str):
    def started(module: str, *words: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", f"counterweight.{module}", *words],
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
        out, err = command.communicate(timeout=60)
        assert command.returncode == code, out + err
        assert "Traceback" not in err
