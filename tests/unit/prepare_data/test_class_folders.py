"""Class folders of sets as people keep them: no class is lost, and no other folder becomes one."""

from pathlib import Path

import pytest

from components.prepare_data import layouts
from components.prepare_data.scan import scan
from tests.helpers.errors import raises_user_error


@pytest.fixture
def raw(tmp_path):
    return tmp_path / "raw"


def lay_out(folder: Path, *names: str) -> Path:
    """Create empty files, which `inspect` does not open, and the folders whose names end with a slash."""
    for name in names:
        path = folder / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.touch()
    return folder


def images(*folders: str, count: int = 4) -> list[str]:
    """Return names of images that differ, in each folder."""
    return [f"{folder}/{at}-{number}.jpg" for at, folder in enumerate(folders) for number in range(count)]


def classes(folder: Path) -> dict[str, int]:
    return {str(dx): int(count) for dx, count in layouts.inspect(folder).table["dx"].value_counts().items()}


def test_scan_lists_folders_without_files(tmp_path):
    lay_out(tmp_path, "a/", "b/c/d/", "b/e/", "f/g/", "f/h/i.txt", "j/k/.hidden", "l/m.jpg")
    empty = [Path(path).relative_to(tmp_path).as_posix() for path in scan(tmp_path).empty]
    assert empty == ["a", "b", "b/c", "b/c/d", "b/e", "f/g", "j", "j/k"]
    assert scan(tmp_path / "a").empty == [str(tmp_path / "a")]


@pytest.mark.parametrize(
    ("around", "empty"),
    [
        ("", "df/"),
        ("", "df/2019/"),
        ("", "df/.gitkeep"),
        ("set/", "df/"),
        ("train/", "df/"),
        ("train/", "../test/df/"),
    ],
)
def test_read_an_empty_class_folder_raises(raw, around, empty):
    lay_out(raw, *images(f"{around}nv", f"{around}mel"), f"{around}{empty}")
    with raises_user_error("folders.empty_class", folders=["df"]):
        layouts.inspect(raw)


@pytest.mark.parametrize(
    "empty", ["val/nv/", "val/", "train/nv/left/", "train/unlabelled/", "notes/", "train/notes/readme.txt"]
)
def test_read_an_empty_folder_that_is_no_class_is_not_an_error(raw, empty):
    lay_out(raw, *images("train/nv", "train/mel", "test/nv", "test/mel"), empty)
    assert classes(raw) == {"mel": 8, "nv": 8}


def test_read_a_table_beside_an_empty_folder_is_not_an_error(raw):
    lay_out(raw, "images/a.jpg", "images/b.jpg", "df/")
    (raw / "labels.csv").write_text("image,label\na,nv\nb,mel\n")
    assert classes(raw) == {"mel": 1, "nv": 1}
