"""Explain, in the same words in each command and phase, why a place cannot be read as a data folder."""

from pathlib import Path, PurePosixPath
from shlex import quote

from components.shared.errors import UserError

ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")
TABLES = (".csv", ".tsv", ".tab", ".xlsx", ".parquet", ".npz")


def is_packed(place: str) -> bool:
    """Return whether an address or path names an archive.

    Example:
        >>> is_packed("gs://bucket/ham10000.zip")
        True
    """
    return PurePosixPath(place).suffix.lower() in ARCHIVES


def refuse_file(name: str, place: str) -> UserError:
    """Return the error for a place that exists, but is a file instead of a folder.

    Args:
        name: of the parameter or option, for the message.
        place: its value.
    """
    path = Path(place)
    if is_packed(place):
        command = f"unzip {quote(path.name)} -d {quote(path.stem)}"
        if path.suffix.lower() != ".zip":
            command = f"tar -xf {quote(path.name)}"
        return UserError(
            f"{name} is {place}, a packed file",
            f"unpack it (`{command}`) and give the folder",
            "data.packed",
            name=name,
            value=place,
        )
    if path.suffix.lower() in TABLES:
        return UserError(
            f"{name} is {place}, a file instead of a folder",
            f"give the folder that contains it ({path.parent}) and the images",
            "data.not_a_folder",
            name=name,
            value=place,
        )
    return UserError(
        f"{name} is {place}, a file instead of a folder",
        "give the folder that contains the metadata and the images",
        "data.not_a_folder",
        name=name,
        value=place,
    )
