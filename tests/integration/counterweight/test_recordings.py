"""What a real Kubeflow Pipelines answered: its runs followed by submit, and the API of the tests compared with it."""

import re
from typing import Any

import pytest

from components.shared import workflow
from counterweight import submit
from tests.helpers import kfp_server, recordings
from tests.helpers.kfp_server import KfpServer, ProblemError
from tests.integration.counterweight.conftest import Command

ENDS = {
    "failed-default-output": "failed",
    "failed-user-error": "failed",
    "flat-all-cached": "succeeded",
    "flat-succeeded": "succeeded",
    "flat-succeeded-after-retry": "succeeded",
    "flat-terminated": "cancelled",
    "flat-user-error": "failed",
    "out-of-memory": "failed",
    "packs-succeeded": "succeeded",
    "pod-annotation-succeeded": "succeeded",
    "refused-by-pod-security": "failed",
    "scheduled-second-tick": "succeeded",
    "started-by-kfp-client": "succeeded",
    "succeeded-after-retries": "succeeded",
    "succeeded-all-cached": "succeeded",
    "succeeded-details-frozen": "succeeded",
    "terminated": "cancelled",
    "too-wide": "failed",
    "twenty-seeds": "failed",
    "workflow-deleted-with-its-schedule": "cancelling",
}
"""Recording → how the run really ended; one never did."""
EXIT_CODES = {"succeeded": 0, "failed": 1, "cancelled": 3, "cancelling": 4}
STATES = "pending|running|succeeded|cached|skipped|failed|cancelled|cancelling"
CHANGE = re.compile(rf"\d\d:\d\d:\d\dZ (.*?): ({STATES})\b")


def test_recordings_all_have_a_known_end():
    assert sorted(ENDS) == recordings.NAMES


@pytest.mark.parametrize(("name", "end"), ENDS.items())
def test_submit_wait_recorded_run_exits_with_its_true_state(
    kfp: KfpServer,
    do: Command,
    package: submit.Package,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    end: str,
):
    monkeypatch.setattr(submit, "compile_package", lambda local_images: package)
    run_id = kfp.record(name)
    monkeypatch.setitem(kfp_server.ROUTES, "POST /apis/v2beta1/runs", lambda *_: {"run_id": run_id})
    code, out, _ = do(submit, "WAIT=1", "TIMEOUT=1")
    shown = [CHANGE.match(line) for line in out.splitlines()]
    last = {found[1]: found[2] for found in shown if found}
    assert (code, last["run"]) == (EXIT_CODES[end], end)
    if end == "succeeded":
        assert set(last.values()) <= {"succeeded", "cached"}
        assert len(last) == 1 + len(workflow.parse_run(recordings.load(name)[0]).tasks)


@pytest.mark.parametrize("answer", recordings.answers(), ids=lambda answer: answer["what"])
def test_server_answers_as_recorded(kfp: KfpServer, answer: dict[str, Any]):
    request, response = answer["request"], dict(answer["response"])
    listed = {"pipelines": "pipelines", "experiments": "experiments", "recurringRuns": "recurring_runs"}
    for field, table in listed.items():
        kfp.tables[table] = [{**row} for row in response.get(field, [])]
        while len(kfp.tables[table]) < response.get("total_size", 0):
            kfp.tables[table].append({"display_name": "on the next page"})
    add_target(kfp, request)
    try:
        status, body = 200, kfp.handle(request["method"], request["path"], request["body"])
    except ProblemError as problem:
        status, body = problem.status, problem.body()
    assert (status, set(body)) == (answer["status"], set(response))
    if status == 200:
        for part in (body, response):
            part.pop("next_page_token", None)  # its content is the server's own
        assert body == response
    else:
        assert (body["code"], body.get("details")) == (response["code"], response.get("details"))


def add_target(kfp: KfpServer, request: dict[str, Any]) -> None:
    """Add what a request is about: a pipeline of the recorded parameters, or a finished run."""
    if request["method"] == "POST" and request["body"]:
        reference = request["body"]["pipeline_version_reference"]
        kinds = {"image_size": "NUMBER_INTEGER", "seeds": "LIST", "data_version": "STRING"}
        inputs = {"parameters": {name: {"parameterType": kind} for name, kind in kinds.items()}}
        spec = {"root": {"inputDefinitions": inputs}}
        kfp.tables["pipeline_versions"].append({**reference, "pipeline_spec": spec, "created_at": kfp.now()})
        kfp.tables["experiments"].append({"experiment_id": request["body"]["experiment_id"]})
    elif request["path"].endswith(":terminate"):
        run_id = request["path"].rpartition("/")[2].removesuffix(":terminate")
        kfp.tables["runs"].append({"run_id": run_id, "state": "SUCCEEDED"})
