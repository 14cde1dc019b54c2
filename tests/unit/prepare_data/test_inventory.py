"""The files of an untrusted folder, and the image that a row means."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.prepare_data.layouts import matching
from components.prepare_data.layouts.inventory import Inventory, base_name, strip_suffixes, take_inventory
from components.prepare_data.layouts.matching import ImageIndex
from components.shared.errors import UserError
from tests.helpers.errors import raises_user_error


@pytest.fixture
def image():
    return Image.fromarray(np.arange(48 * 64 * 3, dtype=np.uint8).reshape(48, 64, 3))


def index(folder):
    """Return the image of each name below a folder."""
    inventory = take_inventory(folder)
    found = ImageIndex(inventory)
    return {name: found.find(name, folder) for name in {strip_suffixes(base_name(path)) for path in inventory.images}}


def test_index_finds_files_at_any_depth_and_skips_others(tmp_path, image):
    names = [
        "a.jpg", "deep/er/and/deeper/b.PNG", "c d'e\"f.jpeg", "two\nlines.jpg", "ä.jpg", "x" * 250 + ".jpg", "m.n.tiff",
    ]  # fmt: skip
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / name, "PNG")
    not_utf8 = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.jpg")
    image.save(not_utf8, "PNG")
    for name in ("._a.jpg", "__MACOSX/a.jpg", ".thumbnails/a.jpg", "notes.txt", "HAM10000_metadata.csv", "jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("other")
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "self").symlink_to(".")
    (tmp_path / "dangling.png").symlink_to("nowhere")
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    found = index(tmp_path)
    assert set(found) == {Path(name).stem for name in names} | {Path(not_utf8).stem}
    assert found["a"] == str(tmp_path / "a.jpg")


def test_index_follows_a_link_to_a_file_but_not_to_a_folder(tmp_path, image):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "raw").mkdir()
    image.save(tmp_path / "elsewhere" / "b.png")
    (tmp_path / "raw" / "a.png").symlink_to(tmp_path / "elsewhere" / "b.png")
    (tmp_path / "raw" / "root").symlink_to("/")
    assert set(index(tmp_path / "raw")) == {"a"}


def test_index_of_a_folder_1200_levels_deep_finds_the_file(tmp_path, image):
    at = tmp_path
    for _ in range(1200):
        at = at / "d"
        at.mkdir()  # one by one: `parents=True` is recursive
    image.save(at / "a.png")
    try:
        assert set(index(tmp_path)) == {"a"}
    finally:
        (at / "a.png").unlink()
        while at != tmp_path:  # pytest's clean-up is recursive
            at.rmdir()
            at = at.parent


def test_index_with_a_repeated_name_accepts_only_equal_files(tmp_path, image):
    for part in ("one", "two"):
        (tmp_path / part).mkdir()
        image.save(tmp_path / part / "a.png")
    assert index(tmp_path) == {"a": str(tmp_path / "one" / "a.png")}
    image.rotate(90).save(tmp_path / "two" / "a.png")
    with raises_user_error("images.repeated_id"):
        index(tmp_path)


def test_index_error_with_unprintable_names_is_printable(tmp_path, image):
    first = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n")
    for part, angle in ((Path(first), 0), (tmp_path / "two", 90)):
        part.mkdir()
        image.rotate(angle).save(part / "a.png")
    with pytest.raises(UserError) as caught:
        index(tmp_path)
    assert str(caught.value).isprintable()
    str(caught.value).encode("utf-8")


def test_find_among_many_images_of_one_name_is_the_comparison_with_each(monkeypatch):
    rng = np.random.default_rng(0)

    def path(longest):
        return "/".join([*rng.choice(["B", "b", "é", *"cdefghijkl"], rng.integers(1, longest)), "image.jpg"])

    images = sorted({f"/data/{path(4)}" for _ in range(30)} | {"/data/c/b/image.jpg", "/data/d/b/image.jpg"})
    inventory, values = Inventory(Path("/data"), images=images, compare=False), [path(6) for _ in range(300)]
    sorted_by_folders = ImageIndex(inventory)
    found = [sorted_by_folders.find(value, Path("/data")) for value in values]
    monkeypatch.setattr(matching, "CROWDED", len(images))
    one_by_one = ImageIndex(inventory)
    assert found == [one_by_one.find(value, Path("/data")) for value in values]
    assert None in found
    assert len(set(found)) > 20


def test_find_of_each_of_many_images_of_one_name_is_not_quadratic():
    """A comparison of each row with each image would take days."""
    images = [f"/data/{number:06}/image.jpg" for number in range(50_000)]
    found = ImageIndex(Inventory(Path("/data"), images=images))
    assert [found.find(path.removeprefix("/data/"), Path("/data")) for path in images] == images


def test_find_in_the_current_folder_prefers_the_image_beside_the_table(tmp_path, image, monkeypatch):
    for number, name in enumerate(("a.png", "below/a.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        image.rotate(90 * number).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert ImageIndex(take_inventory(Path())).find("a.png", Path()) == "./a.png"
