"""Decode the images of a source in worker processes and keep their PNG bytes in a scratch file until the split.

A file with several names (hard links or symbolic links) is decoded and kept once. The scratch files hold the PNG bytes
of each file, as many as the image sets have in the end, and a thumbnail of 1 KiB.
"""

import gc
import multiprocessing
import os
import sys
import tempfile
import warnings
from array import array
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa

from components.prepare_data import image_reader
from components.prepare_data.layouts.dataset import ImageFiles
from components.prepare_data.near_duplicates import THUMBNAIL_PX, hash_words
from components.prepare_data.texts import iterate
from components.shared.errors import UserError
from components.shared.log import Progress
from components.shared.machine_limits import usable_cpus, usable_memory_bytes
from components.shared.processes import die_with, explain_killed

_DOWNLOAD = "download or copy the files again"
NOT_LISTED = "not in the split file"
FIXES = {
    NOT_LISTED: "list them in the file of data_split, with the split none to exclude them",
    image_reader.OVER_8_BITS: "convert them to 8 bits, for example with ImageMagick: mogrify -depth 8 FOLDER/*.png",
    image_reader.NO_IMAGE: _DOWNLOAD,
    image_reader.POINTER: "replace the pointers by the images: run `git lfs pull` in their repository",
    image_reader.WEB_PAGE: "download the images again; the page may ask for a login or a licence",
    image_reader.HEIC: "convert them to JPEG, for example with ImageMagick: mogrify -format jpg FOLDER/*",
    image_reader.DICOM: "convert them to 8-bit PNG, with the window that shows what matters",
    image_reader.TRANSPARENT: "remove the transparency, for example with ImageMagick: "
    "mogrify -background white -alpha remove -alpha off FOLDER/*.png",
    image_reader.CMYK: "convert them to RGB, for example with ImageMagick: mogrify -colorspace sRGB FOLDER/*.jpg",
    image_reader.DENIED: "grant the permission (`chmod -R u+r FOLDER`)",
    image_reader.EMPTY: _DOWNLOAD,
    "corrupt": _DOWNLOAD,
}
"""Reason for which an image is not used, without what is in brackets → fix, if all have that reason."""

CHUNK_IMAGES = 32
"""Maximum number of images per task: one image per task would cost a sixth of the throughput."""
FIRST_IMAGES = 32
"""Images that are read before too many unusable ones fail the run, to show whether they have one reason."""
MAX_PENDING_TASKS = 16
"""Maximum number of tasks per worker that are queued or finished but not yet consumed."""
MAX_PENDING_BYTES = 256 * 2**20
"""Maximum size of the pixels of these tasks, in all, unless each worker has one image; it bounds the memory."""

WORKER_BYTES = 720 * 2**20
"""Peak memory of a worker: an image of `image_reader.MAX_PIXELS` pixels, its alpha channel, and a copy as RGB."""
PARENT_BYTES = 2**30
"""Memory that is left to the process that collects the images."""


def count_workers() -> int:
    """Return the number of worker processes for which this container has CPUs and memory, at least 1."""
    return max(1, min(usable_cpus(), (usable_memory_bytes() - PARENT_BYTES) // WORKER_BYTES))


def limit_pending(workers: int, size: int) -> tuple[int, int]:
    """Return the number of images per task and of tasks that wait, for `workers` and images of `size` × `size` px."""
    pending = max(MAX_PENDING_BYTES // (3 * size**2), workers)
    chunk = min(CHUNK_IMAGES, max(1, pending // (2 * workers)))
    return chunk, min(MAX_PENDING_TASKS * workers, pending // chunk)


@dataclass
class Findings:
    """Observations made while reading, for the data profile.

    Attributes:
        skipped: (image id, reason) of each row that could not be used.
        notes: number of images that were converted and used, by conversion: grey, palette, ….
        sizes: number of original images by (width, height).
        without_row: number of image files without a row.
        unused: number of images that the split excludes.
        moved: the images that were moved to train, with their former split.
        repeated: number of images that are pixel-identical to another lesion's image in the same split.
        excluded: number of them that are excluded, because they are in validation or test.
        contradictory: number of images that are pixel-identical to an image of another class.
        samples: PNG bytes of the first training images of each class.
    """

    skipped: list[tuple[str, str]] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    without_row: int = 0
    unused: int = 0
    moved: pd.DataFrame = field(default_factory=pd.DataFrame)
    repeated: int = 0
    excluded: int = 0
    contradictory: int = 0
    samples: dict[str, list[bytes]] = field(default_factory=dict)

    def refuse_more_than(self, max_bad_images: int) -> None:
        """Raise a `UserError` if more rows were skipped; if all for one reason, it states this reason's fix."""
        if len(self.skipped) <= max_bad_images:
            return
        listed = "; ".join(f"{name}: {reason}" for name, reason in self.skipped[:5])
        hint = "fix or remove them, or raise max_bad_images"
        reasons = list(dict.fromkeys(reason for _, reason in self.skipped))
        kinds = {reason if reason in FIXES else reason.partition(" (")[0] for reason in reasons}
        if len(kinds) == 1:
            listed = f"{reasons[0]}: {', '.join(name for name, _ in self.skipped[:5])}"
            hint = FIXES.get(kinds.pop(), hint)
        raise UserError(
            f"more than {max_bad_images} images are unusable ({listed}{'; …' if len(self.skipped) > 5 else ''})",
            hint,
            "images.too_many_unusable",
            limit=max_bad_images,
            count=len(self.skipped),
        )


@dataclass
class Decoded:
    """The usable images.

    Attributes:
        rows: N rows of metadata with pixel_sha256, perceptual_hash and file, the number of the file that shows the
            image; the index is 0 … N − 1.
        thumbnails: (F, 32, 32) uint8, grey, of each file.
    """

    rows: pd.DataFrame
    thumbnails: np.ndarray
    _spool: BinaryIO
    _ends: np.ndarray

    def png(self, rows: Sequence[int] | pd.Index) -> list[bytes]:
        """Return the PNG bytes of the rows with these indices."""
        last = self.rows["file"].to_numpy()[rows]
        starts = np.where(last > 0, self._ends[last - 1], 0)
        return [
            os.pread(self._spool.fileno(), end - start, start)
            for start, end in zip(starts.tolist(), self._ends[last].tolist(), strict=True)
        ]


def _start_worker(parent: int) -> None:
    gc.freeze()  # a collection would copy the pages of all objects of the parent
    warnings.simplefilter("ignore")  # Pillow warns about images that are rejected
    die_with(parent)


def _read_chunk(files: list[image_reader.RawImage], size: int) -> list[image_reader.Accepted | str]:
    return [image_reader.read(file, size) for file in files]


@contextmanager
def open_pool() -> Iterator[ProcessPoolExecutor]:
    """Yield worker processes for `read_in_order`; with threads, the interpreter lock costs a fifth of the throughput.

    Raises:
        UserError: `process.killed`.
    """
    # A fork of a process with threads can wait for a lock forever, and TensorFlow has threads.
    context = multiprocessing.get_context("spawn" if "tensorflow" in sys.modules else None)
    pool = ProcessPoolExecutor(count_workers(), context, initializer=_start_worker, initargs=(os.getpid(),))
    try:
        with explain_killed():
            yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def read_in_order(
    pool: ProcessPoolExecutor, files: Iterable[image_reader.RawImage], size: int
) -> Iterator[image_reader.Accepted | str]:
    """Read files in parallel and yield the results of `image_reader.read` in order; see `limit_pending`."""
    waiting: deque[Future[list[image_reader.Accepted | str]]] = deque()
    chunk, tasks = limit_pending(count_workers(), size)
    left = iter(files)
    while some := list(islice(left, chunk)):
        waiting.append(pool.submit(_read_chunk, some, size))
        if len(waiting) >= tasks:
            yield from waiting.popleft().result()
    while waiting:
        yield from waiting.popleft().result()


def number_files(files: Iterable[image_reader.RawImage]) -> np.ndarray:
    """Return the number of each image's file, in the order of first use: names of one file have the same number.

    Size and time are compared, too, because some network file systems number their files more than once.

    Returns:
        (N,) int64, from 0.
    """
    # Device, inode, size and time; or the row, of an image within a file.
    keys = [array("q") for _ in range(4)]
    for row, file in enumerate(files):
        try:
            status = file.stat() if isinstance(file, Path) else None
        except OSError:
            status = None
        if status is None or not status.st_ino:
            values = (-1, row, 0, 0)
        else:
            # Device and inode may need all 64 bits.
            values = (_signed(status.st_dev), _signed(status.st_ino), status.st_size, status.st_mtime_ns)
        for key, value in zip(keys, values, strict=True):
            key.append(value)
    numbers = np.zeros(len(keys[0]), np.int64)
    while keys:  # one by one, as grouping by all of them needs several times the memory
        codes, different = pd.factorize(np.frombuffer(keys.pop(), np.int64))
        numbers = pd.factorize(numbers * len(different) + codes)[0]
    return numbers


def _signed(number: int) -> int:
    """Return the signed number with the lowest 64 bits of this one."""
    return (number + 2**63) % 2**64 - 2**63


def _hexadecimal(digests: np.ndarray, rows: np.ndarray) -> pd.Categorical:
    """Return some rows of (N, B) uint8 as texts in hexadecimal, each different one in memory once."""
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    once, number_of = np.unique(np.ascontiguousarray(digests).view(f"V{digests.shape[1]}").ravel(), return_inverse=True)
    different = once.view(np.uint8).reshape(-1, digests.shape[1])
    texts = digits[np.stack([different >> 4, different & 15], axis=2)]
    offsets = np.arange(len(different) + 1) * (2 * digests.shape[1])
    names = pa.LargeStringArray.from_buffers(len(different), pa.py_buffer(offsets), pa.py_buffer(texts))
    return pd.Categorical.from_codes(number_of[rows], names.to_pandas())


def map_thumbnails(file: BinaryIO, count: int) -> np.ndarray:
    """Return `count` thumbnails in a file, (count, 32, 32) uint8, which the operating system reads when they are used.

    They are mapped once they are written: a write through the mapping to a full disk would kill the process (SIGBUS).
    """
    file.flush()
    shape = (count, THUMBNAIL_PX, THUMBNAIL_PX)
    return np.memmap(file, np.uint8, "r", shape=shape) if count else np.empty(shape, np.uint8)


@contextmanager
def decode(
    table: pd.DataFrame,
    files: ImageFiles,
    size: int,
    findings: Findings,
    max_bad_images: int,
    label: str,
) -> Iterator[Decoded]:
    """Decode and resize the image of each row; record the unusable ones in `findings`.

    Args:
        table: image_id of each image, and further columns that are passed through.
        files: the file of each image.
        size: height and width to scale to, in pixels.
        findings: extended in place.
        max_bad_images: maximum number of unusable images, including those already in `findings`.
        label: label of the progress lines.

    Raises:
        UserError: too many images are unusable.
    """
    with ExitStack() as stack:
        spool: BinaryIO = stack.enter_context(tempfile.TemporaryFile(prefix="counterweight-"))
        pool = stack.enter_context(open_pool())
        progress, finished = Progress(label, len(table), "images"), 0
        names = table["image_id"].array
        positions = files.find(iterate(table["image_id"]))
        file_of = number_files(files.at(position) for position in positions)
        first = np.flatnonzero(~pd.Series(file_of).duplicated())
        number_of, ends, digests = np.full(len(first), -1), array("q"), bytearray()
        mapped: BinaryIO = stack.enter_context(tempfile.TemporaryFile(prefix="counterweight-"))
        results = read_in_order(pool, (files.at(position) for position in positions[first]), size)
        counts = np.bincount(file_of, minlength=len(first)).tolist()
        for file, (count, result) in enumerate(zip(counts, results, strict=True)):
            finished += count
            progress.update(finished)
            if isinstance(result, str):
                rows_of = np.flatnonzero(file_of == file) if count > 1 else first[file : file + 1]
                findings.skipped += [(names[row], result) for row in rows_of]
                if file >= FIRST_IMAGES:
                    findings.refuse_more_than(max_bad_images)
                continue
            findings.notes.update(dict.fromkeys(result.notes, count))
            findings.sizes[result.size] += count
            spool.write(result.png)
            mapped.write(result.thumbnail)
            digests += bytes.fromhex(result.pixel_sha256)
            number_of[file] = len(ends)
            ends.append((ends[-1] if ends else 0) + len(result.png))
        findings.refuse_more_than(max_bad_images)
        spool.flush()
        thumbnails = map_thumbnails(mapped, len(ends))
        numbers = number_of[file_of]
        usable = numbers >= 0
        rows = (
            (table if usable.all() else table[usable])
            .reset_index(drop=True)
            .assign(file=numbers[usable].astype(np.int32))
        )
        del table, files, names, positions  # the paths are not needed any more
        pixels = np.frombuffer(digests, np.uint8).reshape(-1, 32)
        for column, each in (
            ("pixel_sha256", pixels),
            ("perceptual_hash", hash_words(thumbnails).view(np.uint8)),
        ):
            rows[column] = _hexadecimal(each, rows["file"].to_numpy())
        yield Decoded(rows, thumbnails, spool, np.frombuffer(ends, np.int64))
