"""Google Cloud Storage: the same layout as a folder's, below a prefix."""

from pathlib import Path


def handles(data: str) -> bool:
    """`gs://bucket` or `gs://bucket/prefix`."""
    return data.startswith("gs://")


def fetch(data: str, scratch: Path) -> Path:
    """Downloads every object below the prefix and returns the folder.

    Raises:
        UserError: the bucket can't be reached or read, or nothing stands below the prefix.
    """
    from components.shared import storage  # Google's client takes half a second

    storage.download_folder(data, scratch)
    return scratch
