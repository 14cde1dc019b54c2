"""`plan` of data in object storage: the plan of the folder, without a download of its images."""

import io
from pathlib import Path
from typing import Any

import pytest

from components.shared.records import Plan
from counterweight import plan
from tests.helpers.errors import raises_user_error
from tests.unit.prepare_data.conftest import write_raw


def make(out: Path, *words: str) -> Plan:
    assert plan.run([*words, f"OUT={out}"], io.StringIO()) == 0
    return plan.read_plan(str(out))[0]


def test_plan_of_a_bucket_is_that_of_the_folder(bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    raw = write_raw(tmp_path / "raw")
    for path in raw.path.rglob("*"):
        if path.is_file():
            content = path.read_bytes() if path.suffix == ".csv" else b"not an image"
            bucket.blob(f"sets/ham/{path.relative_to(raw.path)}").upload_from_string(content)
    stored = make(tmp_path / "stored.json", "DATA=gs://raw/sets/ham", "PRESET=cpu")
    local = make(tmp_path / "local.json", f"DATA={raw.path}", "PRESET=cpu")
    assert (stored.images_sha256, stored.splits, stored.counts) == (local.images_sha256, local.splits, local.counts)
    assert stored.data == "gs://raw/sets/ham"


@pytest.mark.parametrize("names", [["a", "a/b.jpg"], ["a.jpg", "x" * 300 + ".jpg"]])
def test_plan_of_objects_that_cannot_be_files_is_a_user_error(bucket: Any, tmp_path: Path, names: list[str]):
    for name in names:
        bucket.blob(f"set/{name}").upload_from_string(b"x")
    with raises_user_error("storage.bad_name", uri=f"gs://raw/set/{names[1]}"[:99]):
        plan.run(["DATA=gs://raw/set", f"OUT={tmp_path / 'p.json'}"], io.StringIO())
    assert list(tmp_path.iterdir()) == []


def test_plan_of_an_empty_prefix_is_a_user_error(bucket: Any, tmp_path: Path):
    with raises_user_error("storage.empty"):
        plan.run(["DATA=gs://raw/nothing", f"OUT={tmp_path / 'p.json'}"], io.StringIO())
    assert list(tmp_path.iterdir()) == []
