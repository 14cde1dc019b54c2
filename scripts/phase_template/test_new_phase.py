"""Count the training images of each class."""

import json
from pathlib import Path

from components.new_phase.new_phase import run


def test_run_counts_the_images_of_each_class(training_data: Path, tmp_path: Path):
    """The training set has three classes."""
    run(training_data, tmp_path / "counts.json")
    assert json.loads((tmp_path / "counts.json").read_text()) == {"df": 10, "nv": 60, "vasc": 14}
