"""Files are whole or absent, also where the writer is killed; and what went wrong is a sentence."""

import errno
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.shared.errors import (
    ERROR_RECORD_PREFIX,
    ExitCode,
    UserError,
    as_user_error,
    exit_on_user_error,
    printable,
)
from components.shared.files import atomic_folder, atomic_write, atomic_writes, file_sha256, write_text

ROOT = Path(__file__).resolve().parents[3]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def fail_half_way(error, *paths):
    with atomic_writes(*paths) as parts:
        parts[0].write_text("new")
        raise error


def test_the_name_stands_at_the_end_only(tmp_path):
    path = tmp_path / "a" / "b" / "result.json"
    with atomic_write(path) as part:
        assert part.parent == path.parent
        assert part.suffix == ".json"
        part.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert names(path.parent) == ["result.json"]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "result"
    write_text(path, "old")
    with pytest.raises(error):
        fail_half_way(error, path)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["result"]


def test_text_is_utf_8_with_its_line_ends(tmp_path):
    write_text(tmp_path / "a", "é\n×\r\n")
    assert (tmp_path / "a").read_bytes() == "é\n×\r\n".encode()
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "a", "\udcff")
    assert names(tmp_path) == ["a"]


def test_files_that_belong_together_are_renamed_together(tmp_path):
    paths = [tmp_path / name for name in ("a", "b", "c")]
    with atomic_writes(*paths) as parts:
        for part in parts:
            part.write_text("new")
        assert not any(path.exists() for path in paths)
    assert [path.read_text() for path in paths] == ["new"] * 3
    paths[0].write_text("old")
    with pytest.raises(RuntimeError):
        fail_half_way(RuntimeError, *paths)
    assert [path.read_text() for path in paths] == ["old", "new", "new"]
    assert names(tmp_path) == ["a", "b", "c"]


def test_a_folder_in_the_way_is_seen_at_once(tmp_path):
    (tmp_path / "b").mkdir()
    with pytest.raises(IsADirectoryError), atomic_writes(tmp_path / "a", tmp_path / "b"):
        pytest.fail("the work was begun")
    assert names(tmp_path) == ["b"]


def test_a_killed_writer_leaves_no_file_under_the_name(tmp_path):
    script = f"""
import sys, time
from components.shared.files import atomic_write
with atomic_write({str(tmp_path / "result")!r}) as part, part.open("w") as file:
    file.write("half")
    file.flush()
    print("writing", flush=True)
    time.sleep(60)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "writing\n"
        writer.kill()
        assert writer.wait(10) == -9
    assert not (tmp_path / "result").exists()
    write_text(tmp_path / "result", "whole")  # and the next one is not in the dead one's way
    assert (tmp_path / "result").read_text() == "whole"


def test_hash(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    assert file_sha256(tmp_path / "a") == hashlib.sha256(b"x" * 3_000_000).hexdigest()


# Errors.


def test_printable():
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
def test_as_user_error_of_an_os_error_has_its_code_and_path(number, code):
    error = OSError(number, os.strerror(number), "/some/file")
    outer = ValueError()
    outer.__cause__ = error
    for raised in (error, outer):
        user_error = as_user_error(raised)
        assert (user_error.code, user_error.fields) == (code, {"path": "/some/file"})
        assert user_error.hint


def test_a_bug_is_no_users_mistake():
    for bug in (ValueError("x"), OSError("no number"), FileNotFoundError(errno.ENOENT, "x", "y"), KeyError("x")):
        assert as_user_error(bug) is None
        with pytest.raises(type(bug)), exit_on_user_error():
            raise bug


def test_no_folder_for_temporary_files(monkeypatch):
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc/nowhere"])
    with pytest.raises(FileNotFoundError) as caught, tempfile.TemporaryDirectory():
        pass
    assert as_user_error(caught.value).code == "file.no_temporary_folder"


def test_exit_on_user_error_prints_a_record_an_error_and_a_hint(capsys):
    with pytest.raises(SystemExit) as caught, exit_on_user_error():
        raise UserError("it is\nso", "fix it", "area.problem", name="x")
    assert caught.value.code == ExitCode.USER_ERROR
    record, *lines = capsys.readouterr().out.splitlines()
    assert lines == [r"error: it is\nso", "hint: fix it"]
    error = UserError.from_json(record.removeprefix(ERROR_RECORD_PREFIX))
    assert (error.message, error.hint, error.code, error.fields) == (
        r"it is\nso",
        "fix it",
        "area.problem",
        {"name": "x"},
    )
    with exit_on_user_error():
        time.sleep(0)


def test_a_folder_has_its_name_at_the_end_only_and_replaces_what_was_cut_off(tmp_path):
    path = tmp_path / "a" / "folder"
    with atomic_folder(path) as part:
        assert part.parent == path.parent
        (part / "one").write_text("1")
        assert not path.exists()
    assert names(path) == ["one"]
    with atomic_folder(path) as part:
        (part / "two").write_text("2")
    assert names(path) == ["two"]
    with pytest.raises(FileNotFoundError), atomic_folder(path) as part:
        (part / "three" / "four").write_text("")
    assert names(path) == ["two"]
    assert names(path.parent) == ["folder"]


def test_a_folder_has_the_rights_that_this_process_gives(tmp_path):
    before = os.umask(0o002)
    try:
        with atomic_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o775
