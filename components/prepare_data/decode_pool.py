"""Decode the images of a source in worker processes and keep their PNG bytes in a scratch file until the split."""

import ctypes
import multiprocessing
import os
import signal
import sys
import tempfile
import warnings
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
import pandas as pd

from components.prepare_data import image_reader
from components.prepare_data.near_duplicates import THUMBNAIL_PX, perceptual_hashes
from components.shared.errors import UserError
from components.shared.log import Progress
from components.shared.machine_limits import usable_cpus, usable_memory_bytes

FIXES = {
    image_reader.OVER_8_BITS: "convert them to 8 bits, for example with ImageMagick: mogrify -depth 8 FOLDER/*.png",
    image_reader.NO_IMAGE: "check that the files were downloaded completely: a pointer to a large file, or a web page, "
    "may have an image's name",
    image_reader.TRANSPARENT: "remove the transparency, for example with ImageMagick: "
    "mogrify -background white -alpha remove -alpha off FOLDER/*.png",
    image_reader.DENIED: "grant the permission (`chmod -R u+r FOLDER`)",
    image_reader.EMPTY: "download or copy the files again",
}
"""Reason for which an image cannot be used → fix, if all have that reason."""

CHUNK_IMAGES = 32
"""Images per task: one image per task would cost a sixth of the throughput."""
FIRST_IMAGES = 32
"""Images that are read before too many unusable ones fail the run, to show whether they have one reason."""
MAX_PENDING_TASKS = 16
"""Maximum number of tasks that are queued or finished but not yet consumed; it bounds the memory."""


WORKER_BYTES = 720 * 2**20
"""Peak memory of a worker: an image of `image_reader.MAX_PIXELS` pixels, its alpha channel, and a copy as RGB."""
PARENT_BYTES = 2**30
"""Memory that is left to the process that collects the images."""


def count_workers() -> int:
    """Return the number of worker processes for which this container has CPUs and memory, at least 1."""
    return max(1, min(usable_cpus(), (usable_memory_bytes() - PARENT_BYTES) // WORKER_BYTES))


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
    samples: dict[str, list[bytes]] = field(default_factory=dict)

    def refuse_more_than(self, max_bad_images: int) -> None:
        """Raise a `UserError` if more rows were skipped; if all for one reason, it states this reason's fix."""
        if len(self.skipped) <= max_bad_images:
            return
        listed = "; ".join(f"{name}: {reason}" for name, reason in self.skipped[:5])
        hint = "fix or remove them, or raise max_bad_images"
        reasons = list(dict.fromkeys(reason for _, reason in self.skipped))
        if len(reasons) == 1:
            listed = f"{reasons[0]}: {', '.join(name for name, _ in self.skipped[:5])}"
            hint = FIXES.get(reasons[0], hint)
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
        rows: N rows of metadata with pixel_sha256 and perceptual_hash; the index is 0 … N − 1.
        thumbnails: (N, 32, 32) uint8, grey.
    """

    rows: pd.DataFrame
    thumbnails: np.ndarray
    _file: BinaryIO
    _ends: np.ndarray

    def png(self, rows: Sequence[int] | pd.Index) -> list[bytes]:
        """Return the PNG bytes of the rows with these indices."""
        starts = np.concatenate([[0], self._ends])
        return [os.pread(self._file.fileno(), int(starts[row + 1] - starts[row]), int(starts[row])) for row in rows]


def _start_worker(parent: int) -> None:
    """Kill the worker when its parent dies (Linux); otherwise it would block forever."""
    warnings.simplefilter("ignore")  # Pillow warns about images that are rejected
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # the parent died before the call above
            os._exit(1)


def _read_chunk(files: list[image_reader.RawImage], size: int) -> list[image_reader.Accepted | str]:
    return [image_reader.read(file, size) for file in files]


@contextmanager
def open_pool(method: str | None = None) -> Iterator[ProcessPoolExecutor]:
    """Yield worker processes for `read_in_order`; with threads, the interpreter lock costs a fifth of the throughput.

    Args:
        method: how they start, see `multiprocessing`; `spawn` if this process has threads, such as those of TensorFlow.
    """
    context = multiprocessing.get_context(method)
    pool = ProcessPoolExecutor(count_workers(), context, initializer=_start_worker, initargs=(os.getpid(),))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def read_in_order(
    pool: ProcessPoolExecutor, files: Sequence[image_reader.RawImage], size: int
) -> Iterator[image_reader.Accepted | str]:
    """Read files in parallel and yield the results of `image_reader.read` in order; at most a few are in memory."""
    waiting: deque[Future[list[image_reader.Accepted | str]]] = deque()
    for start in range(0, len(files), CHUNK_IMAGES):
        waiting.append(pool.submit(_read_chunk, list(files[start : start + CHUNK_IMAGES]), size))
        if len(waiting) > MAX_PENDING_TASKS:
            yield from waiting.popleft().result()
    while waiting:
        yield from waiting.popleft().result()


@contextmanager
def decode(
    table: pd.DataFrame,
    files: Mapping[str, image_reader.RawImage],
    size: int,
    findings: Findings,
    max_bad_images: int,
    label: str,
) -> Iterator[Decoded]:
    """Decode and resize the image of each row; record the unusable ones in `findings`.

    Args:
        table: image_id of each image, and further columns that are passed through.
        files: image id → its file.
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
        progress = Progress(label, len(table), "images")
        names = table["image_id"].tolist()
        used: list[int] = []
        sizes: list[int] = []
        pixels: list[str] = []
        # In a file, so that the operating system can drop what is not in use.
        shape = (max(1, len(table)), THUMBNAIL_PX, THUMBNAIL_PX)
        mapped = stack.enter_context(tempfile.TemporaryFile(prefix="counterweight-"))
        thumbnails: np.ndarray = np.memmap(mapped, np.uint8, "w+", shape=shape)
        for row, result in enumerate(read_in_order(pool, [files[name] for name in names], size)):
            progress.update(row + 1)
            if isinstance(result, str):
                findings.skipped.append((names[row], result))
                if row >= FIRST_IMAGES:
                    findings.refuse_more_than(max_bad_images)
                continue
            findings.notes.update(result.notes)
            findings.sizes[result.size] += 1
            spool.write(result.png)
            thumbnails[len(used)] = np.frombuffer(result.thumbnail, np.uint8).reshape(THUMBNAIL_PX, THUMBNAIL_PX)
            used.append(row)
            sizes.append(len(result.png))
            pixels.append(result.pixel_sha256)
        findings.refuse_more_than(max_bad_images)
        spool.flush()
        thumbnails = thumbnails[: len(used)]
        hashes = perceptual_hashes(thumbnails)
        rows = table.iloc[used].reset_index(drop=True)
        rows = rows.assign(
            pixel_sha256=pd.Series(pixels, dtype=object), perceptual_hash=pd.Series(hashes, dtype=object)
        )
        yield Decoded(rows, thumbnails, spool, np.cumsum(sizes, dtype=np.int64))
