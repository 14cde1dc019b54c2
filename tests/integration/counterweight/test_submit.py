"""Submitting against an API over a socket."""

import os
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from components.shared.errors import UserError
from counterweight import client, submit
from tests.helpers import kfp_server
from tests.helpers.kfp_server import KfpServer
from tests.integration.counterweight.conftest import Command

ROOT = Path(__file__).resolve().parents[3]
OUT = "OUT=gs://bucket/results"
DEFAULTS = {
    "data": "demo",
    "data_version": "1",
    "output": "runs/output",
    "seed": 1,
    "seeds": [1],
    "gan_kimg": 8.0,
    "shared_kimg": 24.0,
    "image_size": 128,
    "rare_classes": "auto",
    "synthetic_per_class": 500,
    "classifier_epochs": 50,
    "classifier_patience": 10,
    "augmentation": "none",
    "split": "random",
    "external": "none",
}


@pytest.fixture(scope="module")
def package() -> submit.Package:
    return submit.compiled()


@pytest.fixture(autouse=True)
def compiled_once(package: submit.Package, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "compiled", lambda: package)


def test_the_first_run_makes_everything_that_it_needs(kfp: KfpServer, do: Command, package: submit.Package):
    code, out, _ = do(submit, OUT, "DATA=gs://bucket/ham10000/", "PRESET=cpu", "seed=7", "gan_kimg=3")
    assert code == 0
    (pipeline,) = kfp.tables["pipelines"]
    (version,) = kfp.tables["pipeline_versions"]
    (experiment,) = kfp.tables["experiments"]
    (run,) = kfp.tables["runs"]
    assert (pipeline["display_name"], experiment["display_name"]) == ("counterweight", "counterweight")
    assert version["display_name"] == version["name"] == package.version
    pipeline_spec, platform_spec = yaml.safe_load_all(package.content)
    assert version["pipeline_spec"] == {"pipeline_spec": pipeline_spec, "platform_spec": platform_spec}
    assert run["pipeline_version_reference"] == {
        "pipeline_id": pipeline["pipeline_id"],
        "pipeline_version_id": version["pipeline_version_id"],
    }
    assert run["experiment_id"] == experiment["experiment_id"]
    values = run["runtime_config"]["parameters"]
    assert values["data"] == "gs://bucket/ham10000/"
    assert values["output"] == "gs://bucket/results"
    assert (values["seed"], values["gan_kimg"], values["image_size"]) == (7, 3.0, 64)
    assert set(values) == set(package.defaults)
    assert re.fullmatch(rf"counterweight-ham10000-{re.escape(package.version)}-\d{{8}}-\d{{4}}", run["display_name"])
    assert out.splitlines()[-1] == f"{kfp.url}/#/runs/details/{run['run_id']}"


def test_the_second_run_uses_what_is_there(kfp: KfpServer, do: Command):
    assert do(submit, OUT)[0] == 0
    code, out, _ = do(submit, OUT, "seed=2")
    assert code == 0
    assert "there already" in out
    assert [len(kfp.tables[name]) for name in ("pipelines", "pipeline_versions", "experiments", "runs")] == [1, 1, 1, 2]
    assert kfp.count(r"POST .*/upload") == 1


def test_the_experiment_and_the_service_account_are_a_choice(kfp: KfpServer, do: Command):
    assert do(submit, OUT, "EXPERIMENT=nightly builds", "KFP_SERVICE_ACCOUNT=runner")[0] == 0
    assert kfp.tables["experiments"][0]["display_name"] == "nightly builds"
    assert kfp.tables["runs"][0]["service_account"] == "runner"


def test_the_same_revision_with_another_package_is_another_version(
    kfp: KfpServer, do: Command, package: submit.Package, monkeypatch: pytest.MonkeyPatch
):
    do(submit, OUT)
    other = submit.Package(package.name, package.version, package.content + b"# other images\n", package.defaults)
    monkeypatch.setattr(submit, "compiled", lambda: other)
    for _ in range(2):
        assert do(submit, OUT)[0] == 0
    names = [version["name"] for version in kfp.tables["pipeline_versions"]]
    assert names == [package.version, f"{package.version}-{other.digest[:8]}"]
    assert (
        kfp.tables["runs"][2]["pipeline_version_reference"]["pipeline_version_id"]
        == (kfp.tables["pipeline_versions"][1]["pipeline_version_id"])
    )


def test_a_pipeline_among_hundreds_is_found_though_the_filter_were_not_heard(
    kfp: KfpServer, do: Command, monkeypatch: pytest.MonkeyPatch
):
    do(submit, OUT)
    named = {"display_name": "other", "name": "other", "pipeline_id": "x", "created_at": kfp.now()}
    kfp.tables["pipelines"][:0] = [{**named, "pipeline_id": f"other-{n}"} for n in range(250)]
    monkeypatch.setattr(kfp_server, "matches", lambda *_: True)
    assert do(submit, OUT)[0] == 0
    assert kfp.count(r"GET /apis/v2beta1/pipelines\?.*page_token") == 2
    assert len(kfp.tables["pipeline_versions"]) == 1


def test_users_that_are_kept_apart_need_a_namespace(kfp: KfpServer, do: Command, monkeypatch: pytest.MonkeyPatch):
    kfp.multi_user = True
    code, _, err = do(submit, OUT)
    assert (code, "set KFP_NAMESPACE" in err) == (2, True)
    monkeypatch.setenv("KFP_NAMESPACE", "team")
    assert do(submit, OUT)[0] == 0
    assert do(submit, OUT)[0] == 0
    assert [row["namespace"] for name in ("pipelines", "experiments") for row in kfp.tables[name]] == ["team", "team"]


@pytest.mark.parametrize(
    ("life", "code"),
    [("SUCCEEDED", 0), ("FAILED", 1), ("SKIPPED", 1), ("CANCELED", 3)],
)
def test_waiting_ends_with_the_runs_own_code(kfp: KfpServer, do: Command, life: str, code: int):
    kfp.errors["train-gan"] = "no GPU\x1b[2J left\nat all"
    end = "FAILED" if life == "FAILED" else "SUCCEEDED"
    kfp.life = [
        ("PENDING", {}),
        ("RUNNING", {"prepare-data-driver": "SUCCEEDED", "prepare-data": "RUNNING"}),
        ("RUNNING", {"prepare-data": "SUCCEEDED", "for-loop-1": "RUNNING", "train-gan": "RUNNING"}),
        (life, {"prepare-data": "SUCCEEDED", "executor": end, "train-gan": end, "train-gan#2": "RUNNING"}),
    ]
    got, out, _ = do(submit, OUT, "WAIT=1")
    assert got == code
    said = [line.split(" ", 1)[1] for line in out.splitlines() if re.match(r"\d\d:\d\d:\d\dZ ", line)]
    assert said[:3] == ["run: pending", "run: running", "Prepare data: running"]
    assert "Prepare data: succeeded after 2 min 05 s" in said
    assert "Train GAN (2): running" in said
    assert said.count("Train GAN: running") == 1
    error = r": no GPU\x1b[2J left\nat all" if life == "FAILED" else ""
    assert f"Train GAN: {end.lower()} after 2 min 05 s{error}" in said
    assert not any("driver" in line or "executor" in line or "loop" in line for line in said)
    assert said[-1].startswith(f"run: {life.lower()}")


def test_a_timeout_leaves_the_run_alone_and_says_how_to_end_it(kfp: KfpServer, do: Command):
    kfp.life = [("RUNNING", {})]
    begun = time.monotonic()
    code, out, _ = do(submit, OUT, "WAIT=1", "TIMEOUT=1s")
    assert code == 4
    assert time.monotonic() - begun < 5
    run_id = kfp.tables["runs"][0]["run_id"]
    assert f"make terminate RUN={run_id}" in out
    assert kfp.count("POST .*:terminate") == 0


@pytest.mark.parametrize("kind", ["drop", "lose", "half"])
@pytest.mark.parametrize("path", ["runs", "experiments", "pipelines", "pipelines/upload_version"])
def test_a_lost_answer_makes_nothing_twice(kfp: KfpServer, do: Command, kind: str, path: str):
    kfp.fault(f"POST /apis/v2beta1/{path}(\\?|$)", kind)
    code, _, err = do(submit, OUT)
    assert code == 0, err
    assert [len(kfp.tables[name]) for name in ("pipelines", "pipeline_versions", "experiments", "runs")] == [1, 1, 1, 1]
    assert kfp.count(f"POST /apis/v2beta1/{path}(\\?|$)") == (2 if kind == "drop" else 1)


@pytest.mark.parametrize("fault", [429, 500, 503, 504, "drop", "half"])
def test_what_only_reads_is_tried_again(kfp: KfpServer, do: Command, fault: int | str):
    kind = {"kind": "status", "status": fault} if isinstance(fault, int) else {"kind": fault}
    for path in ("healthz", "pipelines", "experiments", "pipelines/[^/]*/versions", "runs/.*"):
        kfp.fault(f"GET /apis/v2beta1/{path}(\\?|$)", times=2, **kind)
    code, _, err = do(submit, OUT, "WAIT=1")
    assert code == 0, err
    assert not any(fault.times for fault in kfp.faults)
    assert len(kfp.tables["runs"]) == 1


def test_a_run_whose_start_is_late_is_not_started_again(kfp: KfpServer, do: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(client, "ATTEMPT_S", 0.3)
    kfp.fault("POST /apis/v2beta1/runs", "late", seconds=0.8)
    code, _, err = do(submit, OUT)
    assert code == 0, err
    assert kfp.count("POST /apis/v2beta1/runs") == 1
    assert len(kfp.tables["runs"]) == 1


def test_a_proxy_that_does_not_wait_for_the_server_starts_no_second_run(
    kfp: KfpServer, do: Command, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(client, "PATIENCE_S", 0.5)
    kfp.fault("POST /apis/v2beta1/runs", "status", status=504)
    code, _, err = do(submit, OUT)
    assert (code, "is not known" in err) == (5, True)
    assert kfp.count("POST /apis/v2beta1/runs") == 1


def test_a_run_whose_start_is_not_known_is_said_to_be(kfp: KfpServer, do: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(client, "ATTEMPT_S", 0.3)
    monkeypatch.setattr(client, "PATIENCE_S", 1.0)
    kfp.fault("POST /apis/v2beta1/runs", "late", seconds=5)
    code, _, err = do(submit, OUT)
    assert code == 5
    assert re.search(
        r"whether it did .* is not known. .* look whether a run named counterweight-demo-\S+ was started", err
    )
    assert kfp.count("POST /apis/v2beta1/runs") == 1


def test_another_run_of_the_same_name_is_not_taken_for_ours(kfp: KfpServer, do: Command):
    do(submit, OUT)
    kfp.fault("POST /apis/v2beta1/runs", "drop")
    assert do(submit, OUT)[0] == 0
    assert len({run["run_id"] for run in kfp.tables["runs"]}) == 2


def test_somebody_faster_is_no_error(kfp: KfpServer, do: Command, monkeypatch: pytest.MonkeyPatch):
    theirs = {"experiment_id": "theirs", "display_name": "counterweight", "created_at": kfp.now()}
    create = kfp_server.ROUTES["POST /apis/v2beta1/experiments"]

    def just_before(api: KfpServer, query: object, body: object) -> object:
        api.tables["experiments"].append(theirs)
        return create(api, query, body)

    monkeypatch.setitem(kfp_server.ROUTES, "POST /apis/v2beta1/experiments", just_before)
    assert do(submit, OUT)[0] == 0
    assert kfp.tables["runs"][0]["experiment_id"] == "theirs"


def test_an_api_that_only_takes_uploads_gets_the_version_too(kfp: KfpServer, do: Command, package: submit.Package):
    kfp.fault("POST /apis/v2beta1/pipelines$", "status", status=501)
    assert do(submit, OUT)[0] == 0
    assert kfp.tables["pipeline_versions"][-1]["name"] == package.version
    assert (
        kfp.tables["runs"][0]["pipeline_version_reference"]["pipeline_version_id"]
        == (kfp.tables["pipeline_versions"][-1]["pipeline_version_id"])
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "OUT is not given, and a cluster can't write to a folder here"),
        (["OUT=runs/x"], "output is 'runs/x', which a cluster can't reach; choose from gs://bucket/prefix."),
        (["OUT=gs://"], "output is 'gs://', which a cluster can't reach"),
        (
            [OUT, "DATA=~/ham10000"],
            "data is '~/ham10000', which a cluster can't reach; choose from demo, kaggle, gs://",
        ),
        ([OUT, "data=demo", "DATA=demo"], "DATA and data are the same"),
        ([OUT, "sede=1"], "sede is not a parameter"),
        ([OUT, "gan_kimg=lots"], "gan_kimg is 'lots'; give a number."),
        ([OUT, "checkpoints=/here"], "checkpoints is '/here', which a cluster can't reach; choose from auto, none"),
        ([OUT, "PRESET=gpu"], "PRESET is 'gpu'; choose one of"),
        ([OUT, "PARAMS=nowhere.yaml"], "PARAMS is nowhere.yaml, which can't be read"),
        ([OUT, "WAIT=yes"], "WAIT is 'yes'; give 1 or 0."),
        ([OUT, "WAIT=1", "TIMEOUT=soon"], "TIMEOUT is 'soon'; give whole seconds"),
        ([OUT, "seed"], "'seed' is not an assignment"),
    ],
)
def test_a_mistake_comes_out_before_anything_is_sent(kfp: KfpServer, do: Command, words: list[str], sentence: str):
    code, _, err = do(submit, *words)
    assert code == 2
    assert sentence in err
    assert err.count("error: ") == 1
    assert kfp.asked == []


def test_parameters_come_from_the_preset_then_the_file_then_the_words(tmp_path: Path):
    file = tmp_path / "params.yaml"
    file.write_text("seed: 5\ngan_kimg: 2\nseeds: [1, 2, 3]\noutput: gs://bucket/a\ndata_version: 2\n")
    values = submit.arguments({"PRESET": "cpu", "PARAMS": str(file), "seed": "6"}, DEFAULTS)
    assert (values["seed"], values["gan_kimg"], values["image_size"]) == (6, 2.0, 64)
    assert (values["seeds"], values["data_version"], values["output"]) == ([1, 2, 3], "2", "gs://bucket/a")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("seed: [a", "is not YAML in line"),
        ("- seed", "holds no names with values"),
        ("", "holds no names with values"),
        ("seed: yes", "seed is True; give text, a number or a list"),
        ("seed:", "seed is None; give text"),
        ("seed: {a: 1}", "give text, a number"),
        ("seed: 1.5", "seed is '1.5'; give a whole number"),
        ("seed: 2026-01-01", "give text, a number"),
        ("1: 2", "1 is not a parameter"),
        ("external: /data", "external is '/data', which a cluster can't reach"),
        ("split: folds.csv", "split is 'folds.csv', which a cluster can't reach"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_sentence(tmp_path: Path, content: str, sentence: str):
    file = tmp_path / "params.yaml"
    file.write_text(content)
    with pytest.raises(UserError, match=re.escape(sentence)):
        submit.arguments({"PARAMS": str(file), "OUT": "gs://bucket/x"}, DEFAULTS)


def test_a_version_tells_apart_what_git_does_not_know(tmp_path: Path):
    def git(*words: str) -> str:
        names = {f"GIT_{who}_{what}": "x@x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        command = ["git", "-C", str(tmp_path), *words]
        return subprocess.run(command, env=os.environ | names, capture_output=True, text=True, check=True).stdout

    assert submit.revision(tmp_path, "d" * 64) == "no-git-dddddddd"
    git("init", "-q")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-qm", "a")
    commit = git("rev-parse", "--short", "HEAD").strip()
    assert submit.revision(tmp_path, "d" * 64) == commit
    (tmp_path / "b").write_text("new")
    assert submit.revision(tmp_path, "d" * 64) == f"{commit}-dirty-dddddddd"


@pytest.mark.parametrize(
    ("data", "stem"),
    [("demo", "demo"), ("gs://b/Ham 10000/", "ham-10000"), ("gs://b", "b"), ("gs://b/" + "x" * 99, "x" * 24)],
)
def test_a_runs_name_says_what_it_is(data: str, stem: str):
    now = datetime(2026, 2, 3, 4, 5, tzinfo=UTC)
    assert submit.run_name("counterweight", data, "abc1234", now) == f"counterweight-{stem}-abc1234-20260203-0405"


def test_ctrl_c_says_how_to_end_the_run_and_does_not(kfp: KfpServer):
    kfp.life = [("RUNNING", {"prepare-data": "RUNNING"})]
    command = subprocess.Popen(
        [sys.executable, "-m", "counterweight.submit", OUT, "WAIT=1"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests themselves run in the background, a shell has told them to ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert command.stdout
    for line in command.stdout:
        if "run: running" in line:
            break
    command.send_signal(signal.SIGINT)
    out, err = command.communicate(timeout=60)
    assert command.returncode == 130
    assert f"make terminate RUN={kfp.tables['runs'][0]['run_id']}" in out
    assert "Traceback" not in err
    assert kfp.tables["runs"][0]["state"] == "RUNNING"
