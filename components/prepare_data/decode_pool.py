"""All images of a source, decoded in processes; their PNG bytes wait in a scratch file until the split is known."""

import ctypes
import os
import signal
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd

from components.prepare_data import image_reader
from components.prepare_data.near_duplicates import SIDE, perceptual_hashes
from components.shared.errors import UserError
from components.shared.log import Progress

CHUNK = 32
"""Images a task: handing them over one by one costs a sixth of the rate."""
AHEAD = 16
"""Tasks that wait or are done before the reader comes to them, so that memory stays bounded."""


@dataclass
class Findings:
    """What was seen on the way, for the data profile.

    Attributes:
        left_out: (image id, reason) of each row that could not be used.
        notes: how many images were grey, had a palette, …, and were used.
        sizes: how many originals had which (width, height).
        without_row: image files that no row names.
        unused: how many images the split leaves out.
        moved: the images that were moved to train, as they stood before.
        twins: images whose pixels are those of another lesion's image on the same side.
        samples: PNG bytes of the first training images of each class.
    """

    left_out: list[tuple[str, str]] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    without_row: int = 0
    unused: int = 0
    moved: pd.DataFrame = field(default_factory=pd.DataFrame)
    twins: int = 0
    samples: dict[str, list[bytes]] = field(default_factory=dict)

    def refuse_more_than(self, max_bad_images: int) -> None:
        """Raises a UserError where more rows were left out."""
        if len(self.left_out) > max_bad_images:
            listed = "; ".join(f"{name}: {reason}" for name, reason in self.left_out[:5])
            raise UserError(
                f"more than {max_bad_images} images are unusable ({listed}{'; …' if len(self.left_out) > 5 else ''})",
                "fix or remove them, or raise max_bad_images",
                "images.too_many_unusable",
                limit=max_bad_images,
                count=len(self.left_out),
            )


@dataclass
class Decoded:
    """The images that can be used.

    Attributes:
        rows: (N rows) the metadata with pixel_sha256 and perceptual_hash; the index counts from 0.
        thumbnails: (N, 32, 32) uint8, grey.
    """

    rows: pd.DataFrame
    thumbnails: np.ndarray
    _file: BinaryIO
    _ends: np.ndarray

    def png(self, rows: Sequence[int] | pd.Index) -> list[bytes]:
        """The PNG bytes of some rows, by their index."""
        starts = np.concatenate([[0], self._ends])
        return [os.pread(self._file.fileno(), int(starts[row + 1] - starts[row]), int(starts[row])) for row in rows]


def _die_with_parent(parent: int) -> None:
    """Has Linux kill this worker with the phase: it would wait for work for ever."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it was killed before we could ask
            os._exit(1)


def _read(paths: list[Path], size: int) -> list[image_reader.Accepted | str]:
    return [image_reader.read(path, size) for path in paths]


def _in_order(pool: ProcessPoolExecutor, paths: list[Path], size: int) -> Iterator[image_reader.Accepted | str]:
    """Reads files in parallel and gives the results in order."""
    waiting: deque[Future[list[image_reader.Accepted | str]]] = deque()
    for start in range(0, len(paths), CHUNK):
        waiting.append(pool.submit(_read, paths[start : start + CHUNK], size))
        if len(waiting) > AHEAD:
            yield from waiting.popleft().result()
    while waiting:
        yield from waiting.popleft().result()


@contextmanager
def decode(
    table: pd.DataFrame, files: dict[str, Path], size: int, findings: Findings, max_bad_images: int, label: str
) -> Iterator[Decoded]:
    """Decodes and resizes the image of each row; what can't be used goes into `findings`.

    Args:
        table: image_id and whatever else of each image.
        files: image id → file.
        size: height and width to scale to, in pixels.
        findings: is added to.
        max_bad_images: so many may be unusable, those that already stand in `findings` among them.
        label: of the progress.

    Raises:
        UserError: too many can't be used.
    """
    with ExitStack() as stack:
        spool: BinaryIO = stack.enter_context(tempfile.TemporaryFile(prefix="counterweight-"))
        # Processes: with threads the interpreter's lock costs a fifth of the codecs' rate.
        pool = ProcessPoolExecutor(initializer=_die_with_parent, initargs=(os.getpid(),))
        stack.callback(pool.shutdown, cancel_futures=True)
        progress = Progress(label, len(table), "images")
        names = table["image_id"].tolist()
        used: list[int] = []
        ends: list[int] = []
        pixels: list[str] = []
        thumbnails = np.empty((len(table), SIDE, SIDE), np.uint8)
        for row, result in enumerate(_in_order(pool, [files[name] for name in names], size)):
            progress.update(row + 1)
            if isinstance(result, str):
                findings.left_out.append((names[row], result))
                findings.refuse_more_than(max_bad_images)
                continue
            findings.notes.update(result.notes)
            findings.sizes[result.size] += 1
            spool.write(result.png)
            thumbnails[len(used)] = np.frombuffer(result.thumbnail, np.uint8).reshape(SIDE, SIDE)
            used.append(row)
            ends.append(spool.tell())
            pixels.append(result.pixel_sha256)
        spool.flush()
        thumbnails = thumbnails[: len(used)]
        hashes = perceptual_hashes(thumbnails)
        rows = table.iloc[used].reset_index(drop=True)
        rows = rows.assign(
            pixel_sha256=pd.Series(pixels, dtype=object), perceptual_hash=pd.Series(hashes, dtype=object)
        )
        yield Decoded(rows, thumbnails, spool, np.array(ends, np.int64))
