"""At most one run at a time writes to a folder of results."""

from pathlib import Path

import pytest

from counterweight.output_lock import lock_output
from tests.helpers.errors import raises_user_error


def test_lock_output_of_a_folder_in_use_raises(tmp_path: Path):
    with lock_output(tmp_path / "out"), raises_user_error("run.output_in_use"), lock_output(tmp_path / "out"):
        pass
    with lock_output(tmp_path / "out"), lock_output(tmp_path / "other"):
        pass


def test_lock_output_through_a_link_raises(tmp_path: Path):
    (tmp_path / "link").symlink_to(tmp_path / "out")
    with lock_output(tmp_path / "out"), raises_user_error("run.output_in_use"), lock_output(tmp_path / "link"):
        pass


def test_lock_output_removes_only_an_empty_folder_that_it_created(tmp_path: Path):
    (tmp_path / "mine").mkdir()
    with lock_output(tmp_path / "mine"):
        pass
    with lock_output(tmp_path / "empty"):
        assert (tmp_path / "empty").is_dir()
    with pytest.raises(KeyboardInterrupt), lock_output(tmp_path / "interrupted"):
        raise KeyboardInterrupt
    with lock_output(tmp_path / "full"):
        (tmp_path / "full" / "report.html").touch()
    assert {path.name for path in tmp_path.iterdir()} == {"full", "mine"}
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["report.html"]
