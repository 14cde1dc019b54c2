"""User errors: what is wrong, how to fix it, and the exit codes of every command and phase."""

import enum
import errno
import json
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

ERROR_RECORD_PREFIX = "counterweight-error: "
"""Starts the log line that contains a phase's error as JSON, for the process that started the phase."""

TERMINATION_LOG = Path("/dev/termination-log")
"""In a pod: the file whose content Kubernetes shows as the container's message, and Argo as the task's."""
TERMINATION_LOG_BYTES = 4_096


class ExitCode(enum.IntEnum):
    """Exit codes of all commands; a phase uses the first three."""

    SUCCEEDED = 0
    FAILED = 1
    USER_ERROR = 2
    CANCELLED = 3
    TIMEOUT = 4
    UNREACHABLE = 5
    INTERRUPTED = 130

    @property
    def meaning(self) -> str:
        """One line for `--help` and the documentation."""
        return _MEANINGS[self]


_MEANINGS = {
    ExitCode.SUCCEEDED: "success",
    ExitCode.FAILED: "the run failed, or an unexpected error occurred",
    ExitCode.USER_ERROR: "invalid input or configuration; the hint describes the fix",
    ExitCode.CANCELLED: "the run was cancelled",
    ExitCode.TIMEOUT: "the time limit was reached; the run continues on the cluster",
    ExitCode.UNREACHABLE: "the Kubeflow Pipelines API is unreachable or denied access",
    ExitCode.INTERRUPTED: "interrupted by Ctrl-C or SIGTERM; a run on the cluster continues",
}

OS_ERRORS = {
    errno.ENOSPC: ("disk_full", "no space left on the disk", "free some space and rerun the command to resume"),
    errno.EDQUOT: ("quota", "the disk quota is used up", "free some space and rerun the command to resume"),
    errno.EFBIG: ("file_too_large", "the file exceeds a size limit of the process or file system", "raise `ulimit -f`"),
    errno.EROFS: ("read_only", "the file system is read-only", "choose another folder"),
    errno.EACCES: ("permission", "permission denied", "choose a folder that the current user can read and write"),
    errno.EPERM: ("permission", "permission denied", "choose a folder that the current user can read and write"),
    errno.ENOTDIR: ("not_a_folder", "a file exists where a folder is needed", "choose another folder"),
    errno.EEXIST: ("not_a_folder", "a file exists where a folder is needed", "choose another folder"),
    errno.EISDIR: ("is_a_folder", "a folder exists where a file is needed", "choose another name"),
    errno.ENAMETOOLONG: ("name_too_long", "the name is too long for the file system", "choose a shorter name"),
}  # fmt: skip


def printable(text: str) -> str:
    """Return the text on one line, with characters that cannot be printed escaped.

    File names and rows come from outside: they may contain line breaks or bytes that are not text.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def without_secrets(text: str) -> str:
    """Return the text without the passwords and query strings of its addresses, which may contain keys.

    Example:
        >>> without_secrets("https://bob:pw@host/a?sig=abc is no address")
        'https://…@host/a?… is no address'
    """
    return re.sub(r"(://[^\s'\"?]*\?)[^\s'\"]+", r"\1…", re.sub(r"(://)[^\s'\"/?@]+@", r"\1…@", text))


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """Return a hint that names what is most like an unknown word, whatever its case; empty if nothing is.

    Of two names that differ in their case only, it is the first.

    Example:
        >>> did_you_mean("preset", ["DATA", "PRESET"])
        'did you mean PRESET?'
    """
    known = {name.casefold(): name for name in reversed([*names])}
    nearest = get_close_matches(word.casefold(), known, 1)
    return f"did you mean {known[nearest[0]]}?" if nearest else ""


class UserError(Exception):
    """Input or configuration that cannot be used, with a fix.

    Args:
        message: what is wrong, including the value; lower case, no full stop. Non-printable characters are escaped,
            and secrets in addresses replaced.
        hint: what to do about it, as an imperative; lower case, no full stop.
        code: stable identifier, `<area>.<problem>`, such as `metadata.missing_column`. Tests and scripts rely on it.
        **fields: the values that the message mentions, for tests and scripts; JSON values.

    Example:
        >>> raise UserError("image_size is 50", "choose a multiple of 16", "parameter.out_of_range", name="image_size")
    """

    exit_code = ExitCode.USER_ERROR
    retryable = False
    """Whether the same task may succeed when it is repeated, on another node or later."""

    def __init__(self, message: str, hint: str = "", code: str = "unspecified", **fields: Any) -> None:
        super().__init__(printable(without_secrets(message)))
        self.hint, self.code = printable(without_secrets(hint)), code
        self.fields = {name: without_secrets(it) if isinstance(it, str) else it for name, it in fields.items()}

    @property
    def message(self) -> str:
        """What is wrong."""
        return str(self)

    def lines(self) -> str:
        """Return what a terminal shows: an `error:` line and a `hint:` line."""
        return f"error: {self}" + (f"\nhint: {self.hint}" if self.hint else "")

    def to_json(self) -> str:
        """Return the error as one line of JSON; see `from_json`."""
        return json.dumps(
            {"message": str(self), "hint": self.hint, "code": self.code, "fields": self.fields}, default=str
        )

    @classmethod
    def from_json(cls, text: str) -> "UserError":
        """Return the error that `to_json` wrote."""
        record = json.loads(text)
        return cls(record["message"], record["hint"], record["code"], **record["fields"])


def as_user_error(error: BaseException) -> UserError | None:
    """Return the user error behind an exception, or None for a bug.

    Looks along the chain of causes for a `UserError`, for an operating-system error that the user can fix, such as a
    full disk, or for exhausted memory, for which NumPy and Arrow raise subclasses of `MemoryError`.
    """
    current: BaseException | None = error
    while current is not None:
        if isinstance(current, UserError):
            return current
        if isinstance(current, OSError) and current.errno in OS_ERRORS:
            code, message, hint = OS_ERRORS[current.errno]
            path = str(current.filename) if current.filename else ""
            error_here = UserError(f"{path}: {message}" if path else message, hint, f"file.{code}", path=path)
            error_here.retryable = True
            return error_here
        if isinstance(current, MemoryError):
            error_here = UserError(
                "not enough memory",
                "use a machine with more memory, or less data at a time; check the input for files of unusual size",
                "memory.exhausted",
            )
            error_here.retryable = True
            return error_here
        if isinstance(current, FileNotFoundError) and "usable temporary directory" in str(current):  # from `tempfile`
            return UserError(
                "no folder for temporary files is writable",
                "free some space, or set TMPDIR to another folder",
                "file.no_temporary_folder",
            )
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return None


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Turn a user error into its `error:` and `hint:` lines and exit code 2; a bug keeps its traceback.

    In a pod, an error that every repetition would raise again also becomes the task's message. The retry policy in
    `manifests/workflow-controller` excludes it: Kubeflow's launcher turns every exit code into 1.
    """
    try:
        yield
    except Exception as error:
        user_error = as_user_error(error)
        if user_error is None:
            raise
        record = f"{ERROR_RECORD_PREFIX}{user_error.to_json()}"
        print(f"{record}\n{user_error.lines()}\n", end="", flush=True)  # one write, as in `log.log_line`
        if TERMINATION_LOG.exists() and not user_error.retryable:
            with suppress(OSError):
                TERMINATION_LOG.write_bytes(record.encode()[:TERMINATION_LOG_BYTES])
        sys.exit(user_error.exit_code)
