"""A user's mistake, told apart from a bug: one sentence that says what is wrong and how to mend it, exit code 2."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager

EXIT_USER = 2
ERROR_PREFIX = "counterweight error: "

_STORAGE = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
    errno.EFBIG: "the file grew over the size limit of this process or file system; raise it (ulimit -f)",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EACCES: "permission denied; choose a folder that this user may read and write",
    errno.EPERM: "permission denied; choose a folder that this user may read and write",
}


class UserError(Exception):
    """What the user asked for can't be done. The message is one sentence with the mend."""


def as_user_error(error: BaseException) -> UserError | None:
    """The user's side of an error: itself, or a full disk or a missing permission as a sentence; None for a bug."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, UserError):
            return seen
        if isinstance(seen, OSError) and seen.errno in _STORAGE:
            place = f"{seen.filename}: " if seen.filename else ""
            return UserError(f"{place}{_STORAGE[seen.errno]}.")
        seen = seen.__cause__ or seen.__context__
    return None


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Ends the process with the sentence and exit code 2 on a user's mistake; a bug keeps its traceback."""
    try:
        yield
    except Exception as error:
        mistake = as_user_error(error)
        if mistake is None:
            raise
        print(f"{ERROR_PREFIX}{mistake}", flush=True)
        sys.exit(EXIT_USER)
