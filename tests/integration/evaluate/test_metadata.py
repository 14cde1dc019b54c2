"""A run with classifiers that get age, sex and site: evaluated, reported, used for new images, and exported."""

import importlib.util
import io
import json
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

from components.evaluate.predict import grad_cam
from components.shared import keras_setup, patient_metadata
from components.shared.files import file_sha256
from components.shared.image_set import encode_png, open_pixels, read_rows
from components.shared.records import ClassifierRecord, load_record, write_record
from components.shared.workflow_size import parse_pack
from components.train_classifier.train import train
from counterweight import export, predict, published, reevaluate
from tests.helpers.errors import raises_user_error
from tests.helpers.patients import add_patients
from tests.helpers.published_run import write_manifest
from tests.integration.evaluate.conftest import ARMS, SEEDS, RunFolders

pytestmark = pytest.mark.usefixtures("no_figures")
CLASSES = ("df", "nv", "vasc")


def classifier(seed: int, width: int) -> keras.Model:
    """Return a classifier with two inputs, whose metadata matter as much as the image."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    image, given = keras.Input((32, 32, 3)), keras.Input((width,))
    x = layers.Conv2D(4, 5, 4, activation="relu")(layers.Rescaling(1 / 255)(image))
    both = layers.Concatenate()([layers.GlobalAveragePooling2D()(x), layers.Dense(4, activation="relu")(given)])
    head = layers.Dense(3, "softmax", kernel_initializer=keras.initializers.RandomNormal(0, 2, seed))
    return keras.Model([image, given], head(both))


def give_patients(run: RunFolders, scratch: Path) -> patient_metadata.MetadataEncoding:
    """Give the images of a run patients, and return the encoding for its training images."""
    training, test = run.arguments["training_data"], run.arguments["test_data"]
    for path in (training / "train.parquet", training / "validation.parquet", test / "test.parquet"):
        add_patients(path, scratch / path.name)
        shutil.copyfile(scratch / path.name, path)
    return patient_metadata.fit(read_rows(training / "train.parquet", "train"))


def write_classifier(run: RunFolders, arm: str, seed: int, encoding: patient_metadata.MetadataEncoding) -> None:
    """Write a classifier with metadata, with the settings of the oversampled one."""
    path = run.record(arm, seed)
    model = classifier(seed, len(patient_metadata.inputs(encoding)))
    keras_setup.save_model(model, path.with_suffix(".keras"))
    record = load_record(run.record("oversampled", seed), ClassifierRecord)
    changes = {
        "arm": arm,
        "metadata": encoding,
        "parameters": model.count_params(),
        "model_sha256": file_sha256(path.with_suffix(".keras")),
        "train_set_sha256": "f" * 64,
    }
    write_record(path, record.model_copy(update=changes))


@pytest.fixture(scope="module")
def folders(run: RunFolders, tmp_path_factory: pytest.TempPathFactory) -> RunFolders:
    """The run with patients, and the arm `metadata` as well."""
    folder = tmp_path_factory.mktemp("metadata")
    shutil.copytree(run.folder, folder / "run", ignore=shutil.ignore_patterns("results", "report.html"))
    found = RunFolders(folder / "run")
    encoding = give_patients(found, folder)
    for seed in SEEDS:
        write_classifier(found, "metadata", seed, encoding)
    return found


@pytest.fixture(scope="module")
def results(folders: RunFolders) -> dict[str, Any]:
    return folders.evaluate()


@pytest.fixture(scope="module")
def place(folders: RunFolders, results: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(folders, tmp_path_factory.mktemp("published") / "run")


def publish(folders: RunFolders, place: Path) -> Path:
    """Copy an evaluated run to a place, as publish does, and return the place."""
    shutil.copytree(folders.folder / "results", place)
    for part in (folders.arguments["synthetic_images"], *folders.arguments["classifiers"]):
        shutil.copytree(part, place, dirs_exist_ok=True)
    return write_manifest(place)


def load_arm(place: Path, scratch: Path, name: str = "metadata") -> published.Arm:
    return published.load_arm(reevaluate.open_published(str(place), scratch), name)


def test_evaluate_predicts_with_the_metadata_of_the_images(folders: RunFolders, results: dict[str, Any]) -> None:
    path = folders.record("metadata", SEEDS[0])
    encoding = load_record(path, ClassifierRecord).metadata
    model = keras.saving.load_model(path.with_suffix(".keras"))
    with open_pixels(folders.arguments["test_data"] / "test.parquet", "test") as pixels:
        codes = patient_metadata.encode_optional(encoding, pixels.metadata)
        expected = keras_setup.predict_probabilities(model, pixels.images, codes)
    table = pd.read_parquet(folders.folder / "results" / "predictions.parquet")
    rows = table[(table["arm"] == "metadata") & (table["seed"] == SEEDS[0]) & (table["set"] == "test")]
    assert rows[[f"p_{dx}" for dx in CLASSES]].to_numpy() == pytest.approx(expected, abs=1e-6)


def test_evaluate_reports_what_metadata_bring_with_a_warning(folders: RunFolders, results: dict[str, Any]) -> None:
    arms, found = results["arms"], results["effect"]["metadata"]
    for name in ("rare_recall", "balanced_accuracy", "macro_auc"):
        assert found[name]["value"] == pytest.approx(arms["metadata"][name] - arms["oversampled"][name])
        assert found[name]["low"] <= found[name]["value"] <= found[name]["high"]
    assert {it["arm"] for it in results["effect"]["remedies"]} == {"oversampled", "augmented@1", "metadata"}
    assert results["effect"]["best_control"] == "oversampled"  # synthetic images are not compared with more inputs
    assert "metadata" not in results["run"]["settings"]
    warning = "The classifiers of the arm metadata get age, sex and site"
    for name in ("report.html", "results/model_card.md", "results/comparison.md"):
        text = (folders.folder / name).read_text(encoding="utf-8")
        assert warning in text, name
        assert "as a second input, compared with oversampled" in text, name
    assert "Models get no metadata" not in (folders.folder / "report.html").read_text(encoding="utf-8")


def test_evaluate_with_metadata_in_all_arms(folders: RunFolders, tmp_path: Path) -> None:
    shutil.copytree(folders.folder, tmp_path / "run", ignore=shutil.ignore_patterns("results", "report.html"))
    every = RunFolders(tmp_path / "run")
    encoding = load_record(folders.record("metadata", SEEDS[0]), ClassifierRecord).metadata
    assert encoding is not None
    for seed in SEEDS:
        for suffix in (".json", ".keras"):
            every.record("metadata", seed).with_suffix(suffix).unlink()
        for arm in ARMS[1:]:
            write_classifier(every, arm, seed, encoding)
    with raises_user_error("evaluate.different_settings"):  # the baseline has none
        every.evaluate()
    for seed in SEEDS:
        write_classifier(every, ARMS[0], seed, encoding)
    results = every.evaluate()
    assert results["run"]["settings"]["metadata"] == "late_fusion"
    assert "metadata" not in results["effect"]
    report = (every.folder / "report.html").read_text(encoding="utf-8")
    assert "The classifiers of all arms get age, sex and site" in report
    # Label fidelity is that of images without metadata, and so is the recall beside it.
    model = keras.saving.load_model(every.record("oversampled", SEEDS[0]).with_suffix(".keras"))
    other = keras.saving.load_model(every.record("oversampled", SEEDS[1]).with_suffix(".keras"))
    with open_pixels(every.arguments["training_data"] / "validation.parquet", "validation") as pixels:
        missing = patient_metadata.encode_missing(encoding, len(pixels.images))
        labels = [keras_setup.predict_probabilities(it, pixels.images, missing).argmax(1) for it in (model, other)]
        recall = np.mean([(found[pixels.labels == 0] == 0).mean() for found in labels])
    assert results["synthetic"]["df"]["validation_recall"] == pytest.approx(recall)


def test_run_with_late_fusion_is_trained_evaluated_and_used(folders: RunFolders, tmp_path: Path) -> None:
    """One seed and one epoch of the real network, with synthetic images in one arm, from training to new images."""
    shutil.copytree(folders.folder, tmp_path / "run", ignore=shutil.ignore_patterns("results", "report.html"))
    real = RunFolders(tmp_path / "run")
    arguments = {"training_data": real.arguments["training_data"], "synthetic_per_class": 9, "random_seed": 1}
    arguments |= {"epochs": 1, "metadata": "late_fusion"}
    for folder, pack in zip(
        real.arguments["classifiers"], ("baseline:1*,oversampled:1*", "augmented@1:1*"), strict=True
    ):
        shutil.rmtree(folder)
        synthetic = real.arguments["synthetic_images"]
        train(jobs=parse_pack(pack), synthetic_images=synthetic, classifiers=folder, **arguments)
    results = real.evaluate()
    assert results["run"]["settings"]["metadata"] == "late_fusion"
    assert results["run"]["seeds"] == [1]
    report = (real.folder / "report.html").read_text(encoding="utf-8")
    assert "The classifiers of all arms get age, sex and site" in report
    place = publish(real, tmp_path / "published")
    metadata = write_images(tmp_path / "images", real, "patients.csv")
    predict.run([f"RUN={place}", f"DATA={tmp_path / 'images'}", f"OUT={tmp_path / 'out'}"], io.StringIO())
    arm = load_arm(place, tmp_path / "scratch", results["effect"]["best"])
    with open_pixels(real.arguments["test_data"] / "test.parquet", "test") as pixels:
        expected = arm.predict(pixels.images, metadata)
    assert read_predictions(tmp_path / "out") == pytest.approx(expected, abs=1e-5)


def test_evaluate_refuses_an_arm_metadata_without_an_encoding(folders: RunFolders, tmp_path: Path) -> None:
    shutil.copytree(folders.folder, tmp_path / "run", ignore=shutil.ignore_patterns("results", "report.html"))
    changed = RunFolders(tmp_path / "run")
    path = changed.record("metadata", SEEDS[0])
    write_record(path, load_record(path, ClassifierRecord).model_copy(update={"metadata": None}))
    with raises_user_error("evaluate.wrong_record", arm="metadata"):
        changed.evaluate()


def test_grad_cam_explains_the_decision_with_metadata() -> None:
    model = classifier(1, 6)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    codes = np.random.default_rng(1).normal(size=(3, 6)).astype(np.float32)
    heat = grad_cam.heatmaps(model, images, np.array([0, 1, 2]), codes)
    assert heat is not None
    assert heat.shape == (3, 7, 7)
    assert np.isfinite(heat).all()
    assert heat.max() == 1
    # The features that are compared are those of the image alone.
    assert grad_cam.extractor(model).predict_on_batch(images).shape == (3, 4)


def write_images(folder: Path, run: RunFolders, table: str | None) -> pd.DataFrame:
    """Write the test images as PNG files, and a table beside them; return their metadata."""
    folder.mkdir()
    with open_pixels(run.arguments["test_data"] / "test.parquet", "test") as pixels:
        names = [f"{number:03}" for number in range(len(pixels.images))]
        for name, image in zip(names, pixels.images, strict=True):
            (folder / f"{name}.png").write_bytes(encode_png(image))
        metadata = pixels.metadata
    if table is not None:
        rows = metadata.rename(columns={"age": "age_approx", "localization": "anatom_site_general"})
        rows.assign(image=names).to_csv(folder / table, index=False)
    return metadata


def read_predictions(folder: Path) -> np.ndarray:
    return pd.read_parquet(folder / "predictions.parquet")[[f"p_{dx}" for dx in CLASSES]].to_numpy()


def test_predict_reads_the_metadata_of_a_table_or_counts_them_as_missing(
    place: Path, folders: RunFolders, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metadata = write_images(tmp_path / "with", folders, "patients.csv")
    write_images(tmp_path / "without", folders, None)
    arm = load_arm(place, tmp_path / "scratch")
    with open_pixels(folders.arguments["test_data"] / "test.parquet", "test") as pixels:
        known, missing = arm.predict(pixels.images, metadata), arm.predict(pixels.images)
    assert np.abs(known - missing).max() > 0.01
    for name, expected in (("with", known), ("without", missing)):
        out = tmp_path / f"out-{name}"
        words = [f"RUN={place}", f"DATA={tmp_path / name}", "ARM=metadata", f"OUT={out}"]
        predict.run(words, io.StringIO())
        assert read_predictions(out) == pytest.approx(expected, abs=1e-5)
    output = capsys.readouterr().out
    known_images = int(metadata["age"].notna().sum())
    assert f"images with age, sex or site: {known_images}" in output
    details = json.loads((tmp_path / "out-with" / "predictions.json").read_text())
    assert details["metadata"]["localization"] == ["back", "face"]
    assert details["metadata"]["numbers"][0] == "age"


def test_predict_without_metadata_reads_no_table(place: Path, folders: RunFolders, tmp_path: Path) -> None:
    write_images(tmp_path / "data", folders, None)
    (tmp_path / "data" / "patients.csv").write_text("image,age\n000,1,2\n")
    words = [f"RUN={place}", f"DATA={tmp_path / 'data'}", f"OUT={tmp_path / 'out'}"]
    predict.run([*words, "ARM=oversampled"], io.StringIO())
    with raises_user_error("metadata.invalid_csv"):
        predict.run([*words, "ARM=metadata"], io.StringIO())


def check_export(folder: Path, place: Path, scratch: Path, call: Any) -> None:
    """Compare an exported model with the original, for some metadata, and for missing ones."""
    arm = load_arm(place, scratch)
    details = json.loads((folder / "export.json").read_text())
    assert details["metadata_input"] == {
        "name": "metadata", "shape": [None, len(details["metadata"]["numbers"])], "dtype": "float32",
        "content": "see metadata",
    }  # fmt: skip
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.float32)
    known = patient_metadata.table_of([{"age": 70, "sex": "Male", "localization": "face"}] * 2)
    codes = np.array([details["metadata"]["missing"]] * 2, np.float32)
    for given, table in ((arm.encode(known), known), (codes, None)):
        found = call(image=images, metadata=given)
        assert found == pytest.approx(arm.predict(images.astype(np.uint8), table), abs=1e-4)
    assert details["largest_difference"] <= export.TOLERANCE


def test_export_savedmodel_has_the_second_input(place: Path, tmp_path: Path) -> None:
    import tensorflow as tf

    out = tmp_path / "out"
    export.run([f"RUN={place}", "FORMAT=savedmodel", "ARM=metadata", f"OUT={out}"], io.StringIO())
    serve = tf.saved_model.load(str(out / "1")).signatures["serving_default"]

    def call(**given: np.ndarray) -> np.ndarray:
        return next(iter(serve(**{name: tf.constant(value) for name, value in given.items()}).values())).numpy()

    check_export(out, place, tmp_path / "scratch", call)


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in export.ONNX_PACKAGES),
    reason="ONNX IS NOT TESTED: the dependency group `export` is not installed",
)
def test_export_onnx_has_the_second_input(place: Path, tmp_path: Path) -> None:
    import onnxruntime

    out = tmp_path / "out"
    export.run([f"RUN={place}", "FORMAT=onnx", "ARM=metadata", f"OUT={out}"], io.StringIO())
    session = onnxruntime.InferenceSession(str(out / "model.onnx"), providers=["CPUExecutionProvider"])
    check_export(out, place, tmp_path / "scratch", lambda **given: session.run(None, given)[0])


def test_load_arm_refuses_a_model_with_another_second_input(place: Path, tmp_path: Path) -> None:
    changed = Path(shutil.copytree(place, tmp_path / "run"))
    path = changed / "models" / "metadata.json"
    record = load_record(path, ClassifierRecord)
    assert record.metadata is not None
    fewer = record.metadata.model_copy(update={"sex": record.metadata.sex[:1]})
    write_record(path, record.model_copy(update={"metadata": fewer}))
    write_manifest(changed)
    with raises_user_error("model.invalid"):
        load_arm(changed, tmp_path / "scratch")


def test_seeds_of_an_arm_have_one_encoding(place: Path, tmp_path: Path) -> None:
    changed = Path(shutil.copytree(place, tmp_path / "run"))
    path = changed / "models" / f"metadata-seed{SEEDS[1]}.json"
    record = load_record(path, ClassifierRecord)
    assert record.metadata is not None
    other = record.metadata.model_copy(update={"age_mean": 1.0})
    write_record(path, record.model_copy(update={"metadata": other}))
    write_manifest(changed)
    with raises_user_error("evaluate.different_settings"):
        load_arm(changed, tmp_path / "scratch")


@pytest.mark.skipif(
    importlib.util.find_spec("gradio") is None,
    reason="THE DEMO IS NOT TESTED: the dependency group `demo` is not installed",
)
def test_demo_asks_for_metadata_and_uses_those_of_test_images(place: Path, published_run: Path, tmp_path: Path) -> None:
    from counterweight import demo_page
    from counterweight.demo_model import Demo

    demo = Demo(reevaluate.open_published(str(place), tmp_path / "scratch"))
    number, example = next((n, each) for n, each in enumerate(demo.examples) if each.metadata["age"] is not None)
    table = patient_metadata.table_of([example.metadata])
    answer = demo.classify(example.pixels, "metadata", example.metadata)
    assert answer.probabilities["metadata"] == pytest.approx(
        demo.arms["metadata"].predict(example.pixels[None], table)[0]
    )
    assert answer.heat is not None
    unknown = demo.classify(example.pixels, "metadata")
    assert unknown.metadata == ["age missing", "sex missing", "localization missing"]
    assert np.abs(unknown.probabilities["metadata"] - answer.probabilities["metadata"]).max() > 0.001
    assert unknown.probabilities["oversampled"] == pytest.approx(answer.probabilities["oversampled"])
    labels = [field.label for field in demo_page._metadata_fields(demo.encoding)]
    assert labels == ["Age in years (optional)", "Sex (optional)", "Site (optional)"]
    page = demo_page._classify(demo, None, number, "metadata", 1e9, "<b>", None)
    assert "age missing, sex missing, localization: " in page  # the site is that of the test image
    assert "<b>" not in page
    page = demo_page._classify(demo, None, number, "metadata", None, "", "")
    assert f"age: {example.metadata['age']:g}" in page
    demo_page.build(demo)
    without = Demo(reevaluate.open_published(str(published_run), tmp_path / "other"))
    assert demo_page._metadata_fields(without.encoding) == []
    assert "Metadata of the patient" not in demo_page._classify(without, None, 0, "baseline")
