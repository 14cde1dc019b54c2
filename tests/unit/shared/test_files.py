"""Files are complete or absent, even if the writer is killed."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from components.shared import files
from components.shared.files import (
    TEMPORARY_PREFIX,
    atomic_folder,
    atomic_write,
    atomic_writes,
    file_sha256,
    write_text,
)

ROOT = Path(__file__).resolve().parents[3]


def list_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fail_after_writing_one(error: type[BaseException], *paths: Path) -> None:
    with atomic_writes(*paths) as parts:
        parts[0].write_text("new")
        raise error


@contextmanager
def umask(mode: int) -> Iterator[None]:
    before = os.umask(mode)
    try:
        yield
    finally:
        os.umask(before)


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> dict[int, bytes]:
    """Inode → content of each file at the time at which it was synced."""
    contents: dict[int, bytes] = {}
    original = os.fsync

    def fsync(handle: int) -> None:
        contents[os.fstat(handle).st_ino] = os.pread(handle, 100, 0)
        original(handle)

    monkeypatch.setattr(files.os, "fsync", fsync)
    return contents


def test_atomic_write_names_the_file_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "result.json"
    with atomic_write(path) as part:
        assert part.parent == path.parent
        assert part.suffix == ".json"
        part.write_text("complete")
        assert not path.exists()
    assert path.read_text() == "complete"
    assert list_names(path.parent) == ["result.json"]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_atomic_write_follows_the_umask(tmp_path: Path, mask: int, mode: int) -> None:
    with umask(mask):
        write_text(tmp_path / "result", "")
    assert (tmp_path / "result").stat().st_mode & 0o777 == mode


def test_atomic_write_syncs_the_content_before_the_name_exists(tmp_path: Path, synced: dict[int, bytes]) -> None:
    write_text(tmp_path / "result", "complete")
    assert synced == {(tmp_path / "result").stat().st_ino: b"complete"}


def test_atomic_folder_syncs_its_files(tmp_path: Path, synced: dict[int, bytes]) -> None:
    with atomic_folder(tmp_path / "folder") as part:
        (part / "models").mkdir()
        (part / "models" / "a").write_text("complete")
    assert synced == {(tmp_path / "folder" / "models" / "a").stat().st_ino: b"complete"}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_atomic_write_with_an_error_keeps_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "result"
    write_text(path, "old")
    with pytest.raises(error):
        fail_after_writing_one(error, path)
    assert path.read_text() == "old"
    assert list_names(tmp_path) == ["result"]


def test_write_text_is_utf_8_with_unchanged_line_ends(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "é\n×\r\n")
    assert (tmp_path / "a").read_bytes() == "é\n×\r\n".encode()
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "a", "\udcff")
    assert list_names(tmp_path) == ["a"]


def test_atomic_writes_renames_all_files_together(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a", "b", "c")]
    with atomic_writes(*paths) as parts:
        for part in parts:
            part.write_text("new")
        assert not any(path.exists() for path in paths)
    assert [path.read_text() for path in paths] == ["new"] * 3
    paths[0].write_text("old")
    with pytest.raises(RuntimeError):
        fail_after_writing_one(RuntimeError, *paths)
    assert [path.read_text() for path in paths] == ["old", "new", "new"]
    assert list_names(tmp_path) == ["a", "b", "c"]


def test_atomic_writes_with_a_folder_of_that_name_fails_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    with pytest.raises(IsADirectoryError), atomic_writes(tmp_path / "a", tmp_path / "b"):
        pytest.fail("the block was entered")
    assert list_names(tmp_path) == ["b"]


def test_atomic_write_of_a_killed_process_leaves_no_file_of_that_name(tmp_path: Path) -> None:
    script = f"""
import time
from components.shared.files import atomic_write
with atomic_write({str(tmp_path / "result")!r}) as part, part.open("w") as file:
    file.write("half")
    file.flush()
    print("writing", flush=True)
    time.sleep(60)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
        writer.kill()
        assert writer.wait(50) == -9
    (leftover,) = list_names(tmp_path)
    assert leftover.startswith(TEMPORARY_PREFIX)
    write_text(tmp_path / "result", "complete")  # the leftover does not disturb the next writer
    assert (tmp_path / "result").read_text() == "complete"


def test_atomic_folder_replaces_the_old_folder_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a" / "folder"
    with atomic_folder(path) as part:
        assert part.parent == path.parent
        (part / "one").write_text("1")
        assert not path.exists()
    assert list_names(path) == ["one"]
    with atomic_folder(path) as part:
        (part / "two").write_text("2")
    assert list_names(path) == ["two"]
    with pytest.raises(FileNotFoundError), atomic_folder(path) as part:
        (part / "three" / "four").write_text("")
    assert list_names(path) == ["two"]
    assert list_names(path.parent) == ["folder"]


def test_atomic_folder_follows_the_umask(tmp_path: Path) -> None:
    with umask(0o002), atomic_folder(tmp_path / "folder"):
        pass
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o775


def test_file_sha256_of_a_large_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    assert file_sha256(tmp_path / "a") == hashlib.sha256(b"x" * 3_000_000).hexdigest()
