"""What a layout reads, and what every caller gets: a table of images, their files, and a record of what was read."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol, overload

import numpy as np
import pandas as pd

from components.prepare_data.image_reader import RawImage, Stored
from components.prepare_data.layouts.inventory import Inventory
from components.prepare_data.texts import CHUNK, Texts
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
        named: fields whose column the user named.
        lists: files that list images without their classes, and are not read.
    """

    layout: str
    files: tuple[Path, ...]
    columns: dict[str, str]
    named: frozenset[str] = frozenset()
    lists: tuple[Path, ...] = ()


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


class ImagePaths(Sequence[str | None]):
    """The image of each row, by its position among all images."""

    def __init__(self, images: Sequence[str], positions: Iterable[int]) -> None:
        """Keep the positions.

        Args:
            images: paths.
            positions: of the image of each row; −1 if there is none.
        """
        self._images = images
        self.positions = positions if isinstance(positions, np.ndarray) else np.fromiter(positions, np.int64)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.positions)

    @overload
    def __getitem__(self, at: int) -> str | None: ...

    @overload
    def __getitem__(self, at: slice) -> "ImagePaths": ...

    def __getitem__(self, at: int | slice) -> "str | ImagePaths | None":
        """Return the image of a row, or those of some rows."""
        if isinstance(at, slice):
            return ImagePaths(self._images, self.positions[at])
        position = int(self.positions[at])
        return self._images[position] if position >= 0 else None

    def take(self, rows: np.ndarray) -> "ImagePaths":
        """Return the images of some rows."""
        return ImagePaths(self._images, self.positions[rows])


def name_lines(places: Sequence[int], files: Sequence[MetadataFile]) -> Sequence[int | str]:
    """Return the line of each row, with the name of its file if there are several.

    Args:
        places: line numbers of all rows, those of the first file first.
        files: the files that the rows are from.
    """
    if len(files) == 1:
        return places
    lines = iter(places)
    return Texts(f"line {next(lines)} of {file.name}" for file in files for _ in range(file.rows))


def number_paths(files: Sequence[ImageFile | None]) -> np.ndarray:
    """Return a number for each file that is a path, the same for equal ones, and −1 for others: (N,) int64."""
    if isinstance(files, ImagePaths):
        return files.positions
    return pd.factorize(np.array([file if isinstance(file, str) else None for file in files], object))[0]


def have_files(files: Sequence[ImageFile | None]) -> np.ndarray:
    """Return which rows have an image: (N,) bool."""
    if isinstance(files, ImagePaths):
        return files.positions >= 0
    return np.array([file is not None for file in files], bool)


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
        encoded = np.concatenate([np.array([], np.bytes_), *_encode(names)])
        order = np.argsort(encoded, kind="stable")
        order = order[have_files(files)[order]]
        self._names = encoded[order]
        self._files = files.take(order) if isinstance(files, ImagePaths) else [files[at] for at in order]

    def find(self, names: Iterable[str]) -> np.ndarray:
        """Return the position of each id's file for `at`, −1 if it has none: (N,) int64."""
        return np.concatenate([np.empty(0, np.int64), *map(self._find, _encode(names))])

    def _find(self, encoded: np.ndarray) -> np.ndarray:
        if not len(self):
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
        assert file is not None  # `__init__` keeps those that exist
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


def _encode(names: Iterable[str]) -> Iterator[np.ndarray]:
    """Yield ids as bytes, some at a time: (n,) of NumPy's strings."""
    left = iter(names)
    while some := list(islice(left, CHUNK)):
        yield np.array([name.encode(errors="surrogateescape") for name in some], np.bytes_)


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
        cause: the error for rows without a file, with its cause; None if all have one.
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
