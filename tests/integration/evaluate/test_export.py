"""Exported models and images of a published run: loaded by other libraries, compared, refused."""

import importlib.util
import io
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.evaluate.predict.probabilities import load_probabilities
from components.shared.errors import UserError
from components.shared.image_set import encode_png, iter_tables, open_pixels, read_header, write_image_set
from counterweight import export
from tests.helpers.errors import raises_user_error
from tests.integration.evaluate.conftest import SYNTHETIC_IMAGES, RunFolders, edit, write_manifest

pytestmark = pytest.mark.usefixtures("no_figures")
CLASSES = ("df", "nv", "vasc")


def command(*words: str | Path) -> None:
    export.run(list(map(str, words)), io.StringIO())


def read_test_images(run: RunFolders) -> np.ndarray:
    with open_pixels(run.arguments["test_data"] / "test.parquet", "test") as pixels:
        return np.array(pixels.images, np.float32)


def expected(folder: Path, arm: str, seeds: tuple[int, ...]) -> np.ndarray:
    """Return the mean over seeds of the published test probabilities after scaling."""
    table = pd.read_parquet(folder / "predictions.parquet")
    _, probabilities = load_probabilities(table[table["arm"] == arm], "test", [arm], (1, 2), CLASSES)
    temperatures = json.loads((folder / "metrics.json").read_text())["arms"][arm]["temperature"][: len(seeds)]
    logs = np.log(probabilities[arm][: len(seeds)]) / np.array(temperatures)[:, None, None]
    powers = np.exp(logs - logs.max(-1, keepdims=True))
    return np.asarray((powers / powers.sum(-1, keepdims=True)).mean(0))


@pytest.mark.parametrize(("words", "seeds"), [((), (1, 2)), (("SEEDS=first",), (1,))])
def test_command_savedmodel_gives_the_published_probabilities(
    published: Path, run: RunFolders, words: tuple[str, ...], seeds: tuple[int, ...]
) -> None:
    import tensorflow as tf

    command(f"RUN={published}", "FORMAT=savedmodel", "ARM=augmented@1", *words)
    folder = published / "export-savedmodel"
    loaded = tf.saved_model.load(str(folder / "1"))
    (found,) = loaded.signatures["serving_default"](image=tf.constant(read_test_images(run))).values()
    # Temperatures are rounded to 6 digits in metrics.json, and fitted again on float32 probabilities.
    assert found.numpy() == pytest.approx(expected(published, "augmented@1", seeds), abs=1e-4)
    details = json.loads((folder / "export.json").read_text())
    assert (details["arm"], details["seeds"], details["classes"]) == ("augmented@1", list(seeds), list(CLASSES))
    assert (details["image_size"], details["input"]["range"], details["positive_classes"]) == (32, [0, 255], ["vasc"])
    assert len(details["temperatures"]) == len(seeds)
    assert 0 < details["threshold"] < 1
    assert details["largest_difference"] <= export.TOLERANCE
    assert "not a medical device" in details["notice"]


needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in export.ONNX_PACKAGES),
    reason="ONNX IS NOT TESTED: the dependency group `export` is not installed",
)


@needs_onnx
def test_command_onnx_gives_the_published_probabilities(published: Path, run: RunFolders, tmp_path: Path) -> None:
    import onnxruntime

    out = tmp_path / "out"
    command(f"RUN={published}", "FORMAT=onnx", "ARM=oversampled", f"OUT={out}")
    session = onnxruntime.InferenceSession(str(out / "model.onnx"), providers=["CPUExecutionProvider"])
    assert [it.name for it in session.get_inputs()] == ["image"]
    found = session.run(None, {"image": read_test_images(run)})[0]
    assert found == pytest.approx(expected(published, "oversampled", (1, 2)), abs=1e-4)
    assert sorted(path.name for path in out.iterdir()) == ["export.json", "model.onnx"]
    command(f"RUN={published}", "FORMAT=folder", f"OUT={out}")  # replaces an earlier export
    assert sorted(path.name for path in out.iterdir()) == ["export.json", "gan"]


@needs_onnx
def test_write_onnx_of_a_network_with_grouped_convolutions_is_refused(tmp_path: Path) -> None:
    """As in convnext: TensorFlow compiles them into a function, which the converter does not inline."""
    layers = [keras.layers.Conv2D(4, 3, groups=2), keras.layers.Flatten(), keras.layers.Dense(2, "softmax")]
    model = keras.Sequential([keras.Input((8, 8, 4), name=export.INPUT), *layers])
    with raises_user_error("export.unsupported"):
        export.write_onnx(model, tmp_path)


def test_command_onnx_without_the_converter_is_refused(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError) as caught:
        command(f"RUN={published}", "FORMAT=onnx")
    assert caught.value.code == "export.missing_packages"
    assert caught.value.fields["packages"] == list(export.ONNX_PACKAGES)
    assert not [path for path in published.iterdir() if path.name.startswith((".part", "export"))]


def test_command_model_that_differs_leaves_nothing(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = export.build_ensemble

    def changed(arm: Any) -> keras.Model:
        model = original(arm)
        return keras.Model(model.input, model.output * 0.999)

    monkeypatch.setattr(export, "build_ensemble", changed)
    with pytest.raises(UserError) as caught:
        command(f"RUN={published}", "FORMAT=savedmodel")
    assert caught.value.code == "export.differs"
    assert not [path for path in published.iterdir() if path.name.startswith((".part", "export"))]


def test_command_folder_writes_the_synthetic_images(published: Path) -> None:
    command(f"RUN={published}", "FORMAT=folder")
    folder = published / "export-folder"
    paths = sorted((folder / "gan" / "df").iterdir())
    assert [path.name for path in paths] == [f"{n:06}.png" for n in range(1, SYNTHETIC_IMAGES + 1)]
    images = np.random.default_rng(5).integers(0, 256, (SYNTHETIC_IMAGES, 32, 32, 3)).astype(np.uint8)
    for path, image in zip(paths, images, strict=True):
        assert np.array_equal(np.asarray(Image.open(path)), image)
    details = json.loads((folder / "export.json").read_text())
    assert details["images"] == {"gan/df": SYNTHETIC_IMAGES}


def test_command_damaged_synthetic_images_are_refused(published: Path) -> None:
    path = published / "synthetic" / "df.parquet"
    header, image = read_header(path), np.zeros((32, 32, 3), np.uint8)
    with write_image_set(path, header) as out:
        rows = {"image_id": ["df-0"], "dx": "df", "source": "gan", "pixel_sha256": "0" * 64}
        out.write(pd.DataFrame(rows), [encode_png(image)])
    write_manifest(published)
    with pytest.raises(UserError) as caught:
        command(f"RUN={published}", "FORMAT=folder")
    assert caught.value.code == "image_set.corrupt"
    assert not (published / "export-folder").exists()


@pytest.mark.parametrize("details", ["{}", "[]", "text", '{"format": "csv"}', None])
def test_command_other_files_in_the_folder_are_kept(published: Path, tmp_path: Path, details: str | None) -> None:
    """`export.json` of another program, or notes beside an earlier export, are not to be deleted."""
    out = tmp_path / "out"
    if details is None:
        command(f"RUN={published}", "FORMAT=folder", f"OUT={out}")
    else:
        out.mkdir()
        (out / "export.json").write_text(details)
    (out / "notes.txt").write_text("text")
    before = {path: path.is_file() and path.read_bytes() for path in out.rglob("*")}
    with pytest.raises(UserError) as caught:
        command(f"RUN={published}", "FORMAT=folder", f"OUT={out}")
    assert caught.value.code == "export.foreign_files"
    assert {path: path.is_file() and path.read_bytes() for path in out.rglob("*")} == before


@pytest.mark.parametrize("left", [0, 3])
def test_command_missing_synthetic_images_are_refused(published: Path, left: int) -> None:
    """An export of fewer images than metrics.json states would silently be another data set."""
    path = published / "synthetic" / "df.parquet"
    header, tables = read_header(path), list(iter_tables(path))
    with write_image_set(path, header) as out:
        if left:
            out.write_table(tables[0].slice(0, left))
    write_manifest(published)
    with pytest.raises(UserError) as caught:
        command(f"RUN={published}", "FORMAT=folder")
    assert caught.value.code == "image_set.corrupt"
    assert not (published / "export-folder").exists()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["RUN={run}"], "option.missing"),
        (["RUN={run}", "FORMAT=tflite"], "option.invalid"),
        (["RUN={run}", "FORMAT=../x"], "option.invalid"),
        (["RUN={run}", "FORMAT=savedmodel", "SEEDS=2"], "option.invalid"),
        (["RUN={run}", "FORMAT=folder", "SEEDS=first"], "option.conflict"),
        (["RUN={run}", "FORMAT=folder", "ARM=oversampled"], "export.no_images"),
        (["RUN={run}", "FORMAT=savedmodel", "ARM=nothing"], "option.invalid"),
        (["RUN={run}", "FORMAT=folder", "OUT={tmp}"], "export.foreign_files"),
        (["RUN={run}", "FORMAT=folder", "OUT={run}"], "option.invalid"),
        (["RUN={run}", "FORMAT=folder", "OUT={run}/models"], "export.foreign_files"),
        (["RUN={tmp}", "FORMAT=folder"], "run.missing_file"),
        (["RUN=s3://bucket/run", "FORMAT=onnx"], "option.missing"),
    ],
)
def test_command_bad_options_are_refused(published_run: Path, tmp_path: Path, words: list[str], code: str) -> None:
    (tmp_path / "my thesis.txt").write_text("text")
    before = sorted(published_run.rglob("*"))
    with pytest.raises(UserError) as caught:
        command(*(word.format(run=published_run, tmp=tmp_path) for word in words))
    assert caught.value.code == code
    assert sorted(published_run.rglob("*")) == before
    assert [path.name for path in tmp_path.iterdir()] == ["my thesis.txt"]


def test_command_run_of_an_older_format_is_refused(published: Path) -> None:
    edit(published / "metrics.json", verdict="better")
    write_manifest(published)
    with pytest.raises(UserError) as caught:
        command(f"RUN={published}", "FORMAT=savedmodel")
    assert caught.value.code == "record.invalid"
