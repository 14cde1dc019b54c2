"""The files of a published run, each compared with the manifest.

A run may come from anyone: its records are validated, and its names become paths below its folder only.
"""

import re
from collections.abc import Callable
from pathlib import Path

from components.shared.errors import UserError
from components.shared.files import file_sha256
from components.shared.records import Manifest, load_record, path_below

MANIFEST = "manifest.json"
_CANDIDATE = re.compile(r"models/([^/]+)\.keras")

Fetch = Callable[[str], Path]
"""Returns the local path of one of a run's files; raises a UserError if it does not exist."""


def find_file(run: str | Path, name: str) -> Path:
    """Return the path of a file of a run in a folder.

    Raises:
        UserError: `run.missing_file` or `path.outside`.
    """
    path = path_below(run, name)
    if not path.is_file():
        raise UserError(
            f"{run} has no {name}", "give the folder of a published run", "run.missing_file", run=str(run), file=name
        )
    return path


def open_files(name: str, fetch: Fetch) -> tuple[Manifest, Fetch]:
    """Return the manifest of a published run, and a function that compares a file with it and returns its path.

    Args:
        name: location of the run, for messages.
        fetch: returns the local path of one of its files.

    Raises:
        UserError: `record.invalid`; from the function also `run.missing_file` and `run.changed_file`.
    """
    manifest = load_record(fetch(MANIFEST), Manifest)

    def file(member: str) -> Path:
        if member not in manifest.files:
            raise UserError(
                f"{name} has no {member}", "give the folder of a finished run", "run.missing_file", file=member
            )
        path = fetch(member)
        if file_sha256(path) != manifest.files[member].sha256:
            raise UserError(
                f"{name}: {member} differs from the published file",
                "publish the run again",
                "run.changed_file",
                file=member,
            )
        return path

    return manifest, file


def candidate_arm(manifest: Manifest) -> str:
    """Return the arm of the model that a run proposes for use; empty if it proposes none."""
    match = _CANDIDATE.fullmatch(manifest.candidate or "")
    return match[1] if match else ""


def classifier_stem(arm: str, seed: int, first_seed: int) -> str:
    """Return the name of a classifier's files below `models/`, without suffix."""
    return arm if seed == first_seed else f"{arm}-seed{seed}"
