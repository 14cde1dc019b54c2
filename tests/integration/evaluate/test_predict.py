"""New images scored with the models of a published run: figures, resuming, bad images, foreign runs."""

import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.evaluate.predict import reference
from components.shared import keras_setup
from components.shared.errors import UserError
from components.shared.features import load_features
from components.shared.files import file_sha256
from components.shared.image_set import decode_png, iter_tables, open_pixels, read_rows
from components.shared.records import Reference, Results, load_record
from counterweight import evaluate, exit_codes, predict
from tests.helpers.errors import raises_user_error
from tests.helpers.object_servers import s3_place, s3_server
from tests.integration.evaluate.conftest import RunFolders, edit, write_manifest

pytestmark = pytest.mark.usefixtures("no_figures")
CLASSES = ["df", "nv", "vasc"]


def command(*words: str | Path) -> int:
    return exit_codes.run_command(lambda: predict.run(list(map(str, words)), io.StringIO()))


def write_test_images(run: RunFolders, folder: Path) -> pd.DataFrame:
    """Write the test images as PNG files in nested folders, and return their rows."""
    path = run.arguments["test_data"] / "test.parquet"
    rows, number = read_rows(path, "test", ["image_id", "dx"]), 0
    for table in iter_tables(path):
        for png in table.column("image").to_pylist():
            place = folder / f"part {number % 2}" / "deep"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(decode_png(png["bytes"])).save(place / f"{rows['image_id'][number]}.png")
            number += 1
    rows["image"] = [f"part {n % 2}/deep/{name}.png" for n, name in enumerate(rows["image_id"])]
    return rows


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "chunk_images", lambda _: 5)


def test_command_probabilities_are_those_that_evaluate_computes(
    published: Path, run: RunFolders, tmp_path: Path, capsys: Any
) -> None:
    """Decoded, resized and predicted again, test images get the published probabilities, calibrated."""
    rows = write_test_images(run, tmp_path / "images")
    assert command(f"RUN={published}", f"DATA={tmp_path / 'images'}", "ARM=oversampled") == 0
    out = published / "predictions"
    table = pd.read_parquet(out / "predictions.parquet").set_index("image").loc[rows["image"]]
    stored = pd.read_parquet(published / "predictions.parquet")
    stored = stored[(stored["arm"] == "oversampled") & (stored["set"] == "test")]
    results = json.loads((published / "metrics.json").read_text())
    scaled = []
    for seed, temperature in zip((1, 2), results["arms"]["oversampled"]["temperature"], strict=True):
        of_seed = stored[stored["seed"] == seed].set_index("image_id").loc[rows["image_id"]]
        logits = np.log(of_seed[[f"p_{dx}" for dx in CLASSES]].to_numpy(float)) / temperature
        powers = np.exp(logits - logits.max(1, keepdims=True))
        scaled.append(powers / powers.sum(1, keepdims=True))
    expected = np.mean(scaled, axis=0)
    found = table[[f"p_{dx}" for dx in CLASSES]].to_numpy()
    # Temperatures are rounded to 6 digits in metrics.json, and fitted again on float32 probabilities.
    assert found == pytest.approx(expected, abs=1e-4)
    assert table["predicted"].tolist() == [CLASSES[label] for label in found.argmax(1)]
    details = json.loads((out / "predictions.json").read_text())
    assert (details["arm"], details["positive_classes"], details["images"]) == ("oversampled", ["vasc"], len(rows))
    assert table["positive"].tolist() == (found[:, 2] > np.float32(details["threshold"])).tolist()
    assert not table["seen"].any()
    shown = pd.read_csv(out / "predictions.csv").set_index("image").loc[rows["image"]]
    assert shown[[f"p_{dx}" for dx in CLASSES]].to_numpy() == pytest.approx(found, rel=1e-5)
    assert (out / "skipped.csv").read_text() == "image,reason\n"
    assert "not a medical device" in details["notice"]
    assert sorted(path.name for path in out.iterdir()) == [
        "predictions.csv",
        "predictions.json",
        "predictions.parquet",
        "skipped.csv",
    ]


def test_command_threshold_leaves_ten_percent_of_benign_validation_images_above_it(
    published: Path, run: RunFolders, tmp_path: Path
) -> None:
    path = run.arguments["training_data"] / "validation.parquet"
    with open_pixels(path, "validation") as pixels:
        for number, image in enumerate(pixels.images):
            place = tmp_path / "images" / pixels.header.classes[pixels.labels[number]]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / f"{number}.png")
    assert command(f"RUN={published}", f"DATA={tmp_path / 'images'}", f"OUT={tmp_path / 'out'}") == 0
    table = pd.read_parquet(tmp_path / "out" / "predictions.parquet")
    benign = table[~table["image"].str.startswith("vasc/")]
    # 16 benign images: the threshold is the score of the 15th (90 % of 16 is 14.4), so one is above it.
    assert (len(benign), int(benign["positive"].sum())) == (16, 1)
    # Arms are chosen on validation images, so they count as seen. The limit is the largest of their distances.
    assert table["seen"].all()
    assert table["distance"].max() == pytest.approx(1, abs=1e-3)
    assert int(table["unlike"].sum()) == 0


def test_command_default_arm_is_that_of_the_advice(published: Path, run: RunFolders, tmp_path: Path) -> None:
    metrics = published / "metrics.json"
    advised = load_record(metrics, Results).advice.arm
    edit(metrics, effect=json.loads(metrics.read_text())["effect"] | {"best": "baseline"})
    write_manifest(published)
    assert load_record(metrics, Results).advice.arm == advised != "baseline"
    write_test_images(run, tmp_path / "images")
    assert command(f"RUN={published}", f"DATA={tmp_path / 'images'}") == 0
    assert json.loads((published / "predictions" / "predictions.json").read_text())["arm"] == advised


def test_command_strange_image_is_unlike_and_training_image_is_seen(
    published: Path, run: RunFolders, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[::2] = 255
    Image.fromarray(stripes).save(images / "stripes.png")
    with open_pixels(run.arguments["training_data"] / "train.parquet", "train") as pixels:
        Image.fromarray(pixels.images[0]).save(images / "training.png")
    assert command(f"RUN={published}", f"DATA={images}") == 0
    table = pd.read_parquet(published / "predictions" / "predictions.parquet").set_index("image")
    assert table["unlike"].to_dict() == {"stripes.png": True, "training.png": False}
    assert table["seen"].to_dict() == {"stripes.png": False, "training.png": True}
    # The stored features are float32, with about 7 digits.
    assert table["distance"]["training.png"] == pytest.approx(0, abs=1e-4)
    assert table["nearest"]["training.png"] == "train-df-0"


@pytest.mark.usefixtures("small_chunks")
def test_command_resumes_and_writes_the_same_bytes(
    published: Path, run: RunFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    write_test_images(run, tmp_path / "images")
    (tmp_path / "images" / "a.png").write_bytes(b"no image")
    words = (f"RUN={published}", f"DATA={tmp_path / 'images'}")
    assert command(*words, f"OUT={tmp_path / 'whole'}") == 0
    scored: list[list[str]] = []
    original = predict.Scorer.__call__

    def interrupted(self: Any, names: Any, *rest: Any) -> Any:
        if len(scored) == 2:
            raise KeyboardInterrupt
        scored.append(list(names))
        return original(self, names, *rest)

    monkeypatch.setattr(predict.Scorer, "__call__", interrupted)
    assert command(*words, f"OUT={tmp_path / 'out'}") == 130
    assert [path.name for path in (tmp_path / "out").iterdir()] == [predict.WORK]
    scored.clear()
    monkeypatch.setattr(predict.Scorer, "__call__", lambda *args: (scored.append(list(args[1])), original(*args))[1])
    capsys.readouterr()
    assert command(*words, f"OUT={tmp_path / 'out'}") == 0
    assert "resuming after 10 images" in capsys.readouterr().out
    assert sum(map(len, scored)) == 24 + 1 - 10
    for name in ("predictions.csv", "predictions.parquet", "predictions.json", "skipped.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert (tmp_path / "out" / "skipped.csv").read_text().splitlines()[1].startswith('a.png,"not an image')


def test_command_killed_process_resumes_with_the_same_bytes(published: Path, tmp_path: Path, capsys: Any) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in range(2 * predict.CHUNK_IMAGES + 50):
        Image.new("RGB", (16, 16), (number % 256, number // 256, 90)).save(images / f"{number:05}.bmp")
    words = [f"RUN={published}", f"DATA={images}", "ARM=oversampled"]
    out = tmp_path / "out"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    process = subprocess.Popen(
        [sys.executable, "-m", "counterweight", "predict", *words, f"OUT={out}"],
        stdout=subprocess.DEVNULL,
        env=environment,
    )
    try:
        while not (out / predict.WORK / "0.json").exists():
            assert process.poll() is None
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    assert not (out / "predictions.csv").exists()
    assert command(*words, f"OUT={out}") == 0
    assert "resuming after " in capsys.readouterr().out
    assert command(*words, f"OUT={tmp_path / 'whole'}") == 0
    for name in ("predictions.csv", "predictions.parquet", "predictions.json"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert not (out / predict.WORK).exists()


@pytest.mark.usefixtures("small_chunks")
def test_command_changed_data_starts_anew(
    published: Path, run: RunFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    write_test_images(run, tmp_path / "images")
    words = (f"RUN={published}", f"DATA={tmp_path / 'images'}", f"OUT={tmp_path / 'out'}")
    with monkeypatch.context() as patched:
        patched.setattr(predict, "write_predictions", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert command(*words) == 130
    shutil.copy(tmp_path / "images/part 0/deep/test-df-0.png", tmp_path / "images/another.png")
    capsys.readouterr()
    assert command(*words) == 0
    assert "resuming" not in capsys.readouterr().out
    assert len(pd.read_parquet(tmp_path / "out" / "predictions.parquet")) == 25


def test_command_too_many_bad_images_are_refused_and_listed(
    published: Path, run: RunFolders, tmp_path: Path, capsys: Any
) -> None:
    write_test_images(run, tmp_path / "images")
    for number in range(3):
        (tmp_path / "images" / f"bad {number}.jpg").write_bytes(b"<html>")
    words = (f"RUN={published}", f"DATA={tmp_path / 'images'}")
    assert command(*words, "max_bad_images=2") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: more than 2 images are unusable (not an image")
    assert error.count("hint: ") == 1
    assert not (published / "predictions" / "predictions.csv").exists()
    assert command(*words, "max_bad_images=3") == 0
    skipped = pd.read_csv(published / "predictions" / "skipped.csv")
    assert skipped["image"].tolist() == ["bad 0.jpg", "bad 1.jpg", "bad 2.jpg"]


def test_command_layouts_with_images_in_a_file_are_read(published: Path, run: RunFolders, tmp_path: Path) -> None:
    """An image set of this pipeline is Parquet with images."""
    (tmp_path / "data").mkdir()
    shutil.copy(run.arguments["test_data"] / "test.parquet", tmp_path / "data" / "test.parquet")
    assert command(f"RUN={published}", f"DATA={tmp_path / 'data'}") == 0
    found = pd.read_parquet(published / "predictions" / "predictions.parquet")["image"].tolist()
    assert found == sorted(read_rows(tmp_path / "data" / "test.parquet", "test", ["image_id"])["image_id"])


def test_command_run_and_data_in_object_storage(published: Path, run: RunFolders, tmp_path: Path) -> None:
    write_test_images(run, tmp_path / "images")
    with s3_server() as server, s3_place(server) as place:
        for prefix, folder in (("run", published), ("images", tmp_path / "images")):
            for path in (path for path in folder.rglob("*") if path.is_file()):
                place.put(f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())
        words = (f"RUN={place.uri('run')}", f"DATA={place.uri('images')}", "ARM=oversampled")
        assert command(*words) == 2  # OUT is missing
        assert command(*words, f"OUT={tmp_path / 'remote'}") == 0
    assert command(f"RUN={published}", f"DATA={tmp_path / 'images'}", "ARM=oversampled") == 0
    remote = (tmp_path / "remote" / "predictions.csv").read_bytes()
    assert remote == (published / "predictions" / "predictions.csv").read_bytes()


def test_command_hostile_names_are_escaped(published: Path, run: RunFolders, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    name = 'a,"b\n<script>.png'
    Image.fromarray(np.full((40, 40, 3), 90, np.uint8)).save(images / name)
    (images / "loop").symlink_to(images)
    assert command(f"RUN={published}", f"DATA={images}") == 0
    table = pd.read_csv(published / "predictions" / "predictions.csv")
    assert table["image"].tolist() == ['a,"b\\n<script>.png']


def test_command_names_are_no_formulas(published: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for name in ("=1+2.png", "-2.png", "3.png"):
        Image.fromarray(np.full((40, 40, 3), 90, np.uint8)).save(images / name)
    (images / "@bad.png").write_bytes(b"no image")
    assert command(f"RUN={published}", f"DATA={images}") == 0
    out = published / "predictions"
    assert pd.read_csv(out / "predictions.csv")["image"].tolist() == ["./-2.png", "3.png", "./=1+2.png"]
    assert pd.read_csv(out / "skipped.csv")["image"].tolist() == ["./@bad.png"]


def test_scorer_ids_of_training_images_are_no_formulas() -> None:
    arm = SimpleNamespace(
        classes=("df", "nv"), threshold=None, seen=frozenset(), predict=lambda *_: np.array([[0.5, 0.5], [0.25, 0.75]])
    )
    names = ['=HYPERLINK("https://evil.example")', "ISIC_1\n"]
    training = SimpleNamespace(names=names, compare=lambda _: (np.array([0, 1]), np.array([0.5, 2.0])))
    table = predict.Scorer(arm, training)(["a", "b"], np.zeros((2, 4, 4, 3), np.uint8), ["0" * 64] * 2, pd.DataFrame())
    assert table["nearest"].to_pylist() == ['./=HYPERLINK("https://evil.example")', "ISIC_1\\n"]


def test_command_default_output_is_never_outside_the_run(published: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "victim").mkdir()
    for name in ("predictions", "external"):
        (published / name).symlink_to(tmp_path / "victim")
    with raises_user_error("path.outside"):
        predict.run([f"RUN={published}", f"DATA={tmp_path / 'images'}"], io.StringIO())
    with raises_user_error("path.outside"):
        evaluate.arguments([f"RUN={published}", f"EXTERNAL={tmp_path / 'images'}"])


def old_format(folder: Path) -> None:
    (folder / "reference.json").unlink()
    write_manifest(folder)


def unfinished(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def swapped_model(folder: Path) -> None:
    shutil.copy(folder / "models" / "baseline.keras", folder / "models" / "oversampled.keras")
    write_manifest(folder)


def _replace_model(folder: Path, model: keras.Model) -> None:
    path = folder / "models" / "oversampled.keras"
    keras_setup.save_model(model, path)
    edit(path.with_suffix(".json"), model_sha256=file_sha256(path))
    write_manifest(folder)


def model_with_code(folder: Path) -> None:
    layers = keras.layers
    network = [layers.Flatten(), layers.Dense(3, "softmax"), layers.Lambda(lambda x: x)]
    _replace_model(folder, keras.Sequential([keras.Input((32, 32, 3)), *network]))


def other_output(folder: Path) -> None:
    layers = keras.layers
    _replace_model(folder, keras.Sequential([keras.Input((32, 32, 3)), layers.Flatten(), layers.Dense(7, "softmax")]))


def model_of_nothing(folder: Path) -> None:
    path = folder / "models" / "oversampled.keras"
    model = keras.saving.load_model(path, compile=False)
    model.set_weights([np.full_like(weights, np.nan) for weights in model.get_weights()])
    _replace_model(folder, model)


def model_of_logits(folder: Path) -> None:
    layers = keras.layers
    _replace_model(folder, keras.Sequential([keras.Input((32, 32, 3)), layers.Flatten(), layers.Dense(3)]))


def not_a_model(folder: Path) -> None:
    path = folder / "models" / "oversampled.keras"
    path.write_bytes(b"PK")
    edit(path.with_suffix(".json"), model_sha256=file_sha256(path))
    write_manifest(folder)


def foreign_features(folder: Path) -> None:
    shutil.copy(folder / "models" / "baseline.keras", folder / "models" / "features.keras")
    write_manifest(folder)


def features_of_nothing(folder: Path) -> None:
    path = folder / "models" / "features.keras"
    model = keras.saving.load_model(path, compile=False)
    model.set_weights([np.full_like(weights, np.nan) for weights in model.get_weights()])
    keras_setup.save_model(model, path)
    edit(folder / "reference.json", features_sha256=file_sha256(path))
    write_manifest(folder)


def short_reference(folder: Path) -> None:
    path = folder / "reference.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    write_manifest(folder)


def hostile_class(folder: Path) -> None:
    edit(folder / "metrics.json", classes=["df", "../../x", "vasc"])
    write_manifest(folder)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (old_format, "run.earlier_version"),
        (unfinished, "run.missing_file"),
        (swapped_model, "evaluate.wrong_record"),
        (model_with_code, "model.invalid"),
        (other_output, "model.invalid"),
        (model_of_nothing, "model.invalid"),
        (model_of_logits, "model.invalid"),
        (not_a_model, "model.invalid"),
        (foreign_features, "features.invalid"),
        (features_of_nothing, "features.invalid"),
        (short_reference, "reference.invalid"),
        (hostile_class, "record.invalid"),
    ],
)
def test_command_foreign_or_unfinished_run_is_refused(
    published: Path, tmp_path: Path, change: Callable[[Path], None], code: str
) -> None:
    change(published)
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "images" / "one.png")
    with pytest.raises(UserError) as caught:
        predict.run([f"RUN={published}", f"DATA={tmp_path / 'images'}", "ARM=oversampled"], io.StringIO())
    assert caught.value.code == code
    assert caught.value.hint
    assert not (published / "predictions").exists()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([], "option.missing"),
        (["RUN={run}"], "option.missing"),
        (["RUN={run}", "DATA={tmp}/nowhere"], "data.missing_folder"),
        (["RUN={run}", "DATA={tmp}/empty"], "predict.no_images"),
        (["RUN={run}", "DATA={tmp}/bad"], "predict.none_usable"),
        (["RUN={run}", "DATA={tmp}/bad", "ARM=../x"], "option.invalid"),
        (["RUN={run}", "DATA={tmp}/bad", "ARM=class_weights"], "option.invalid"),
        (["RUN={run}", "DATA={tmp}/bad", "max_bad_images=-1"], "option.invalid"),
        (["RUN={run}", "DATA={tmp}/bad", "max_bad_images=²"], "option.invalid"),
        (["RUN={run}", "DATA={tmp}/bad", "OUT={run}"], "option.invalid"),
        (["RUN={run}", "DATA={tmp}/bad", "OUT={tmp}/bad"], "option.invalid"),
        (["RUN={run}", "DATA={tmp}/bad", "OUT=s3://bucket/x"], "option.invalid"),
        (["RUN={tmp}/nowhere", "DATA={tmp}/bad"], "option.invalid"),
        (["RUN=ftp://x/y", "DATA={tmp}/bad"], "storage.invalid_address"),
        (["RUN=gs://bucket/run", "DATA={tmp}/bad"], "option.missing"),
    ],
)
def test_command_bad_options_are_refused(published_run: Path, tmp_path: Path, words: list[str], code: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "one.png").write_bytes(b"no image")
    before = sorted(published_run.rglob("*"))
    with pytest.raises(UserError) as caught:
        predict.run([word.format(run=published_run, tmp=tmp_path) for word in words], io.StringIO())
    assert caught.value.code == code
    assert sorted(published_run.rglob("*")) == before


def test_choose_rows_small_classes_keep_all_rows() -> None:
    labels = np.repeat(["df", "nv", "vasc"], [5, 100, 20])
    kept = reference.choose_rows(labels, 60)
    assert {dx: int(kept[labels == dx].sum()) for dx in ("df", "nv", "vasc")} == {"df": 5, "nv": 35, "vasc": 20}
    assert reference.choose_rows(labels, 125).all()


def test_write_reference_limit_is_the_quantile_of_validation(published_run: Path, run: RunFolders) -> None:
    record = load_record(published_run / "reference.json", Reference)
    extractor = load_features(published_run / "models" / "features.keras")
    folder = run.arguments["training_data"]
    with (
        open_pixels(folder / "train.parquet", "train") as train,
        open_pixels(folder / "validation.parquet", "validation") as validation,
    ):
        ours, theirs = extractor(validation.images), extractor(train.images)
    distances = np.sqrt(((ours[:, None] - theirs[None]) ** 2).sum(2)).min(1)
    # Features are stored as float32: a relative error of 6e-8 each.
    assert record.limit == pytest.approx(distances.max(), rel=1e-5)  # the 99 % quantile of 20 values
    assert (record.images, record.train_images, record.validation_images) == (84, 84, 20)
    table = pq.read_table(published_run / "reference.parquet")
    with Image.open(io.BytesIO(table.column("thumbnail")[0].as_py())) as image:
        assert (image.format, image.size) == ("JPEG", (32, 32))


def test_write_examples_are_of_different_lesions(published_run: Path) -> None:
    rows = read_rows(published_run / "examples.parquet", "test", ["dx", "lesion_id"])
    assert rows.groupby("dx").size().to_dict() == {"df": 4, "nv": 4, "vasc": 4}
    assert rows[rows["dx"] == "nv"]["lesion_id"].nunique() == 4
