"""What a layout reads, and what every caller gets: a table of images, their files, and a record of what was read."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import pandas as pd

from components.prepare_data.image_reader import RawImage, Stored
from components.prepare_data.layouts.inventory import Inventory
from components.shared.errors import UserError
from components.shared.records import DataSource, MetadataFile

ImageFile = str | Stored
"""A path as text, or an image within a file."""
NOT_HASHED = "0" * 64
"""In place of the SHA-256 of a large file that is inspected, not read."""


class Found(NamedTuple):
    """One way to read a folder.

    Attributes:
        layout: name of the layout.
        files: the files that define the images, such as the metadata.
        columns: field → name of the column, as the file spells it.
    """

    layout: str
    files: tuple[Path, ...]
    columns: dict[str, str]


@dataclass
class Raw:
    """What a layout reads, before it is checked.

    Attributes:
        layout: name of the layout.
        name: of the metadata file, or of the folder, for messages.
        table: some of `COLUMN_FIELDS`, strings; missing values are empty. `image_id` and `dx` are required.
        files: the image of each row; None if there is none.
        places: where each row is, for messages: a line number or a name.
        metadata: the files that were read as metadata.
        columns: field → column that it was taken from.
        ignored: columns that were not used.
        notes: sentences for log and pages on how the data was read.
    """

    layout: str
    name: str
    table: pd.DataFrame
    files: Sequence[ImageFile | None]
    places: Sequence[int | str]
    metadata: list[MetadataFile] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class ImageFiles(Mapping[str, RawImage]):
    """Image id → its file.

    The ids are in one sorted array, since a dictionary needs ten times as much memory.
    """

    def __init__(self, names: Iterable[str], files: Sequence[ImageFile | None]) -> None:
        """Keep the file of each id.

        Args:
            names: the ids.
            files: the file of each, or None if there is none.
        """
        encoded = np.array([_encode(name) for name in names], np.bytes_)
        order = np.argsort(encoded, kind="stable")
        order = order[[files[at] is not None for at in order]]
        self._names = encoded[order]
        self._files = [file for at in order if (file := files[at]) is not None]

    def find(self, names: Iterable[str]) -> np.ndarray:
        """Return the position of each id's file for `at`, −1 if it has none: (N,) int64."""
        encoded = np.array([_encode(name) for name in names], np.bytes_)
        if not len(self) or not len(encoded):
            return np.full(len(encoded), -1)
        positions = np.searchsorted(self._names, encoded).clip(max=len(self) - 1)
        return np.where(self._names[positions] == encoded, positions, -1)

    def at(self, position: int) -> RawImage:
        """Return the file at a position that `find` returned.

        Raises:
            KeyError: it is −1.
        """
        if position < 0:
            raise KeyError("an id without a file")
        file = self._files[position]
        return Path(file) if isinstance(file, str) else file

    def __getitem__(self, name: str) -> RawImage:
        """Return the file of an id; `find` is faster for many."""
        return self.at(int(self.find([name])[0]))

    def __iter__(self) -> Iterator[str]:
        """Iterate over the ids."""
        return (name.decode(errors="surrogateescape") for name in self._names)

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self._files)


def _encode(name: str) -> bytes:
    return name.encode(errors="surrogateescape")


@dataclass(frozen=True)
class Dataset:
    """A data set in the form that all phases expect.

    Attributes:
        table: one row per image, sorted by image_id: image_id, lesion_id, group_id and dx (non-empty strings),
            patient_id, dx_type, sex, localization and split (strings or null), age (float, years, or null).
            `lesion_id` is the unit of all statistics: the lesion, else the patient, else the image; all its images
            have one class. Images of one `group_id` must be in one split. `split` is train, validation or test.
        files: image id → its file; images without one are missing.
        source: what was read.
        unused: number of image files without a row.
        cause: the one cause for which many images have no file; None if there is none.
    """

    table: pd.DataFrame
    files: ImageFiles
    source: DataSource
    unused: int = 0
    cause: UserError | None = None


class Layout(Protocol):
    """A module of this package that recognises and reads one layout."""

    NAME: str

    def recognise(self, inventory: Inventory, named: dict[str, str]) -> list[Found]:
        """Return the ways in which a folder has this layout.

        Args:
            inventory: the files of the folder.
            named: field → column that the user named.
        """

    def read(self, inventory: Inventory, found: Found, scratch: Path) -> Raw:
        """Read one of them.

        Args:
            inventory: the files of the folder.
            found: what `recognise` returned.
            scratch: a folder for images that are no separate files.
        """


class FileLayout(Layout, Protocol):
    """A layout in which the same files hold images and classes."""

    def read_table(self, inventory: Inventory, found: Found) -> Raw:
        """Read everything but the images, of which `files` then only states that they exist.

        Args:
            inventory: the files of the folder.
            found: what `recognise` returned.
        """
