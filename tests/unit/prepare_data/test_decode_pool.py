"""The processes that decode images: how many, how much waits, and that each file is decoded once."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.prepare_data import decode_pool, image_reader
from components.prepare_data.image_reader import Stored
from components.prepare_data.layouts.dataset import ImageFiles
from components.prepare_data.near_duplicates import perceptual_hashes
from components.shared.image_set import decode_png, pixel_sha256
from tests.helpers.errors import raises_user_error

GIB = 2**30


def image_files(files: dict[str, Path]) -> ImageFiles:
    return ImageFiles(files, [str(path) for path in files.values()])


@pytest.mark.parametrize(
    ("cpus", "memory", "workers"),
    [(2, 64 * GIB, 2), (64, 4 * GIB, 4), (1, 4 * GIB, 1), (64, 1 * GIB, 1), (64, GIB // 2, 1)],
)
def test_count_workers_fits_cpus_and_memory(monkeypatch: pytest.MonkeyPatch, cpus: int, memory: int, workers: int):
    monkeypatch.setattr(decode_pool, "usable_cpus", lambda: cpus)
    monkeypatch.setattr(decode_pool, "usable_memory_bytes", lambda: memory)
    assert decode_pool.count_workers() == workers


@pytest.mark.parametrize(
    ("workers", "size", "expected"),
    # 256 MiB of pixels: 21,845 images of 64 px, 341 of 512 px.
    [(2, 64, (32, 32)), (2, 512, (32, 10)), (16, 512, (10, 34)), (64, 512, (2, 170)), (512, 512, (1, 512))],
)
def test_limit_pending_bounds_the_pixels_that_wait(workers: int, size: int, expected: tuple[int, int]):
    chunk, tasks = decode_pool.limit_pending(workers, size)
    assert (chunk, tasks) == expected
    assert chunk * tasks * 3 * size**2 <= max(decode_pool.MAX_PENDING_BYTES, workers * 3 * size**2)


def test_number_files_is_one_for_the_names_of_a_file(tmp_path: Path):
    first, second, link = (tmp_path / name for name in ("a.jpg", "b.jpg", "c.jpg"))
    first.write_bytes(b"1")
    second.write_bytes(b"1")
    link.hardlink_to(first)
    (tmp_path / "d.jpg").symlink_to(second)
    stored = Stored(first, 0, 1)
    files = [second, first, link, tmp_path / "missing.jpg", stored, stored, tmp_path / "d.jpg", tmp_path / "missing"]
    assert decode_pool.number_files(files).tolist() == [0, 1, 1, 2, 3, 4, 0, 5]


class Numbered(type(Path())):
    """A file on a file system that gives many files one number."""

    number, size = 7, 1

    def stat(self, **_: Any) -> os.stat_result:
        return os.stat_result((0o100644, self.number, 5, 1, 0, 0, self.size, 0, 0, 0), {"st_mtime_ns": 0})


def test_number_files_of_other_sizes_or_without_a_number_are_different():
    same, same_too, larger, *unknown = (Numbered(name) for name in "abcde")
    larger.size = 2
    for file in unknown:
        file.number = 0
    assert decode_pool.number_files([same, larger, *unknown, same_too]).tolist() == [0, 1, 2, 3, 0]


def test_number_files_accepts_numbers_of_64_bits(tmp_path: Path):
    file = Numbered("a")
    file.number = 2**64 - 1
    assert decode_pool.number_files([file, tmp_path / "missing", file]).tolist() == [0, 1, 0]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small disk")
def test_decode_on_a_full_disk_raises_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without an error, the thumbnails, which are mapped into memory, would kill the process (SIGBUS)."""
    files, disk = {}, tmp_path / "disk"
    for number in range(100):
        files[f"{number:03}"] = tmp_path / f"{number}.png"
        Image.new("RGB", (32, 32), (number, 0, 0)).save(files[f"{number:03}"])
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(disk)]).returncode:
        pytest.skip("may not mount")
    try:
        monkeypatch.setattr("tempfile.tempdir", str(disk))
        table, findings = pd.DataFrame({"image_id": list(files)}), decode_pool.Findings()
        with (
            pytest.raises(OSError, match="No space left"),
            decode_pool.decode(table, image_files(files), 32, findings, 0, "test"),
        ):
            pass
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_image_files_are_found_by_id_in_any_order():
    files = ImageFiles(["b", "é", "a", "ab", "none"], ["2.png", "3.png", Stored(Path("x"), 0, 1), "1.png", None])
    assert files.find(["ab", "none", "a", "", "é", "ab\u0301", "a b"]).tolist() == [1, -1, 0, -1, 3, -1, -1]
    assert (files["b"], files["a"], len(files)) == (Path("2.png"), Stored(Path("x"), 0, 1), 4)
    assert list(files) == ["a", "ab", "b", "é"]
    assert "none" not in files
    assert ImageFiles(["a"], [None]).find(["a"]).tolist() == [-1]
    with pytest.raises(KeyError):
        files.at(-1)
    with pytest.raises(KeyError):
        files["c"]


def test_decode_without_usable_images_yields_none(tmp_path: Path):
    (tmp_path / "a.png").write_text("junk")
    table = pd.DataFrame({"image_id": ["a"]})
    with decode_pool.decode(
        table, image_files({"a": tmp_path / "a.png"}), 32, decode_pool.Findings(), 1, "test"
    ) as decoded:
        assert (len(decoded.rows), decoded.thumbnails.shape) == (0, (0, 32, 32))


@pytest.fixture
def linked(tmp_path: Path) -> dict[str, Path]:
    """Ten names: five of one image, three of a grey one, one of another, and one of a file that holds no image."""
    rng = np.random.default_rng(0)
    originals = {name: tmp_path / f"{name}.png" for name in ("colour", "grey", "other")}
    for name, path in originals.items():
        pixels = rng.integers(0, 255, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).convert("L" if name == "grey" else "RGB").save(path)
    files = {}
    for number in range(10):
        files[f"image {number}"] = tmp_path / f"{number}.png"
        if number == 8:
            files["image 8"].write_text("junk")
        else:
            name = "grey" if number in (1, 3, 5) else "other" if number == 9 else "colour"
            files[f"image {number}"].hardlink_to(originals[name])
    return files


def test_decode_of_hard_links_keeps_each_file_once(linked: dict[str, Path]):
    table, findings = pd.DataFrame({"image_id": sorted(linked)}), decode_pool.Findings()
    with decode_pool.decode(table, image_files(linked), 32, findings, 1, "test") as decoded:
        assert decoded.rows["image_id"].tolist() == [f"image {n}" for n in (0, 1, 2, 3, 4, 5, 6, 7, 9)]
        assert decoded.rows["file"].tolist() == [0, 1, 0, 1, 0, 1, 0, 0, 2]
        assert decoded.thumbnails.shape == (3, 32, 32)
        assert decoded.rows["perceptual_hash"].tolist() == [
            perceptual_hashes(decoded.thumbnails)[file] for file in decoded.rows["file"]
        ]
        images = decoded.png(decoded.rows.index)
        assert [pixel_sha256(decode_png(png)) for png in images] == decoded.rows["pixel_sha256"].tolist()
        assert decoded._spool.seek(0, 2) == sum(len(images[row]) for row in (0, 1, 8))
    assert findings.skipped == [("image 8", image_reader.NO_IMAGE)]
    assert findings.notes == {"grey": 3}
    assert findings.sizes == {(40, 40): 9}


@pytest.mark.parametrize(
    ("reasons", "hint"),
    [
        ([image_reader.HEIC, image_reader.HEIC], "mogrify -format jpg"),
        ([image_reader.CMYK, image_reader.CMYK], "mogrify -colorspace sRGB"),
        (["corrupt (broken data stream)", "corrupt (image file is truncated)"], "download or copy the files again"),
        ([image_reader.NO_IMAGE, image_reader.NO_IMAGE], "download or copy the files again"),
        ([decode_pool.NOT_LISTED, decode_pool.NOT_LISTED], "list them in the file of data_split"),
        ([image_reader.HEIC, image_reader.CMYK], "raise max_bad_images"),
    ],
)
def test_refuse_more_than_states_the_fix_if_all_images_fail_alike(reasons: list[str], hint: str):
    findings = decode_pool.Findings(skipped=[(f"image {n}", reason) for n, reason in enumerate(reasons)])
    findings.refuse_more_than(2)
    with raises_user_error("images.too_many_unusable", limit=1, count=2) as caught:
        findings.refuse_more_than(1)
    assert hint in caught.value.hint


def _end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_an_error_that_may_not_recur():
    """The system kills a process if memory is short."""
    with raises_user_error("process.killed") as caught, decode_pool.open_pool() as pool:
        pool.submit(_end).result()
    assert caught.value.retryable


def test_workers_of_a_process_with_tensorflow_are_not_forked(monkeypatch: pytest.MonkeyPatch):
    """A fork keeps the locks that TensorFlow's threads hold."""
    for module, name in ((None, "tensorflow"), (decode_pool, "tensorflow")):
        monkeypatch.delitem(sys.modules, name, raising=False)
        if module:
            monkeypatch.setitem(sys.modules, name, module)
        with decode_pool.open_pool() as pool:
            assert (pool._mp_context.get_start_method() == "spawn") == bool(module)  # type: ignore[attr-defined]
