"""The cache of local runs returns only what a task wrote; tasks import code that cannot change."""

import os
import shutil
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


def key(tmp_path: Path, inputs: dict[str, object]) -> str:
    return VerifiedCache(str(tmp_path / "keys")).compute_key("train", "image", ["python"], inputs)


def moved(tmp_path: Path, outputs: dict[str, object]) -> dict[str, object]:
    """Copies of the same artifacts in the folder of another run."""
    shutil.copytree(tmp_path, tmp_path / "later", ignore=shutil.ignore_patterns("keys"))

    def at(artifact: object) -> object:
        assert isinstance(artifact, dsl.Artifact)
        return dsl.Artifact(name=artifact.name, uri=artifact.uri.replace(str(tmp_path), str(tmp_path / "later")))

    items = outputs["items"]
    assert isinstance(items, list)
    return outputs | {"page": at(outputs["page"]), "models": at(outputs["models"]), "items": [at(*items)]}


def test_the_key_of_the_same_content_in_another_place_is_the_same(tmp_path: Path, outputs: dict[str, object]):
    later = moved(tmp_path, outputs)
    assert key(tmp_path, later) == key(tmp_path, outputs)
    (tmp_path / "later" / "models" / "deep" / "gan.keras").touch()
    assert key(tmp_path, later) == key(tmp_path, outputs)


@pytest.mark.parametrize("change", ["report.html", "models/deep/gan.keras", "list.csv", "renamed", "added", "Output"])
def test_the_key_of_other_content_is_another(tmp_path: Path, outputs: dict[str, object], change: str):
    later, folder = moved(tmp_path, outputs), tmp_path / "later"
    if change == "renamed":
        (folder / "models" / "deep" / "gan.keras").rename(folder / "models" / "deep" / "other.keras")
    elif change == "added":
        (folder / "models" / "other.keras").touch()
    elif change == "Output":
        later["Output"] = ["df"]
    else:
        (folder / change).write_text("other")
    assert key(tmp_path, later) != key(tmp_path, outputs)


def test_the_key_of_an_address_in_object_storage_has_the_address(tmp_path: Path):
    first, second = (dsl.Artifact(name="gan", uri=f"s3://bucket/{name}") for name in "ab")
    assert key(tmp_path, {"gan": first}) != key(tmp_path, {"gan": second})


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
