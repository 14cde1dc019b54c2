"""Figures as Kubeflow's metric artifacts, and as a file: `kfp.local` caches no task that leaves an artifact without
one."""

import json
from collections.abc import Mapping
from typing import Any

from components.shared.files import write_text


def log_metrics(artifact: Any, values: Mapping[str, float]) -> None:
    """Logs scalars, whose names must be unique within a run, on a `dsl.Metrics` artifact."""
    for name, value in values.items():
        artifact.log_metric(name, round(value, 6))
    write_text(artifact.path, json.dumps(dict(values), indent=1))
