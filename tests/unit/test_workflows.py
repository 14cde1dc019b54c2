"""The CI workflows: actions pinned, few rights, and no user input in a shell."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))

each = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def load(path: Path) -> dict:
    # BaseLoader keeps the key `on` a string.
    return yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)


def steps(path: Path) -> list[dict]:
    return [step for job in load(path)["jobs"].values() for step in job["steps"]]


@each
def test_workflow_actions_are_pinned_by_commit_with_version(path: Path):
    uses = re.findall(r"uses: (.+)", path.read_text(encoding="utf-8"))
    assert uses
    for use in uses:
        assert re.fullmatch(r"(actions|anchore|sigstore)(/[a-z-]+){1,2}@[0-9a-f]{40} # v[0-9]+\.[0-9]+\.[0-9]+", use)


WRITERS = {
    ("release", "images"): {"contents"},
    ("release", "supply-chain"): {"id-token", "attestations"},
    ("docs", "docs"): {"pages", "id-token"},
}
"""Jobs that may write, and what."""


@each
def test_workflow_permissions_are_read_only_except_for_listed_jobs(path: Path):
    workflow = load(path)
    assert set(workflow["permissions"].values()) == {"read"}
    for name, job in workflow["jobs"].items():
        written = {right for right, level in job.get("permissions", {}).items() if level == "write"}
        assert written == WRITERS.get((path.stem, name), set())
    assert "pull_request_target" not in workflow["on"]


def test_release_pushes_only_what_passed_the_tests():
    jobs = load(ROOT / ".github/workflows/release.yml")["jobs"]
    assert jobs["images"]["needs"] == "test"
    assert "test-all" in jobs["test"]["steps"][-1]["run"]


@each
def test_workflow_jobs_have_time_limits_and_concurrency_groups(path: Path):
    workflow = load(path)
    assert workflow["concurrency"]["group"]
    assert all(0 < int(job["timeout-minutes"]) <= 360 for job in workflow["jobs"].values())


@each
def test_workflow_scripts_contain_no_expressions(path: Path):
    scripts = [step["run"] for step in steps(path) if "run" in step]
    assert scripts
    assert not [script for script in scripts if "${{" in script]


@each
def test_workflow_secrets_are_limited_to_steps(path: Path):
    workflow = load(path)
    outside = [workflow.get("env", {}), *(job.get("env", {}) for job in workflow["jobs"].values())]
    assert "secrets." not in str(outside)
    checkouts = [step for step in steps(path) if step.get("uses", "").startswith("actions/checkout@")]
    assert checkouts
    assert all(step["with"]["persist-credentials"] == "false" for step in checkouts)


@each
def test_workflow_scripts_parse_as_bash(path: Path):
    for step in steps(path):
        if "run" in step:
            subprocess.run(["bash", "-n"], input=step["run"], text=True, check=True)


@each
def test_workflow_make_targets_exist(path: Path):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {
        target
        for step in steps(path)
        for words in re.findall(r"^\s*make ((?:[a-z-]+ ?)+)", step.get("run", ""), re.M)
        for target in words.split()
    }
    if path.stem == "test":
        targets |= set(load(path)["jobs"]["test"]["strategy"]["matrix"]["target"])
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
def test_submit_input_is_a_parameter_or_rejected(parameters: str, words: list[str] | None, tmp_path: Path):
    (script,) = (step["run"] for step in steps(ROOT / ".github/workflows/submit.yml") if step.get("name") == "Submit")
    arguments_file, make = tmp_path / "arguments_file", tmp_path / "make"
    make.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {arguments_file}\n')
    make.chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "PRESET": "demo", "PARAMETERS": parameters}
    done = subprocess.run(["bash", "-e", "-c", script], env=env, capture_output=True, text=True, check=False)
    if words is None:
        assert done.returncode == 2
        assert not arguments_file.exists()
    else:
        assert arguments_file.read_text().split() == ["submit", "WAIT=1", "TIMEOUT=18000", "PRESET=demo", *words]
