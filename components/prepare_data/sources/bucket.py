"""Object storage: the layout of a folder below a prefix."""

from pathlib import Path

from components.shared import storage
from components.shared.stores.addresses import is_address


def handles(data: str) -> bool:
    """Handle the addresses of every store."""
    return is_address(data)


def fetch(data: str, scratch: Path) -> Path:
    """Download every object below the prefix and return the folder.

    Raises:
        UserError: the bucket cannot be read, or has no objects below the prefix.
    """
    storage.download_folder(data, scratch)
    return scratch
