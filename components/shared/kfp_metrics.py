"""Write metrics and metadata to artifacts of Kubeflow."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from components.shared.files import write_text


def log_metrics(artifact: Any, values: Mapping[str, float]) -> None:
    """Log scalars, rounded to 6 digits, and write them to the artifact's file.

    The file is required for caching: `kfp.local` caches a task only if every output artifact has one.

    Args:
        artifact: a `dsl.Metrics`.
        values: metrics by name; the Compare page of the UI drops names that occur twice in a run.
    """
    for name, value in values.items():
        artifact.log_metric(name, round(value, 6))
    write_text(artifact.path, json.dumps(dict(values), indent=1))


def note_finished(artifact: Any) -> None:
    """Record the time in an artifact's metadata, so that a run that takes it from the cache can report its age."""
    artifact.metadata["finished"] = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
