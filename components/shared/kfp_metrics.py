"""Figures as Kubeflow's metric artifacts, and as a file: `kfp.local` caches no task that leaves an artifact without
one."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from components.shared.files import write_text


def log_metrics(artifact: Any, values: Mapping[str, float]) -> None:
    """Logs scalars, whose names must be unique within a run, on a `dsl.Metrics` artifact."""
    for name, value in values.items():
        artifact.log_metric(name, round(value, 6))
    write_text(artifact.path, json.dumps(dict(values), indent=1))


def log_classification(
    artifact: Any, classes: Sequence[str], confusion: Sequence[Sequence[int]], roc: Sequence[tuple[float, float, float]]
) -> None:
    """Logs a confusion matrix (true classes in rows) and ROC points (false positive rate, true positive rate,
    threshold) on a `dsl.ClassificationMetrics` artifact."""
    artifact.log_confusion_matrix(list(classes), [list(row) for row in confusion])
    artifact.log_roc_curve(*map(list, zip(*roc, strict=True)))
    write_text(artifact.path, json.dumps({"classes": list(classes), "confusion": confusion, "roc": roc}))
