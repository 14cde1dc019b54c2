"""The digest of the base image: written by CI, required by a release, read by builds."""

from pathlib import Path

import pytest

from counterweight import build_images
from scripts import pin_base_image
from tests.helpers.errors import raises_user_error

DIGEST = f"sha256:{'0123456789abcdef' * 4}"


@pytest.fixture
def dockerfile(tmp_path: Path) -> Path:
    path = tmp_path / "Dockerfile"
    path.write_text("# Base.\nARG PYTHON_IMAGE=python:3.11-slim\n\nFROM ${PYTHON_IMAGE} AS build\n")
    return path


def test_check_without_a_digest_fails(dockerfile: Path):
    with raises_user_error("pin.missing", image="python:3.11-slim"):
        pin_base_image.run([], dockerfile)


def test_digest_is_written_and_replaced(dockerfile: Path, capsys: pytest.CaptureFixture[str]):
    for digest in (f"sha256:{'f' * 64}", DIGEST):
        pin_base_image.run([digest], dockerfile)
        pin_base_image.run(["check"], dockerfile)
        pin_base_image.run(["name"], dockerfile)
    assert dockerfile.read_text() == (
        f"# Base.\nARG PYTHON_IMAGE=python:3.11-slim@{DIGEST}\n\nFROM ${{PYTHON_IMAGE}} AS build\n"
    )
    assert capsys.readouterr().out.splitlines()[-2:] == [f"pinned: python:3.11-slim@{DIGEST}", "python:3.11-slim"]


@pytest.mark.parametrize("digest", ["sha256:", "sha256:xyz", f"{DIGEST}0", f"{DIGEST}\nRUN x", "latest"])
def test_another_digest_is_refused(dockerfile: Path, digest: str):
    before = dockerfile.read_text()
    with raises_user_error("pin.invalid_digest"):
        pin_base_image.run([digest], dockerfile)
    assert dockerfile.read_text() == before


def test_base_image_is_pinned():
    pin_base_image.run(["check"])


def test_dockerfile_is_the_only_place_that_names_the_base_image():
    name, digest = pin_base_image.read()
    assert build_images.python_image() == name + digest
    text = (build_images.ROOT / "counterweight" / "build_images.py").read_text(encoding="utf-8")
    assert name not in text
