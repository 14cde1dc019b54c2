"""Texts in a few bytes each, and the memory that a data set needs for each of its images."""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from components.prepare_data import texts
from components.prepare_data.texts import Paths, Positions, Texts

NAMES = ["b", "", "é", "\udcff", "a/b", "a-b", "\ud7ff", "\ue000", "\U0001f600", "b", "ab"]
READ = """
import sys
from pathlib import Path
from components.prepare_data import layouts

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024

layouts.read(Path(sys.argv[1]), scratch=Path(sys.argv[1]))
before = peak()
rows = len(layouts.read(Path(sys.argv[2]), scratch=Path(sys.argv[2])).table)
print((peak() - before) / rows)
"""


def test_texts_are_those_that_were_appended():
    found = Texts(NAMES)
    found.append("last")
    assert list(found) == [*NAMES, "last"]
    assert [found[at] for at in range(-12, 12)] == [*NAMES, "last"] * 2
    assert found[2:5] == NAMES[2:5]
    assert "\udcff" in found
    for at in (12, -13):
        with pytest.raises(IndexError):
            found[at]


def test_texts_sort_as_strings_do_even_if_they_are_not_utf8():
    assert list(Texts(NAMES).sort()) == sorted(NAMES)
    assert list(Texts().sort()) == []


def test_paths_are_those_that_were_appended():
    names = ["a/b/1", "a/b/2", "a b/\udcff", "a/b/3", "/4", "5", "./6", "a//7"]
    found = Paths(names)
    assert list(found) == names
    assert [found[at] for at in range(-8, 8)] == names * 2
    assert found[1:4] == names[1:4]
    assert not Paths()
    with pytest.raises(IndexError):
        found[8]


def test_texts_series_is_a_column_of_strings():
    found = Texts(["é", "", "b"]).series()
    assert found.tolist() == ["é", "", "b"]
    assert found.dtype == "str"
    assert list(texts.iterate(found)) == ["é", "", "b"]


def test_positions_find_all_of_a_key_even_if_hashes_are_equal(monkeypatch):
    found = Positions(NAMES, NAMES.__getitem__)
    assert {name: list(found.find(name)) for name in (*NAMES, "c")} == {
        name: [at for at, other in enumerate(NAMES) if other == name] for name in (*NAMES, "c")
    }
    monkeypatch.setattr(texts, "hash", lambda key: len(key), raising=False)
    found = Positions(NAMES, NAMES.__getitem__)
    assert (list(found.find("b")), list(found.find("ab")), list(found.find("c"))) == ([0, 9], [10], [])


def test_rows_of_equal_values():
    keys, values = pd.Series(["x", "y", "x", "z", "y", "x"]), pd.Series(["1", "1", "1", "2", "3", "1"])
    assert texts.first_rows(keys).tolist() == [0, 1, 0, 3, 1, 0]
    assert texts.first_rows(np.array([-1, 4, 4, -1])).tolist() == [0, 1, 1, 0]
    assert texts.have_several(keys, values).tolist() == [False, True, False, False, True, False]
    mapped = texts.map_different(keys, {"x": "1", "y": None, "z": "3"}.get)
    assert mapped.fillna("").tolist() == ["1", "", "1", "3", "", "1"]
    assert not texts.is_unique(keys)
    assert texts.is_unique(keys.iloc[[3, 0, 1]])
    assert texts.is_unique(keys[:0])


def write_links(folder, count):
    """Write a table of images, of three lesions each, and hard links to one file."""
    folder.mkdir()
    (folder / "0000000.jpg").touch()
    lines = [f"I{number:07},L{number // 3:07},{'abcde'[number // 3 % 5]}\n" for number in range(count)]
    (folder / "metadata.csv").write_text("image_id,lesion_id,dx\n" + "".join(lines))
    for number in range(count):
        os.link(folder / "0000000.jpg", folder / f"I{number:07}.jpg")


def test_read_needs_little_memory_per_image(tmp_path):
    write_links(tmp_path / "few", 3_000)
    write_links(tmp_path / "many", 60_000)
    words = [sys.executable, "-c", READ, str(tmp_path / "few"), str(tmp_path / "many")]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    assert float(done.stdout) < 450  # bytes; Python strings in rows, lists and dictionaries needed 700
