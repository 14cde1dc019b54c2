"""The output of tasks that have nothing to do. Keras is not imported here: that takes longer than such a task."""

from pathlib import Path

from components.shared.files import NOTHING, atomic_folder, write_text
from components.shared.log import log_line


def skip(folder: str | Path, label: str, reason: str) -> None:
    """Write the output folder of a task that has nothing to do, and log the reason.

    Args:
        folder: output folder of the task.
        label: beginning of the log line.
        reason: why there is nothing to do.
    """
    log_line(label, f"skipped: {reason}")
    with atomic_folder(folder) as part:
        write_text(part / NOTHING, f"{reason}\n")


def is_skipped(folder: str | Path) -> bool:
    """Return whether the task that wrote a folder had nothing to do."""
    return (Path(folder) / NOTHING).is_file()
