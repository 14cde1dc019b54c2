"""The workflows for CI: pinned, with few rights, and nothing that a stranger typed gets into a shell."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))

each = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def load(path: Path) -> dict:
    # BaseLoader: the key `on` stays a word.
    return yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)


def steps(path: Path) -> list[dict]:
    return [step for job in load(path)["jobs"].values() for step in job["steps"]]


@each
def test_every_action_is_pinned_by_a_revision_with_its_version_beside_it(path: Path):
    uses = re.findall(r"uses: (.+)", path.read_text(encoding="utf-8"))
    assert uses
    for use in uses:
        assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40} # v[0-9]+\.[0-9]+\.[0-9]+", use)


@each
def test_rights_are_few_and_said_at_the_top(path: Path):
    workflow = load(path)
    assert workflow["permissions"]
    assert set(workflow["permissions"].values()) == {"read"}
    assert not [job for job in workflow["jobs"].values() if "permissions" in job]
    assert "pull_request_target" not in workflow["on"]


@each
def test_jobs_end_and_do_not_run_over_each_other(path: Path):
    workflow = load(path)
    assert workflow["concurrency"]["group"]
    assert all(0 < int(job["timeout-minutes"]) <= 360 for job in workflow["jobs"].values())


@each
def test_no_expression_stands_in_a_shell_script(path: Path):
    scripts = [step["run"] for step in steps(path) if "run" in step]
    assert scripts
    assert not [script for script in scripts if "${{" in script]


@each
def test_secrets_are_only_for_the_steps_that_need_them(path: Path):
    workflow = load(path)
    outside = [workflow.get("env", {}), *(job.get("env", {}) for job in workflow["jobs"].values())]
    assert "secrets." not in str(outside)
    checkouts = [step for step in steps(path) if step.get("uses", "").startswith("actions/checkout@")]
    assert checkouts
    assert all(step["with"]["persist-credentials"] == "false" for step in checkouts)


@each
def test_every_script_is_a_script_of_bash(path: Path):
    for step in steps(path):
        if "run" in step:
            subprocess.run(["bash", "-n"], input=step["run"], text=True, check=True)


@each
def test_every_make_target_exists(path: Path):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {match for step in steps(path) for match in re.findall(r"^\s*make ([a-z-]+)", step.get("run", ""), re.M)}
    assert targets
    assert not [target for target in targets if not re.search(rf"^{target}:", makefile, re.M)]


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ("", []),
        ("seeds=1,2,3 data=gs://b/p", ["seeds=1,2,3", "data=gs://b/p"]),
        ("--eval=x", None),
        ("SHELL=/bin/x", None),
        ("a=$(id)", None),
        ("a=1;id", None),
        ("a=`id`", None),
        ("seed=2\n--eval=x", None),
    ],
)
def test_what_was_typed_is_a_parameter_or_refused(parameters: str, words: list[str] | None, tmp_path: Path):
    (script,) = (step["run"] for step in steps(ROOT / ".github/workflows/submit.yml") if step.get("name") == "Submit")
    said, make = tmp_path / "said", tmp_path / "make"
    make.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {said}\n')
    make.chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "PRESET": "demo", "PARAMETERS": parameters}
    done = subprocess.run(["bash", "-e", "-c", script], env=env, capture_output=True, text=True, check=False)
    if words is None:
        assert done.returncode == 2
        assert not said.exists()
    else:
        assert said.read_text().split() == ["submit", "WAIT=1", "TIMEOUT=18000", "PRESET=demo", *words]
