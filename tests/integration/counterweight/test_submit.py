"""Submitting to an API over a socket."""

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

from components import placement
from components.shared.errors import ERROR_RECORD_PREFIX, UserError
from counterweight import client, logs, submit
from tests.helpers import kfp_server
from tests.helpers.errors import raises_user_error
from tests.helpers.kfp_server import KfpServer
from tests.integration.counterweight.conftest import Command

ROOT = Path(__file__).resolve().parents[3]
OUT = "OUT=gs://bucket/results"


@pytest.fixture(autouse=True)
def compiled_once(package: submit.Package, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "compile_package", lambda local_images: package)


def test_submit_first_run_creates_pipeline_version_and_experiment(kfp: KfpServer, do: Command, package: submit.Package):
    code, out, _ = do(submit, OUT, "DATA=gs://bucket/ham10000/", "PRESET=cpu", "random_seed=7", "gan_kimg=3")
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
    assert (values["random_seed"], values["gan_kimg"], values["data_image_size"]) == (7, 3.0, 64)
    assert set(values) == set(package.defaults)
    assert re.fullmatch(r"ham10000-cpu-\d{6}-\d{4}", run["display_name"])
    assert out.splitlines()[-1] == f"{kfp.url}/#/runs/details/{run['run_id']}"


def test_submit_second_run_reuses_pipeline_version_and_experiment(kfp: KfpServer, do: Command):
    assert do(submit, OUT)[0] == 0
    code, out, _ = do(submit, "random_seed=2")
    assert code == 0
    assert ": exists" in out
    assert [len(kfp.tables[name]) for name in ("pipelines", "pipeline_versions", "experiments", "runs")] == [1, 1, 1, 2]
    assert kfp.count(r"POST .*/upload") == 1


def test_submit_experiment_and_service_account_are_options(kfp: KfpServer, do: Command):
    assert do(submit, OUT, "EXPERIMENT=nightly builds", "KFP_SERVICE_ACCOUNT=runner")[0] == 0
    assert kfp.tables["experiments"][0]["display_name"] == "nightly builds"
    assert kfp.tables["runs"][0]["service_account"] == "runner"


def test_submit_same_revision_with_another_package_is_another_version(
    kfp: KfpServer, do: Command, package: submit.Package, monkeypatch: pytest.MonkeyPatch
):
    do(submit, OUT)
    other = submit.Package(package.name, package.version, package.content + b"# other images\n", package.defaults)
    monkeypatch.setattr(submit, "compile_package", lambda local_images: other)
    for _ in range(2):
        assert do(submit, OUT)[0] == 0
    names = [version["name"] for version in kfp.tables["pipeline_versions"]]
    assert names == [package.version, f"{package.version}-{other.digest[:8]}"]
    assert (
        kfp.tables["runs"][2]["pipeline_version_reference"]["pipeline_version_id"]
        == (kfp.tables["pipeline_versions"][1]["pipeline_version_id"])
    )


def test_submit_pipeline_on_a_later_page_is_reused(kfp: KfpServer, do: Command, monkeypatch: pytest.MonkeyPatch):
    do(submit, OUT)
    other = {"display_name": "other", "name": "other", "pipeline_id": "x", "created_at": kfp.now()}
    kfp.tables["pipelines"][:0] = [{**other, "pipeline_id": f"other-{n}"} for n in range(250)]
    monkeypatch.setattr(kfp_server, "matches", lambda *_: True)
    assert do(submit, OUT)[0] == 0
    assert kfp.count(r"GET /apis/v2beta1/pipelines\?.*page_token") == 2
    assert len(kfp.tables["pipeline_versions"]) == 1


def test_submit_multi_user_installation_requires_a_namespace(
    kfp: KfpServer, do: Command, monkeypatch: pytest.MonkeyPatch
):
    kfp.multi_user = True
    with pytest.raises(UserError) as caught:
        submit.run([OUT], sys.stdout)
    assert caught.value.code == "api.no_namespace"
    monkeypatch.setenv("KFP_NAMESPACE", "team")
    assert do(submit, OUT)[0] == 0
    assert do(submit, OUT)[0] == 0
    assert [row["namespace"] for name in ("pipelines", "experiments") for row in kfp.tables[name]] == ["team", "team"]


@pytest.mark.parametrize(("life", "code"), [("SUCCEEDED", 0), ("FAILED", 1), ("SKIPPED", 1), ("CANCELED", 3)])
def test_submit_wait_prints_each_task_and_exits_with_the_state_of_the_run(
    kfp: KfpServer, do: Command, life: str, code: int
):
    kfp.errors["train-gan"] = "no GPU\x1b[2J left\nat all"
    end = "FAILED" if life == "FAILED" else "SUCCEEDED"
    kfp.life = [
        ("PENDING", {}),
        ("RUNNING", {"prepare-data": "RUNNING"}),
        ("RUNNING", {"prepare-data": "SUCCEEDED", "train-gan": "RUNNING"}),
        (life, {"prepare-data": "SUCCEEDED", "train-gan": end, "train-gan#1": "SUCCEEDED"}),
    ]
    got, out, _ = do(submit, OUT, "WAIT=1")
    assert got == code
    shown = [line.split(" ", 1)[1] for line in out.splitlines() if re.match(r"\d\d:\d\d:\d\dZ ", line)]
    assert [line.partition(" for ")[0] for line in shown[:3]] == [
        "run: pending",
        "run: running",
        "prepare-data: running",
    ]
    assert "prepare-data: succeeded after 2 min 00 s" in shown
    assert "train-gan [item 2]: succeeded after 2 min 00 s" in shown
    assert sum(line.startswith("train-gan: running") for line in shown) == 1
    error = r": no GPU\x1b[2J left\nat all" if life == "FAILED" else ""
    assert f"train-gan: {end.lower()} after 2 min 00 s{error}" in shown
    assert shown[-1].startswith("run: " + {0: "succeeded", 1: "failed", 3: "cancelled"}[code])
    assert ("make logs RUN=" in out) == (code == 1)


def test_submit_wait_failed_task_has_the_hint_of_its_error(kfp: KfpServer, do: Command):
    error = UserError("data is gs://b, which is empty", "name another folder", "input.missing")
    kfp.errors["check-inputs"] = f"main: Error (exit code 1): {ERROR_RECORD_PREFIX}{error.to_json()}"
    kfp.life = [("FAILED", {"check-inputs": "FAILED"})]
    out = do(submit, OUT, "WAIT=1")[1]
    assert "check-inputs: failed after 2 min 00 s: data is gs://b, which is empty\n" in out
    assert "Z hint: name another folder\n" in out
    run_id = kfp.tables["runs"][0]["run_id"]
    assert f"\ncheck-inputs: its error\n{error.lines()}\n" in do(logs, f"RUN={run_id}")[1]


def test_submit_timeout_prints_how_to_cancel_the_run(kfp: KfpServer, do: Command):
    kfp.life = [("RUNNING", {})]
    start = time.monotonic()
    code, out, _ = do(submit, OUT, "WAIT=1", "TIMEOUT=1s")
    assert code == 4
    assert time.monotonic() - start < 60
    run_id = kfp.tables["runs"][0]["run_id"]
    assert f"make terminate RUN={run_id}" in out
    assert kfp.count("POST .*:terminate") == 0


@pytest.mark.parametrize("kind", ["drop", "lose", "half"])
@pytest.mark.parametrize("path", ["runs", "experiments", "pipelines", "pipelines/upload_version"])
def test_submit_lost_answer_creates_nothing_twice(kfp: KfpServer, do: Command, kind: str, path: str):
    kfp.fault(f"POST /apis/v2beta1/{path}(\\?|$)", kind)
    code, _, err = do(submit, OUT)
    assert code == 0, err
    assert [len(kfp.tables[name]) for name in ("pipelines", "pipeline_versions", "experiments", "runs")] == [1, 1, 1, 1]
    assert kfp.count(f"POST /apis/v2beta1/{path}(\\?|$)") == (2 if kind == "drop" else 1)


@pytest.mark.parametrize("fault", [429, 500, 503, 504, "drop", "half"])
def test_submit_failed_reads_are_repeated(kfp: KfpServer, do: Command, fault: int | str):
    kind = {"kind": "status", "status": fault} if isinstance(fault, int) else {"kind": fault}
    for path in ("healthz", "pipelines", "experiments", "pipelines/[^/]*/versions", "runs/.*"):
        kfp.fault(f"GET /apis/v2beta1/{path}(\\?|$)", times=2, **kind)
    code, _, err = do(submit, OUT, "WAIT=1")
    assert code == 0, err
    assert not any(fault.times for fault in kfp.faults)
    assert len(kfp.tables["runs"]) == 1


def test_submit_late_start_is_not_repeated(kfp: KfpServer, do: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(client, "ATTEMPT_S", 0.3)
    kfp.fault("POST /apis/v2beta1/runs", "late", seconds=0.8)
    code, _, err = do(submit, OUT)
    assert code == 0, err
    assert kfp.count("POST /apis/v2beta1/runs") == 1
    assert len(kfp.tables["runs"]) == 1


def test_submit_proxy_timeout_starts_no_second_run(kfp: KfpServer, do: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(client, "CALL_LIMIT_S", 0.5)
    kfp.fault("POST /apis/v2beta1/runs", "status", status=504)
    code, _, err = do(submit, OUT)
    assert (code, "it is unknown whether" in err) == (5, True)
    assert kfp.count("POST /apis/v2beta1/runs") == 1


def test_submit_unknown_start_names_the_run_to_check(kfp: KfpServer, do: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(client, "ATTEMPT_S", 0.3)
    monkeypatch.setattr(client, "CALL_LIMIT_S", 1.0)
    kfp.fault("POST /apis/v2beta1/runs", "late", seconds=5)
    code, _, err = do(submit, OUT)
    assert code == 5
    assert re.search(r"check whether a run demo-demo-\S+ exists", err)
    assert kfp.count("POST /apis/v2beta1/runs") == 1


def test_submit_run_of_the_same_name_is_another_run(kfp: KfpServer, do: Command):
    do(submit, OUT)
    kfp.fault("POST /apis/v2beta1/runs", "drop")
    assert do(submit, OUT)[0] == 0
    assert len({run["run_id"] for run in kfp.tables["runs"]}) == 2


def test_submit_experiment_created_meanwhile_is_used(kfp: KfpServer, do: Command, monkeypatch: pytest.MonkeyPatch):
    theirs = {"experiment_id": "theirs", "display_name": "counterweight", "created_at": kfp.now()}
    create = kfp_server.ROUTES["POST /apis/v2beta1/experiments"]

    def just_before(api: KfpServer, query: object, body: object) -> object:
        api.tables["experiments"].append(theirs)
        return create(api, query, body)

    monkeypatch.setitem(kfp_server.ROUTES, "POST /apis/v2beta1/experiments", just_before)
    assert do(submit, OUT)[0] == 0
    assert kfp.tables["runs"][0]["experiment_id"] == "theirs"


def test_submit_api_without_create_pipeline_uses_the_upload(kfp: KfpServer, do: Command, package: submit.Package):
    kfp.fault("POST /apis/v2beta1/pipelines$", "status", status=501)
    assert do(submit, OUT)[0] == 0
    assert kfp.tables["pipeline_versions"][-1]["name"] == package.version
    assert (
        kfp.tables["runs"][0]["pipeline_version_reference"]["pipeline_version_id"]
        == (kfp.tables["pipeline_versions"][-1]["pipeline_version_id"])
    )


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["OUT=runs/x"], "parameter.unreachable"),
        (["OUT=gs://"], "parameter.invalid"),
        (["DATA=~/ham10000"], "parameter.unreachable"),
        (["DATA=gs://bucket/ham.zip"], "parameter.invalid"),
        (["EXTERNAL=gs://bucket/ham.tar.gz"], "parameter.invalid"),
        (["EXTERNAL=/data"], "parameter.unreachable"),
        (["EXTERNAL=none", "data_external=none"], "arguments.repeated"),
        (["data_columns=image"], "parameter.invalid"),
        (["data_split=9/5"], "parameter.invalid"),
        (["synthetic_classes=[df,vasc]"], "parameter.invalid"),
        (["data_external=/data"], "parameter.unreachable"),
        (["data_split=folds.csv"], "parameter.unreachable"),
        (["data_split=/home/me/folds.tsv"], "parameter.unreachable"),
        (["data_split=randm"], "parameter.unreachable"),
        (["data=demo", "DATA=demo"], "arguments.repeated"),
        (["sede=1"], "parameter.unknown"),
        (["gan_kimg=lots"], "parameter.invalid"),
        (["gan_kimg=0"], "parameter.invalid"),
        (["data_image_size=50"], "parameter.invalid"),
        (["classifier_seeds=1,1"], "parameter.invalid"),
        (
            [
                f"classifier_seeds={','.join(map(str, range(20)))}",
                "arms=baseline,oversampled,class_weights,balanced_sampling",
            ],
            "workflow.too_many_classifiers",
        ),
        (["synthetic_scope=all", "synthetic_shares=1"], "arms.no_real_images"),
        (["arms=baseline,class_weights", "synthetic=gs://bucket/prefix"], "arms.unused_source"),
        (["DATA=kaggle"], "kaggle.no_credentials"),
        (["PRESET=gpu"], "preset.unknown"),
        (["PARAMS=nowhere.yaml"], "yaml.unreadable"),
        (["WAIT=yes"], "arguments.invalid_switch"),
        (["LOCAL_IMAGES=yes"], "arguments.invalid_switch"),
        (["WAIT=1", "TIMEOUT=soon"], "arguments.invalid_timeout"),
        (["seed"], "arguments.not_an_assignment"),
    ],
)
def test_submit_invalid_input_is_reported_before_anything_is_sent(kfp: KfpServer, words: list[str], code: str):
    with pytest.raises(UserError) as caught:
        submit.run(words, sys.stdout)
    assert (caught.value.code, bool(caught.value.hint), kfp.asked) == (code, True, [])


def test_submit_without_pushed_images_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    monkeypatch.setattr(submit.build_images, "DIGESTS", tmp_path / "digests.json")
    with pytest.raises(UserError) as caught:
        submit.compile_package()
    assert caught.value.code == "images.not_pushed"


@pytest.mark.parametrize(
    "image", ["counterweight/publish:0123456789abcdef", f"docker@sha256:{'0' * 64}", "host/path/publish:1"]
)
def test_check_images_without_registry_or_digest_is_refused(package: submit.Package, image: str):
    """Such a name would resolve to a public registry, where others may own it."""
    with pytest.raises(UserError) as caught:
        submit.check_images(package.content)
    assert caught.value.code == "images.not_pinned"
    pinned = re.sub(rb"image: counterweight/(\S+):\S+", rb"image: host:5000/\1@sha256:" + b"0" * 64, package.content)
    submit.check_images(pinned)
    with pytest.raises(UserError) as caught:
        submit.check_images(pinned.replace(b"image: host:5000/publish@sha256:" + b"0" * 64, f"image: {image}".encode()))
    assert caught.value.fields["image"] == image


def test_submit_archived_experiment_is_refused(kfp: KfpServer):
    submit.run([OUT], sys.stdout)
    kfp.tables["experiments"][0]["storage_state"] = "ARCHIVED"
    with pytest.raises(UserError) as caught:
        submit.run([OUT], sys.stdout)
    assert caught.value.code == "experiment.archived"
    assert len(kfp.tables["runs"]) == 1


def test_submit_without_output_publishes_below_the_run(kfp: KfpServer, do: Command):
    assert do(submit)[0] == 0
    assert kfp.tables["runs"][0]["runtime_config"]["parameters"]["output"] == "auto"


def test_arguments_precedence_is_preset_file_words(tmp_path: Path):
    file = tmp_path / "params.yaml"
    file.write_text("random_seed: 5\ngan_kimg: 2\nclassifier_seeds: [1, 2, 3]\noutput: gs://bucket/a\n")
    values = submit.arguments({"PRESET": "cpu", "PARAMS": str(file), "random_seed": "6"})
    assert (values["random_seed"], values["gan_kimg"], values["data_image_size"]) == (6, 2.0, 64)
    assert (values["classifier_seeds"], values["output"]) == ([1, 2, 3], "gs://bucket/a")


def test_arguments_of_a_file_may_be_text_or_a_single_number(tmp_path: Path):
    """YAML reads `1,2,3` and `1e3` as text, and `1` as a number, although it may be a class."""
    file = tmp_path / "params.yaml"
    file.write_text(
        "classifier_seeds: 1,2,3\nsynthetic_shares: 0.5\ngan_kimg: 1e3\npositive_classes: 1\nsynthetic_classes: 0,2\n"
    )
    values = submit.arguments({"PARAMS": str(file), "output": "gs://bucket/a"})
    assert (values["classifier_seeds"], values["synthetic_shares"], values["gan_kimg"]) == ([1, 2, 3], [0.5], 1000.0)
    assert (values["positive_classes"], values["synthetic_classes"]) == ("1", "0,2")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("random_seed: [a", "yaml.invalid"),
        ("gan_kimg: much", "parameter.invalid"),
        ("random_seed: 2026-13-99", "yaml.invalid"),
        ("- random_seed", "yaml.not_a_mapping"),
        ("", "yaml.not_a_mapping"),
        ("random_seed: yes", "parameter.invalid"),
        ("random_seed:", "parameter.invalid"),
        ("random_seed: {a: 1}", "parameter.invalid"),
        ("random_seed: 1.5", "parameter.invalid"),
        ("random_seed: 2026-01-01", "parameter.invalid"),
        ("1: 2", "parameter.unknown"),
        ("data_external: /data", "parameter.unreachable"),
        ("data_split: folds.csv", "parameter.unreachable"),
    ],
)
def test_arguments_invalid_file_is_a_user_error(tmp_path: Path, content: str, code: str):
    file = tmp_path / "params.yaml"
    file.write_text(content)
    with pytest.raises(UserError) as caught:
        submit.arguments({"PARAMS": str(file), "output": "gs://bucket/x"})
    assert caught.value.code == code


def test_revision_with_changed_files_contains_the_hash(tmp_path: Path):
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
    [("demo", "demo"), ("gs://b/Ham 1000/", "ham-1000"), ("gs://b", "b"), ("gs://b/" + "x" * 99, "x" * 11)],
)
def test_run_name_begins_with_the_data_and_fits_the_list(data: str, stem: str):
    name = submit.run_name(data, "full", datetime(2026, 2, 3, 4, 5, tzinfo=UTC))
    assert name == f"{stem}-full-260203-0405"
    assert len(name) <= submit.MAX_RUN_NAME


def test_submit_ctrl_c_prints_how_to_cancel_and_leaves_the_run(kfp: KfpServer):
    kfp.life = [("RUNNING", {"prepare-data": "RUNNING"})]
    command = subprocess.Popen(
        [sys.executable, "-m", "counterweight", "submit", "LOCAL_IMAGES=1", "WAIT=1"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # If the tests run in the background, the shell has set SIGINT to be ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert command.stdout
    for line in command.stdout:
        if "run: running" in line:
            break
    command.send_signal(signal.SIGINT)
    out, err = command.communicate(timeout=240)
    assert command.returncode == 130
    assert f"make terminate RUN={kfp.tables['runs'][0]['run_id']}" in out
    assert "Traceback" not in err
    assert kfp.tables["runs"][0]["state"] == "RUNNING"


@pytest.mark.parametrize(
    ("champion", "output", "code"),
    [
        ("last", "gs://bucket/x", ""),
        ("gs://bucket/x/run-1", "auto", ""),
        ("last", "auto", "champion.no_output"),
        ("runs/first", "auto", "parameter.unreachable"),
    ],
)
def test_check_values_refuses_a_champion_that_no_run_on_a_cluster_can_have(champion: str, output: str, code: str):
    placement.override_options({"champion": champion})
    if code:
        with raises_user_error(code):
            submit.check_values({"output": output})
    else:
        submit.check_values({"output": output})
