"""A folder on this machine: in any layout."""

import os
from pathlib import Path

from components.shared.errors import UserError
from components.shared.places import refuse_file
from components.shared.stores.addresses import ADDRESS_FORM


def handles(data: str) -> bool:
    """Handle every value: this source is the last."""
    return True


def fetch(data: str, scratch: Path) -> Path:
    """Return the folder itself, without copying.

    Raises:
        UserError: the folder does not exist, is not a folder, or cannot be read.
    """
    if "://" in data:
        raise UserError(
            f"{data}: unknown kind of address",
            f"use demo, kaggle, {ADDRESS_FORM} or a folder",
            "data.unknown_address",
            data=data,
        )
    if not data.strip():
        raise UserError("data is empty", f"use demo, kaggle, {ADDRESS_FORM} or a folder", "data.empty")
    try:
        path = Path(data).expanduser()
    except RuntimeError as error:
        raise UserError(
            f"{data}: the user in the path does not exist", "use the full path", "data.unknown_user", data=data
        ) from error
    if not path.exists():
        raise UserError(
            f"{data}: the folder does not exist",
            f"use demo, kaggle, {ADDRESS_FORM} or an existing folder",
            "data.missing_folder",
            data=data,
        )
    if not path.is_dir():
        raise refuse_file("data", data)
    if not os.access(path, os.R_OK | os.X_OK):
        raise UserError(
            f"{data}: the current user may not read the folder",
            "grant the permission (`chmod u+rx`)",
            "data.permission",
            data=data,
        )
    return path
