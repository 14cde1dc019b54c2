"""Which errors of a phase become the message of its pod, by which the retry policy recognises them."""

import errno
from pathlib import Path

import pytest

from components.shared import errors
from components.shared.errors import ERROR_RECORD_PREFIX, UserError, exit_on_user_error
from components.shared.storage import NoAnswerError


def message_of(error: Exception, path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    path.touch()
    monkeypatch.setattr(errors, "TERMINATION_LOG", path)
    with pytest.raises((SystemExit, ValueError)), exit_on_user_error():
        raise error
    return path.read_text(encoding="utf-8")


def test_user_error_becomes_the_message_of_the_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    message = message_of(UserError("x is 1", "give 2", "x.bad", value=1), tmp_path / "log", monkeypatch)
    assert UserError.from_json(message.removeprefix(ERROR_RECORD_PREFIX)).code == "x.bad"


@pytest.mark.parametrize(
    "error",
    [NoAnswerError("no answer", "wait", "storage.no_answer"), OSError(errno.ENOSPC, "full"), ValueError("bug")],
)
def test_error_that_may_pass_leaves_the_message_empty(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert message_of(error, tmp_path / "log", monkeypatch) == ""


def test_message_of_the_pod_is_cut_to_what_kubernetes_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    message = message_of(UserError("ä" * 9_000, code="x.long"), tmp_path / "log", monkeypatch)
    assert len(message.encode()) <= errors.TERMINATION_LOG_BYTES
    assert message.startswith(ERROR_RECORD_PREFIX)
