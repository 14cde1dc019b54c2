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


@pytest.mark.parametrize(
    ("file", "suffix"),
    [
        ("mel/0.pgm", ".pgm"),
        ("mel/0.PPM", ".PPM"),
        ("mel/0.jpg_large", ".jpg_large"),
        ("mel/0.jpg~", ".jpg~"),
        ("mel/2019/0.nii.gz", ".nii.gz"),
        ("mel/IM0001", ""),
        ("nv/0.webp.part", ".part"),
    ],
)
def test_read_a_file_of_a_class_that_may_be_an_image_raises(raw, file, suffix):
    lay_out(raw, *images("nv", "df"), file)
    with raises_user_error("images.unsupported_suffix", suffix=suffix, count=1) as caught:
        layouts.inspect(raw)
    assert f"such as {file} (" in str(caught.value)


def test_read_files_of_a_class_that_are_no_images_is_not_an_error(raw):
    lay_out(raw, *images("set/train/nv", "set/train/mel"), "set/model.bin", "set/train/list.dat", "code/main.rs")
    others = ("a.txt", "a.XML", "a.json", "a.txt~", "Thumbs.db", "README", "sha256sums", "desktop.ini", "notes.ipynb")
    lay_out(raw, *(f"set/train/nv/{name}" for name in others))
    assert classes(raw) == {"mel": 4, "nv": 4}


@pytest.mark.parametrize(
    ("files", "suffix", "count"),
    [
        (("nv/1.dcm", "nv/2.dcm", "mel/1.dcm"), ".dcm", 3),
        (("nv/1.pgm", "nv/2.pgm", "mel/1.pnm", "preview.png", "about.json"), ".pgm", 2),
        (("nv/IM1", "mel/IM1"), "", 2),
        (("nv/1.nii.gz", "mel/1.nii.gz"), ".nii.gz", 2),
    ],
)
def test_read_class_folders_without_an_image_that_is_read_names_the_suffix(raw, files, suffix, count):
    lay_out(raw, *files)
    with raises_user_error("images.unsupported_suffix", suffix=suffix, count=count):
        layouts.inspect(raw)


def test_read_rows_whose_images_are_packed_volumes_names_the_suffix(raw):
    lay_out(raw, "a.nii.gz", "b.nii.gz")
    (raw / "labels.csv").write_text("image,label\na,nv\nb,mel\n")
    cause = layouts.inspect(raw).cause
    assert cause is not None
    assert (cause.code, cause.fields) == ("images.unsupported_suffix", {"suffix": ".nii.gz", "count": 2})
