"""Short trainings of classifiers."""

from pathlib import Path
from typing import Any

from components.shared.workflow_size import parse_pack
from components.train_classifier.train import train


def train_pack(training_data: Path, classifiers: Path, pack: str, /, **settings: Any) -> Path:
    """Train a pack with short settings, unless they are given, and return the folder with the models."""
    arguments: dict[str, Any] = {
        "jobs": parse_pack(pack),
        "training_data": training_data,
        "synthetic_images": None,
        "synthetic_per_class": 20,
        "random_seed": 7,
        "classifiers": classifiers,
        "workers": 1,
    }
    train(**(arguments | settings))
    return classifiers / "models"
