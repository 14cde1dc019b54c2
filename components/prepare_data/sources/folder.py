"""A folder on this machine: images in any nesting, and their metadata as CSV."""

import os
from pathlib import Path

from components.shared.errors import UserError


def handles(data: str) -> bool:
    """Everything that no other source takes is a folder's name."""
    return True


def fetch(data: str, scratch: Path) -> Path:
    """The folder itself: nothing is copied.

    Raises:
        UserError: it isn't there, or is something else.
    """
    if "://" in data:
        raise UserError(f"{data}: this kind of address is not known; give demo, kaggle, gs://… or a folder.")
    if not data.strip():
        raise UserError("data is empty; give demo, kaggle, gs://… or a folder.")
    try:
        path = Path(data).expanduser()
    except RuntimeError as error:
        raise UserError(f"{data}: there is no such user; write the folder's whole path.") from error
    if not path.exists():
        raise UserError(f"{data}: there is no such folder; give demo, kaggle, gs://… or a folder that exists.")
    if not path.is_dir():
        raise UserError(f"{data} is not a folder; give the folder that holds the metadata file and the images.")
    if not os.access(path, os.R_OK | os.X_OK):
        raise UserError(f"{data}: this user may not read the folder; give it the permission (chmod u+rx).")
    return path
