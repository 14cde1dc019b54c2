"""Write files and folders completely or not at all, and hash files."""

import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY_PREFIX = ".part-"
"""Starts the name of a file or folder that is being written. Leftovers come from killed processes."""
EXTERNAL = "external.parquet"
"""Name of the external image set among the outputs of tasks. It is not published: its images may be others'."""
NOTHING = "none.txt"
"""The file of a task that had nothing to do: an artifact without a file is not cached. It is not published."""


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` on success and is removed on any error.

    Example:
        >>> with atomic_write("report.html") as part:
        ...     part.write_text("<!doctype html>…")
    """
    with atomic_writes(path) as (part,):
        yield part


@contextmanager
def atomic_writes(*paths: str | Path) -> Iterator[list[Path]]:
    """Yield temporary paths for files that belong together: none is renamed before all are written and synced.

    A temporary path is in the folder of its file and has the same suffix. Its mode follows the process's umask.

    Raises:
        IsADirectoryError: a folder has the name of a file; raised before the block, which may take hours.
    """
    parts: list[Path] = []
    try:
        finals = [Path(path) for path in paths]
        for path in finals:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
            part = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}{path.suffix}")
            part.touch(exist_ok=False)
            parts.append(part)
        yield parts
        for part in parts:
            _sync(part)
        for part, path in zip(parts, finals, strict=True):
            part.replace(path)
    except BaseException:
        for part in parts:
            part.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a new, empty folder beside `path` that takes its place on success and is removed on any error.

    An existing folder is deleted first, because a folder cannot be replaced in one step.
    """
    final = Path(path)
    part = final.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
    part.mkdir(parents=True)
    try:
        yield part
        for folder, _, names in os.walk(part):
            for name in names:
                _sync(Path(folder) / name)
        shutil.rmtree(final, ignore_errors=True)
        part.rename(final)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")


def file_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Write a file's content to the disk: after a power failure, a renamed file must not be empty."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
