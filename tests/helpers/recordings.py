"""Runs that a real Kubeflow Pipelines 2.17.0 reported, reduced to what the commands read."""

import base64
import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "recordings"
NAMES = sorted(path.name.removesuffix(".json.gz") for path in FOLDER.glob("*.json.gz"))


@cache
def _text(name: str) -> bytes:
    return gzip.decompress((FOLDER / f"{name}.json.gz").read_bytes())


def load(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a run as `/apis/v1beta1` and as `/apis/v2beta1` reported it."""
    content = json.loads(_text(name))
    return content["v1beta1"], content["v2beta1"]


def answers() -> list[dict[str, Any]]:
    """Return single requests and the answers to them: what, request, status, response."""
    found: list[dict[str, Any]] = json.loads((FOLDER / "answers.json").read_text(encoding="utf-8"))
    return found


def manifest(name: str) -> dict[str, Any]:
    """Return the Workflow manifest of a run, with nodes that are not compressed."""
    found: dict[str, Any] = json.loads(load(name)[0]["pipeline_runtime"]["workflow_manifest"])
    status = found["status"]
    if "compressedNodes" in status:
        status["nodes"] = json.loads(gzip.decompress(base64.b64decode(status.pop("compressedNodes"))))
    return found


def manifest_as_of(name: str, moment: str) -> dict[str, Any]:
    """Return the manifest as it was at a moment of the run: nodes had not started, or had not finished.

    Args:
        name: of the recording.
        moment: as in the manifest, such as `2026-11-26T04:16:20Z`.
    """
    found = manifest(name)
    status = found["status"]
    status["nodes"] = {key: node for key, node in status["nodes"].items() if node["startedAt"] <= moment}
    for part in (status, *status["nodes"].values()):
        if (part.get("finishedAt") or "") > moment:
            part["phase"], part["finishedAt"] = "Running", None
            part.pop("message", None)
    found["spec"].pop("activeDeadlineSeconds", None)
    return found
