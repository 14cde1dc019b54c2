"""Google Cloud Storage: the layout of a folder below a prefix."""

from pathlib import Path


def handles(data: str) -> bool:
    """Handle `gs://bucket` and `gs://bucket/prefix`."""
    return data.startswith("gs://")


def fetch(data: str, scratch: Path) -> Path:
    """Download every object below the prefix and return the folder.

    Raises:
        UserError: the bucket cannot be read, or has no objects below the prefix.
    """
    from components.shared import storage  # importing Google's client takes half a second

    storage.download_folder(data, scratch)
    return scratch
