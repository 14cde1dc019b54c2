"""The summary of a job of GitHub Actions, from recorded runs of a real Kubeflow Pipelines."""

import io
from pathlib import Path

import pytest

from components.placement import plan_text, set_plan
from components.shared import workflow
from counterweight import job_summary, plan, submit
from counterweight.client import Api
from tests.helpers import recordings
from tests.helpers.kfp_server import KfpServer
from tests.integration.counterweight.conftest import Command

COMPARISON = "## No evidence: the recall was the same.\n\n| a | b |\n|:--|--:|\n| df | 0.5 |\n"


@pytest.fixture(autouse=True)
def compiled_once(package: submit.Package, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "compile_package", lambda local_images: package)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A summary to which an earlier step has written."""
    (tmp_path / "summary.md").write_text("before\n")
    return tmp_path / "summary.md"


def append(kfp: KfpServer, path: Path | str, name: str, output: str = "auto") -> str:
    """Append the summary of a recorded run, and return what is printed."""
    run_id, out = kfp.record(name), io.StringIO()
    job_summary.append(str(path), Api({"KFP_HOST": kfp.url}), run_id, "a-run", f"{kfp.url}/#/x", output, out)
    return out.getvalue()


def place_beside_log(kfp: KfpServer, name: str, phase: str, file: str, text: str) -> None:
    """Add a file to the artifacts of a recorded task."""
    task = next(task for task in workflow.parse_run(recordings.load(name)[0]).tasks if task.phase == phase)
    folder = task.log_uri.removeprefix("minio://mlpipeline/").rpartition("/")[0]
    kfp.artifacts[f"{folder}/{file}"] = text


@pytest.mark.parametrize(
    ("recording", "phase", "file"),
    [
        ("flat-succeeded", "publish", "published/comparison.md"),
        ("flat-succeeded", "evaluate", "results/comparison.md"),
        ("flat-all-cached", "publish", "published/comparison.md"),
    ],
)
def test_summary_of_a_finished_run_has_its_comparison(
    kfp: KfpServer, path: Path, recording: str, phase: str, file: str
):
    place_beside_log(kfp, recording, phase, file, COMPARISON)
    assert append(kfp, path, recording) == ""
    text = path.read_text()
    assert text.startswith(f"before\n## Counterweight: a-run succeeded\n\n[a-run](<{kfp.url}/#/x>)\n\n## No evidence")
    assert "| df | 0.5 |" in text


@pytest.mark.parametrize(
    "answer", ["<!doctype html><p>log in", "Failed to get object", "# other", "## x" + "y" * 600_000]
)
def test_summary_without_a_readable_comparison_lists_the_tasks(kfp: KfpServer, path: Path, answer: str):
    place_beside_log(kfp, "flat-succeeded", "publish", "published/comparison.md", answer)
    append(kfp, path, "flat-succeeded")
    text = path.read_text()
    assert "The comparison cannot be read from here" in text
    assert "| Publish | succeeded after " in text
    assert answer not in text


def test_summary_of_a_failed_run_has_each_task_and_its_error(kfp: KfpServer, path: Path):
    append(kfp, path, "flat-user-error")
    text = path.read_text()
    assert "## Counterweight: a-run failed" in text
    assert "| Check inputs | failed after " in text


def test_summary_escapes_what_the_run_printed(kfp: KfpServer, path: Path):
    place_beside_log(kfp, "flat-succeeded", "publish", "published/comparison.md", f"{COMPARISON}\x1b[31m")
    append(kfp, path, "flat-succeeded")
    assert "\x1b" not in path.read_text()
    assert job_summary._literal("<script> [x](http://y) |") == r"&lt;script&gt; \[x\](http:\//y) \|"


def test_summary_that_cannot_be_written_is_a_warning(kfp: KfpServer, tmp_path: Path):
    assert append(kfp, tmp_path, "flat-succeeded").startswith("warning: GITHUB_STEP_SUMMARY cannot be written (")


def test_submit_wait_appends_the_summary_only_on_github(
    kfp: KfpServer, do: Command, path: Path, monkeypatch: pytest.MonkeyPatch
):
    kfp.errors["train-gan"] = "no GPU"
    kfp.life = [("FAILED", {"prepare-data": "SUCCEEDED", "train-gan": "FAILED"})]
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))
    assert do(submit, "OUT=gs://bucket/results")[0] == 0
    assert path.read_text() == "before\n"
    assert do(submit, "OUT=gs://bucket/results", "WAIT=1")[0] == 1
    text = path.read_text()
    assert "| train-gan | failed after 2 min 00 s: no GPU |" in text
    assert kfp.tables["runs"][1]["run_id"] in text
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "")
    assert do(submit, "OUT=gs://bucket/results", "WAIT=1")[0] == 1
    assert path.read_text() == text


def test_submit_mlflow_experiment_is_passed_to_the_plugin(kfp: KfpServer, do: Command):
    assert do(submit, "MLFLOW_EXPERIMENT=skin lesions")[0] == 0
    assert do(submit)[0] == 0
    first, second = (row.get("plugins_input") for row in kfp.tables["runs"])
    assert first == {"mlflow": {"experiment_name": "skin lesions"}}
    assert second is None


def test_submit_plan_is_announced_and_an_invalid_one_refused(kfp: KfpServer, do: Command, tmp_path: Path):
    assert plan.run(["DATA=demo", f"OUT={tmp_path / 'plan.json'}"], io.StringIO()) == 0
    try:
        code, out, _ = do(submit, f"PLAN={tmp_path / 'plan.json'}", "random_seed=2")
        assert plan_text() == (tmp_path / "plan.json").read_text()
    finally:
        set_plan("")
    assert code == 0
    assert "warning: deviates from the plan: random_seed is 2, planned 1\n" in out
    assert do(submit, "PLAN=/nowhere.json")[0] == 2
    assert len(kfp.tables["runs"]) == 1
