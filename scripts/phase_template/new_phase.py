"""Count the training images of each class."""

import json
from pathlib import Path

from components.shared.files import write_text
from components.shared.image_set import read_rows
from components.shared.log import log_line


def run(training_data: str | Path, counts: str | Path) -> None:
    """Count the training images of each class.

    Args:
        training_data: folder that prepare_data wrote.
        counts: path of the JSON file to write, class → number of images.

    Raises:
        UserError: the training set cannot be used.
    """
    rows = read_rows(Path(training_data) / "train.parquet", "train", ["dx"])
    count_by_class = {str(dx): int(count) for dx, count in rows["dx"].value_counts().sort_index().items()}
    write_text(counts, json.dumps(count_by_class) + "\n")
    log_line("new_phase", f"{len(rows):,} images of {len(count_by_class)} classes")
