"""MedMNIST: one `.npz` with the arrays train_images, train_labels, and the same for val and test."""

import lzma
import math
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np
import pandas as pd

from components.prepare_data.image_reader import MAX_PIXELS, Stored
from components.prepare_data.layouts.dataset import NOT_HASHED, Found, ImageFile, Raw
from components.prepare_data.layouts.inventory import Inventory
from components.prepare_data.layouts.tables import join_some
from components.shared.errors import UserError
from components.shared.files import file_sha256
from components.shared.records import MetadataFile

NAME = "MedMNIST"
SPLITS = {"train": "train", "val": "validation", "test": "test"}
COPY_BYTES = 2**20
MAX_IMAGES = 10_000_000
"""Rows and labels are in memory, about 1 kB for each."""


def explain_arrays(inventory: Inventory, path: Path) -> UserError:
    """Return the error for a file with other arrays."""
    return UserError(
        f"{inventory.name(path)} does not have the arrays train_images and train_labels "
        f"(it has {join_some(sorted(_members(path)), 12) or 'none'})",
        "name the arrays as MedMNIST does: train_images, train_labels, and the same for val and test",
        "arrays.missing",
        file=inventory.name(path),
    )


def _members(path: Path) -> set[str]:
    try:
        with zipfile.ZipFile(path) as file:
            return {name.removesuffix(".npy") for name in file.namelist()}
    except (zipfile.BadZipFile, OSError):
        return set()


def recognise(inventory: Inventory, named: dict[str, str]) -> list[Found]:
    """Recognise files with the arrays of at least the training split."""
    if named:
        return []
    return [
        Found(NAME, (path,), {"image_id": "position", "dx": "labels", "split": "name of the array"})
        for path in inventory.arrays
        if {"train_images", "train_labels"} <= _members(path)
    ]


def _read_array_header(archive: zipfile.ZipFile, file: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Return shape and type of an array in NumPy's format, whose bytes the file has.

    Raises:
        UserError: it is an array of objects, which could run code, of another order, or of more bytes or images.
    """
    plain = np.lib.format.read_magic(file) == (1, 0)  # the header of a later version can have gigabytes
    if plain:
        try:
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
            plain = not (dtype.hasobject or fortran)
        except (MemoryError, RecursionError):  # it nests expressions until the parser gives up
            plain = False
    if not plain:
        raise UserError(
            f"the array {name} is not a plain array of numbers",
            "save it with numpy.savez",
            "arrays.invalid",
            array=name,
        )
    if shape and max(shape) > MAX_IMAGES:
        raise UserError(
            f"the array {name} has the shape {shape}, more than {MAX_IMAGES:,} images",
            "use a part of the set",
            "arrays.too_large",
            array=name,
        )
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > archive.getinfo(f"{name}.npy").file_size:
        raise _truncated(name)
    return shape, dtype


def _truncated(name: str) -> UserError:
    return UserError(f"the array {name} is cut off", "download the file again", "arrays.truncated", array=name)


def _check_space(scratch: Path, size: int, name: str) -> None:
    """Check that the pixels fit on the disk: a small file can hold many bytes that are equal.

    Raises:
        UserError: `arrays.no_space`.
    """
    free = shutil.disk_usage(scratch).free
    if size > free:
        raise UserError(
            f"the array {name} has {size / 1e9:,.1f} GB of pixels, but {scratch} has {free / 1e9:,.1f} GB left",
            "free some space, or set TMPDIR to a folder on a larger disk",
            "arrays.no_space",
            array=name,
            bytes=size,
        )


def _labels(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Return the labels, (N,) of whole numbers.

    Raises:
        UserError: there is not one label per image.
    """
    with archive.open(f"{name}.npy") as file:
        shape, dtype = _read_array_header(archive, file, name)
        # Before it is read: a small file can hold gigabytes.
        one_each = dtype.kind in "buif" and len(shape) in (1, 2) and math.prod(shape) == shape[0]
        values = np.frombuffer(file.read(shape[0] * dtype.itemsize) if one_each else b"", dtype)
        if not one_each or not (np.isfinite(values) & (values == np.round(values))).all():
            raise UserError(
                f"the array {name} does not have one whole number per image (its shape is {shape}, its type {dtype})",
                "use a set with one label per image",
                "arrays.labels",
                array=name,
            )
    return values


def _read_shape(archive: zipfile.ZipFile, file: IO[bytes], name: str) -> tuple[int, ...]:
    """Return the shape of an array of images, without a dimension for one channel.

    Raises:
        UserError: it does not hold images.
    """
    shape, dtype = _read_array_header(archive, file, name)
    shape = shape[:3] if len(shape) == 4 and shape[3] == 1 else shape
    grey, colour = len(shape) == 3, len(shape) == 4 and shape[3] == 3
    if dtype != np.uint8 or not (grey or colour) or not 0 < shape[1] * shape[2] <= MAX_PIXELS:
        raise UserError(
            f"the array {name} does not hold 8-bit images (its shape is {shape}, its type {dtype})",
            "use a set of two-dimensional images, grey or RGB, as uint8",
            "arrays.images",
            array=name,
        )
    return shape


def _copy_images(archive: zipfile.ZipFile, name: str, spool: BinaryIO) -> tuple[int, tuple[int, ...]]:
    """Append the pixels of an array to a file, and return the number and the shape of its images."""
    with archive.open(f"{name}.npy") as file:
        shape = _read_shape(archive, file, name)
        left = math.prod(shape)
        _check_space(Path(spool.name).parent, left, name)
        while left:
            block = file.read(min(left, COPY_BYTES))
            if not block:
                raise _truncated(name)
            spool.write(block)
            left -= len(block)
    return shape[0], shape[1:]


def _iter_splits(archive: zipfile.ZipFile) -> Iterator[tuple[str, str]]:
    names = set(archive.namelist())
    for key, split in SPLITS.items():
        if f"{key}_images.npy" in names and f"{key}_labels.npy" in names:
            yield key, split


def _count_images(archive: zipfile.ZipFile, name: str) -> tuple[int, tuple[int, ...]]:
    """Return the number and the shape of the images of an array, without their pixels.

    Raises:
        UserError: it does not hold images.
    """
    with archive.open(f"{name}.npy") as file:
        shape = _read_shape(archive, file, name)
    return shape[0], shape[1:]


def read(inventory: Inventory, found: Found, scratch: Path) -> Raw:
    """Copy the pixels into one file in the scratch folder; memory does not grow with the number of pixels.

    Raises:
        UserError: an array has another form.
    """
    with (scratch / "pixels").open("wb") as spool:
        return _read(inventory, found, spool)


def read_table(inventory: Inventory, found: Found) -> Raw:
    """Read the labels.

    Raises:
        UserError: as in `read`.
    """
    return _read(inventory, found, None)


def copy_table(source: BinaryIO, path: Path) -> None:
    """Copy a file with images of one pixel, of which only the labels are read.

    What is no such file becomes an empty one, which `recognise` ignores as the original.

    Raises:
        UserError: as in `read`.
    """
    if not zipfile.is_zipfile(source):
        path.touch()
        return
    with _refuse_corrupt(path), zipfile.ZipFile(source) as archive, zipfile.ZipFile(path, "w") as out:
        for key, _ in _iter_splits(archive):
            count, _ = _count_images(archive, f"{key}_images")
            arrays = {"labels": _labels(archive, f"{key}_labels"), "images": np.zeros((count, 1, 1), np.uint8)}
            for name, values in arrays.items():
                with out.open(f"{key}_{name}.npy", "w") as file:
                    np.lib.format.write_array(file, values, (1, 0))


@contextmanager
def _refuse_corrupt(path: Path) -> Iterator[None]:
    """Raise if the content of a file cannot be read.

    Raises:
        UserError: `arrays.corrupt`.
    """
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError, ValueError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of this machine; bz2 raises one without a number
            raise
        raise UserError(
            f"{path.name} is corrupt", "download the file again", "arrays.corrupt", file=path.name
        ) from error


def _read(inventory: Inventory, found: Found, spool: BinaryIO | None) -> Raw:
    """Read the labels, and copy the pixels to a file if there is one."""
    path = found.files[0]
    rows: list[tuple[str, str, str]] = []
    files: list[ImageFile | None] = []
    position = 0
    stored = Path(spool.name) if spool is not None else path
    with _refuse_corrupt(path), zipfile.ZipFile(path) as archive:
        for key, split in _iter_splits(archive):
            labels, name = _labels(archive, f"{key}_labels"), f"{key}_images"
            count, shape = _copy_images(archive, name, spool) if spool is not None else _count_images(archive, name)
            if count != len(labels):
                raise UserError(
                    f"{path.name} has {count:,} {key}_images, but {len(labels):,} {key}_labels",
                    "download the file again",
                    "arrays.lengths",
                    array=key,
                )
            length = math.prod(shape)
            for number, label in enumerate(labels.tolist()):
                rows.append((f"{key}/{number:07}", str(int(label)), split))
                files.append(Stored(stored, position, length, shape))
                position += length
    table = pd.DataFrame(rows, columns=["image_id", "dx", "split"], dtype=object)
    digest = file_sha256(path) if spool is not None else NOT_HASHED
    metadata = [MetadataFile(name=inventory.name(path), rows=len(rows), sha256=digest)]
    notes = ["the file has no names of classes; their numbers are used"]
    return Raw(NAME, path.name, table, files, range(1, len(rows) + 1), metadata, found.columns, notes=notes)
