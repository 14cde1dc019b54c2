"""Files that are whole or absent, and their hashes."""

import errno
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PART = ".part-"
"""What the temporary name of a file begins with; one that stays is of a process that was killed."""


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Gives a temporary name beside `path`, with its suffix; renamed to `path` on success, removed on any error."""
    with atomic_writes(path) as (part,):
        yield part


@contextmanager
def atomic_writes(*paths: str | Path) -> Iterator[list[Path]]:
    """As `atomic_write`, for files that belong together: none is renamed before all of them are on the disk."""
    parts: list[Path] = []
    try:
        finals = [Path(path) for path in paths]
        for path in finals:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():  # else this would come out at the end, after hours of work
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
            handle, name = tempfile.mkstemp(prefix=PART, suffix=path.suffix, dir=path.parent)
            os.close(handle)
            parts.append(Path(name))
        yield parts
        for part in parts:
            part.chmod(0o644)  # mkstemp gives 0600; another user may be the one who reads a result
        for part, path in zip(parts, finals, strict=True):
            part.replace(path)
    except BaseException:
        for part in parts:
            part.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Gives a new, empty folder beside `path`, which takes its place on success and is removed on any error.

    What stands there before, of an attempt that was cut off, is removed first: a folder can't be replaced in one step.
    """
    final = Path(path)
    part = final.with_name(f"{PART}{uuid.uuid4().hex}")
    part.mkdir(parents=True)  # with the rights that this process gives, unlike a folder that `tempfile` makes
    try:
        yield part
        shutil.rmtree(final, ignore_errors=True)
        part.rename(final)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def write_text(path: str | Path, text: str) -> None:
    """Writes UTF-8 text, whole or not at all."""
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
