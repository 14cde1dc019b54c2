"""Lock the folder of results: two runs in different directories have different caches, but may have the same OUT."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from components.shared.errors import UserError


@contextlib.contextmanager
def lock_output(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder of results; one that is created for it is removed at the end if it is empty.

    The lock is on the folder itself, so it leaves no file among the results and ends with the process.

    Raises:
        UserError: `run.output_in_use`.
    """
    existed = folder.is_dir()
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another run writes to {folder}",
                "wait until it has finished, or choose another OUT",
                "run.output_in_use",
                path=str(folder),
            ) from None
        except OSError:  # some network file systems have no locks
            pass
        try:
            yield
        finally:
            if not existed:
                with contextlib.suppress(OSError):  # it is not empty
                    folder.rmdir()
    finally:
        os.close(handle)
