"""The identity of input data: a hash of its listing, which changes when the data changes.

It is computed in seconds without reading the data: names, sizes and, for object storage, versions, for folders
modification times.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from components.shared import storage
from components.shared.arms import GAN
from components.shared.errors import UserError
from components.shared.parameters import FOLD, synthetic_sources
from components.shared.stores.addresses import is_address

DATA_SUFFIXES = (
    "", ".csv", ".tsv", ".tab", ".parquet", ".npz", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".bmp", ".tif",
    ".tiff", ".webp", ".gif",
)  # fmt: skip
"""Suffixes of files that are data. Results written into the data folder are ignored."""

PROVENANCE = "provenance.json"
"""File that describes synthetic images, beside them."""

WORDS = ("demo", "kaggle", "none", "random")
"""Parameter values that are not locations; their data is constant."""


def data_identity(*places: str) -> str:
    """Return 16 hexadecimal digits that identify the content of some locations.

    Args:
        places: folders, files, addresses of objects or prefixes, or `WORDS`.

    Raises:
        UserError: an address cannot be listed or has no objects.
    """
    digest = hashlib.sha256()
    for place in places:
        digest.update(f"{place}\0".encode(errors="replace"))
        if place not in WORDS:
            for line in _list_objects(place) if is_address(place) else _list_files(Path(place)):
                digest.update(line.encode(errors="replace"))
    return digest.hexdigest()[:16]


def input_identity(data: str, data_split: str) -> str:
    """Return the identity of the data and its split, the parameters of these names; a fold such as `2/5` is none.

    Raises:
        UserError: as in `data_identity`.
    """
    return data_identity(data, "random" if FOLD.fullmatch(data_split) else data_split)


def others_identity(synthetic: str, data_external: str) -> str:
    """Return the identity of all other images: the sources in `synthetic` without the GANs, and `data_external`.

    Raises:
        UserError: as in `data_identity`.
    """
    return data_identity(*(place for name, place in synthetic_sources(synthetic).items() if name != GAN), data_external)


def check_others_unchanged(identity: str, synthetic: str, data_external: str) -> None:
    """Check, after the synthetic images and the external set have been read, that they still have this identity.

    Raises:
        UserError: `input.changed`, or as in `data_identity`.
    """
    if others_identity(synthetic, data_external) != identity:
        raise UserError(
            "the synthetic images or the external set changed while they were read",
            "rerun the command when nothing writes to them",
            "input.changed",
            synthetic=synthetic,
            data_external=data_external,
        )


def check_unchanged(identity: str, data: str, data_split: str) -> None:
    """Check, after a run's inputs have been read, that they are still those with this identity.

    Otherwise the results would be cached for the data as it was before, or mix both.

    Raises:
        UserError: `input.changed`, or as in `data_identity`.
    """
    if input_identity(data, data_split) != identity:
        raise UserError(
            "the data changed while it was read",
            "rerun the command when nothing writes to the data",
            "input.changed",
            data=data,
            data_split=data_split,
        )


def _list_objects(uri: str) -> Iterator[str]:
    for name, size, version, _ in storage.list_objects(uri):
        if _is_data(name):
            yield f"{name}\0{size}\0{version}\n"


def _list_files(place: Path) -> Iterator[str]:
    if place.is_file():
        yield _line(place, place.name)
    if not place.is_dir():
        return
    for folder, folders, names in os.walk(place):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if _is_data(name):
                with contextlib.suppress(OSError):
                    path = Path(folder, name)
                    yield _line(path, os.path.relpath(path, place))


def _line(path: Path, name: str) -> str:
    status = path.stat()
    return f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n"


def _is_data(name: str) -> bool:
    last = name.rpartition("/")[2]
    return not last.startswith(".") and (Path(last).suffix.lower() in DATA_SUFFIXES or last == PROVENANCE)
