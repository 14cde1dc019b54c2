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
    errno.ENOTDIR: "a file stands where a folder is needed; choose another folder",
    errno.EEXIST: "a file stands where a folder is needed; choose another folder",
    errno.EISDIR: "a folder stands where a file is to be written; choose another name",
    errno.ENAMETOOLONG: "the name is too long for the file system; choose a shorter one",
}


def printable(text: str) -> str:
    """The text on one line that any terminal and any UTF-8 file takes: what can't be printed stands there escaped.

    Names of files and rows are another's input: they may hold line breaks, or bytes that are no text.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class UserError(Exception):
    """What the user asked for can't be done. The message is one sentence with the mend, on one line."""

    def __init__(self, sentence: str) -> None:
        super().__init__(printable(sentence))


def as_user_error(error: BaseException) -> UserError | None:
    """The user's side of an error: itself, or a full disk or a missing permission as a sentence; None for a bug."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, UserError):
            return seen
        if isinstance(seen, OSError) and seen.errno in _STORAGE:
            place = f"{seen.filename}: " if seen.filename else ""
            return UserError(f"{place}{_STORAGE[seen.errno]}.")
        if isinstance(seen, FileNotFoundError) and "usable temporary directory" in str(seen):  # so says `tempfile`
            return UserError("no folder for temporary files can be written; free some space, or set TMPDIR to another.")
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
