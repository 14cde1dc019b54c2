"""User errors, storage errors that the user can fix, and bugs."""

import errno
import json
import os
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest

from components.shared.errors import (
    ERROR_RECORD_PREFIX,
    ExitCode,
    UserError,
    as_user_error,
    exit_on_user_error,
    printable,
)


def test_printable_escapes_what_cannot_be_printed() -> None:
    assert printable("a ü × “quoted” 病") == "a ü × “quoted” 病"
    assert printable("a\nb\x1b[0m\udcff\u202e\0") == r"a\nb\x1b[0m\udcff\u202e\x00"
    assert str(UserError("two\nlines")) == r"two\nlines"


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, "file.disk_full"),
        (errno.EDQUOT, "file.quota"),
        (errno.EFBIG, "file.file_too_large"),
        (errno.EROFS, "file.read_only"),
        (errno.EACCES, "file.permission"),
        (errno.EPERM, "file.permission"),
        (errno.ENOTDIR, "file.not_a_folder"),
        (errno.EISDIR, "file.is_a_folder"),
        (errno.ENAMETOOLONG, "file.name_too_long"),
    ],
)
def test_as_user_error_of_a_storage_error_has_its_code(number: int, code: str) -> None:
    error = OSError(number, os.strerror(number), "/some/file")
    wrapped = ValueError()
    wrapped.__cause__ = error
    for raised in (error, wrapped):
        user_error = as_user_error(raised)
        assert user_error is not None
        assert (user_error.code, user_error.fields) == (code, {"path": "/some/file"})
        assert user_error.retryable
        assert user_error.hint


@pytest.mark.parametrize(
    "bug", [ValueError("x"), OSError("no number"), FileNotFoundError(errno.ENOENT, "x", "y"), KeyError("x")]
)
def test_as_user_error_of_a_bug_is_none(bug: Exception) -> None:
    assert as_user_error(bug) is None
    with pytest.raises(type(bug)), exit_on_user_error():
        raise bug


def test_as_user_error_of_a_bug_that_hides_a_storage_error_is_none() -> None:
    """With `from None`, the error before is not the cause."""
    for hidden, code in ((False, "file.is_a_folder"), (True, None)):
        bug = KeyError("x")
        bug.__context__, bug.__suppress_context__ = OSError(errno.EISDIR, "x"), hidden
        error = as_user_error(bug)
        assert (error.code if error else None) == code


@pytest.mark.parametrize("error", [MemoryError(), pa.ArrowMemoryError("malloc of size 64 failed")])
def test_exhausted_memory_is_one_error_with_a_hint(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    user_error = as_user_error(error)
    assert user_error is not None
    assert (user_error.code, user_error.retryable) == ("memory.exhausted", True)
    with pytest.raises(SystemExit) as caught, exit_on_user_error():
        raise error
    assert caught.value.code == ExitCode.USER_ERROR
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()[1:]] == ["error", "hint"]


def test_as_user_error_without_a_temporary_folder_has_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(Path("/proc/missing"))])
    with pytest.raises(FileNotFoundError) as caught, tempfile.TemporaryDirectory():
        pass
    user_error = as_user_error(caught.value)
    assert user_error is not None
    assert user_error.code == "file.no_temporary_folder"


def test_exit_on_user_error_prints_a_record_and_two_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught, exit_on_user_error():
        raise UserError("size is\n50", "choose 64", "parameter.out_of_range", name="size")
    assert caught.value.code == ExitCode.USER_ERROR
    record, error, hint = capsys.readouterr().out.splitlines()
    assert json.loads(record.removeprefix(ERROR_RECORD_PREFIX)) == {
        "message": r"size is\n50",
        "hint": "choose 64",
        "code": "parameter.out_of_range",
        "fields": {"name": "size"},
    }
    assert (error, hint) == (r"error: size is\n50", "hint: choose 64")


def test_exit_on_user_error_without_an_error_continues() -> None:
    with exit_on_user_error():
        pass


def test_user_error_survives_json() -> None:
    error = UserError("size is 50", "choose 64", "parameter.out_of_range", name="size", value=50)
    copy = UserError.from_json(error.to_json())
    assert (str(copy), copy.hint, copy.code, copy.fields) == (str(error), error.hint, error.code, error.fields)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data is 'https://bob:pw@host/x?sv=1&sig=abc', which", "data is 'https://…@host/x?…', which"),
        ("s3://AKIA:KEY@bucket/x is no address", "s3://…@bucket/x is no address"),
        ("did you mean gs://bucket/a?", "did you mean gs://bucket/a?"),
        ("me@example.org asked: why?yes", "me@example.org asked: why?yes"),
    ],
)
def test_user_error_shows_no_secrets_of_addresses(text: str, expected: str) -> None:
    error = UserError(text, text, "a.b", value=text, number=1)
    assert (str(error), error.hint, error.fields) == (expected, expected, {"value": expected, "number": 1})
