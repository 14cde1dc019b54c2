"""The cache of local runs returns only what a task wrote; tasks import code that cannot change."""

import os
from pathlib import Path

import pytest
from kfp import dsl

from components import container_images
from counterweight import task_cache
from counterweight.task_cache import VerifiedCache, copy_code
from tests.helpers.errors import raises_user_error


@pytest.fixture
def outputs(tmp_path: Path) -> dict[str, object]:
    """A page, a folder, a list with one file, and a parameter."""
    (tmp_path / "models" / "deep").mkdir(parents=True)
    for name in ("report.html", "models/deep/gan.keras", "list.csv"):
        (tmp_path / name).write_text(name)
    page, models, item = (
        dsl.Artifact(name=name, uri=str(tmp_path / name)) for name in ("report.html", "models", "list.csv")
    )
    return {"page": page, "models": models, "items": [item], "Output": ["df", "vasc"]}


def stored(tmp_path: Path, outputs: dict[str, object]) -> VerifiedCache:
    cache = VerifiedCache(str(tmp_path / "keys"))
    cache.put("key", outputs)
    return cache


def test_get_of_unchanged_files_returns_the_outputs(tmp_path: Path, outputs: dict[str, object]):
    got = stored(tmp_path, outputs).get("key")
    assert got is not None
    assert (got["page"].uri, got["Output"]) == (str(tmp_path / "report.html"), ["df", "vasc"])
    assert VerifiedCache(str(tmp_path / "keys")).get("other") is None


@pytest.mark.parametrize("name", ["report.html", "models/deep/gan.keras", "list.csv"])
@pytest.mark.parametrize("damage", ["empty", "edited", "removed"])
def test_get_of_a_damaged_file_is_a_miss(tmp_path: Path, outputs: dict[str, object], name: str, damage: str):
    cache, path = stored(tmp_path, outputs), tmp_path / name
    status = path.stat()
    if damage == "removed":
        path.unlink()
    else:
        path.write_text("" if damage == "empty" else name.swapcase())
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert cache.get("key") is None


def test_get_with_an_additional_file_is_a_miss(tmp_path: Path, outputs: dict[str, object]):
    cache = stored(tmp_path, outputs)
    (tmp_path / "models" / "other.keras").touch()
    assert cache.get("key") is None


@pytest.mark.parametrize("text", [None, "", "{"])
def test_get_without_readable_hashes_is_a_miss(tmp_path: Path, outputs: dict[str, object], text: str | None):
    cache = stored(tmp_path, outputs)
    hashes = tmp_path / "keys" / "key.sha256.json"
    hashes.unlink()
    if text is not None:
        hashes.write_text(text)
    assert cache.get("key") is None


def test_copy_code_copies_the_phases_of_the_pipeline(tmp_path: Path):
    copy_code(tmp_path / "code", {container_images.image("publish"), container_images.image("train_gan")})
    assert (tmp_path / "code/components/publish/publish.py").is_file()


def test_copy_code_of_an_edited_phase_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    images = {container_images.image("publish")}
    copy_code(tmp_path / "checkout", images)
    with (tmp_path / "checkout/components/publish/publish.py").open("a") as file:
        file.write("# edited\n")
    monkeypatch.setattr(task_cache, "ROOT", tmp_path / "checkout")
    with raises_user_error("run.code_changed"):
        copy_code(tmp_path / "code", images)
