"""The champion from its publication to the manifest of the next run; bad champions are refused before training."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.evaluate import champion as comparing
from components.evaluate import drift
from components.evaluate.predict.published import open_run
from components.publish.champion import read_champion
from components.publish.publish import collect, publish
from components.shared import champion, keras_setup
from components.shared.errors import UserError
from components.shared.files import file_sha256
from components.shared.image_set import decode_png, encode_png, pixel_sha256, read_header, write_image_set
from components.shared.published import find_file
from components.shared.records import ChampionRun, ChosenChampion, Manifest, Results, load_record
from tests.helpers.errors import raises_user_error
from tests.helpers.published_run import write_manifest
from tests.integration.evaluate.conftest import SEEDS, RunFolders, edit

pytestmark = pytest.mark.usefixtures("no_figures")
ARM = "augmented@1"
CANDIDATE = f"models/{ARM}.keras"
ADVISED = "oversampled"
"""The arm that the evaluation of these runs advises: there is no evidence that synthetic images help."""


@pytest.fixture
def runs(published_run: Path, tmp_path: Path) -> Path:
    """A folder of runs; `first` has a candidate."""
    shutil.copytree(published_run, tmp_path / "runs" / "first")
    write_manifest(tmp_path / "runs" / "first", CANDIDATE)
    return tmp_path / "runs"


def choose(runs: Path, value: str = champion.LAST, image_size: int = 32) -> ChosenChampion:
    return champion.choose(value, str(runs / "second"), image_size, runs.parent / "scratch")


def copy(runs: Path, run: RunFolders) -> Path:
    """Choose and read the champion, as check_inputs and read_champion do; return the folder of its files."""
    text = champion.format_choice(choose(runs))
    read_champion(text, run.arguments["training_data"], runs.parent / "champion")
    return runs.parent / "champion"


def retrain(run: RunFolders, arm: str) -> None:
    """Replace the classifiers of an arm by some that classify all images as nv."""
    for seed in SEEDS:
        path = run.record(arm, seed)
        model = keras.saving.load_model(path.with_suffix(".keras"))
        weights = model.get_weights()
        weights[-1] = weights[-1] + [0.0, 50.0, 0.0]
        model.set_weights(weights)
        path.with_suffix(".keras").unlink()
        keras_setup.save_model(model, path.with_suffix(".keras"))
        edit(path, model_sha256=file_sha256(path.with_suffix(".keras")))


def publish_second(run: RunFolders, runs: Path, promote_if: str = "always", name: str = "second") -> Manifest:
    """Publish an evaluated run beside the first, as the component does."""
    results = load_record(run.folder / "results" / "metrics.json", Results)
    folders = [run.arguments["synthetic_images"], *run.arguments["classifiers"], run.folder / "results"]
    files = collect([str(folder) for folder in folders], {"splits.csv": runs / "first" / "splits.csv"})
    publish(
        str(runs / name),
        files,
        runs.parent / "artifact",
        results.verdict,
        results.advice,
        promote_if,
        champion=results.champion,
    )
    return load_record(runs / name / "manifest.json", Manifest)


def test_evaluate_compares_the_candidate_with_that_of_the_run_before(
    runs: Path, changed_run: RunFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third run is compared with the second, whose candidate is the newest.

    The candidate is the arm that the report advises. Regression: it was the one with synthetic images in any case.
    """
    monkeypatch.setattr(comparing, "MIN_LESIONS", 2)
    retrain(changed_run, ADVISED)
    changed_run.evaluate(champion=copy(runs, changed_run))
    found = load_record(changed_run.folder / "results" / "metrics.json", Results).champion
    assert found is not None
    assert found.run is not None
    assert found.comparison is not None
    assert (found.run.run, found.run.arm) == ("first", ARM)
    first = load_record(runs / "first" / "metrics.json", Results).arms[ARM]
    figures = found.comparison.figures
    for metric in comparing.METRICS:
        assert figures[metric].champion.value == pytest.approx(getattr(first, metric), abs=1e-5), metric
    assert figures["rare_recall"].candidate.value == 0.0
    assert figures["balanced_accuracy"].candidate.value == pytest.approx(1 / 3)
    assert (found.comparison.lesions, found.comparison.excluded_lesions, found.comparison.seeds) == (12, 0, 2)
    report = (changed_run.folder / "report.html").read_text()
    assert "Do not add synthetic images" in report
    assert f"The candidate is {ADVISED} of this run" in report
    for name in ("comparison.md", "model_card.md"):
        assert "of run first" in (changed_run.folder / "results" / name).read_text()
    assert 'id="champion"' in report

    manifest = publish_second(changed_run, runs)
    assert manifest.candidate == f"models/{ADVISED}.keras"
    assert manifest.champion is not None
    assert manifest.champion.model_dump() == {
        "run": "first",
        "manifest_sha256": file_sha256(runs / "first" / "manifest.json"),
        "verdict": found.comparison.verdict,
    }
    third = champion.choose(champion.LAST, str(runs / "third"), 32, runs.parent / "scratch")
    assert third.run is not None
    assert (third.run.run, third.run.place, third.run.arm) == ("second", str(runs / "second"), ADVISED)


def test_evaluate_of_the_same_models_has_no_drift_and_no_difference(
    runs: Path, changed_run: RunFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "MIN_LESIONS", 2)
    write_manifest(runs / "first", f"models/{ADVISED}.keras")
    found = changed_run.evaluate(champion=copy(runs, changed_run))["champion"]
    assert found["comparison"]["verdict"] == "no evidence"
    assert {figure["difference"]["value"] for figure in found["comparison"]["figures"].values()} == {0.0}
    changes = found["drift"]
    assert changes["images"] == [84, 84]
    assert changes["classes"]["df"] == pytest.approx([10 / 84, 10 / 84])
    assert (changes["class_distance"], changes["class_p"]) == (0.0, 1.0)
    assert (changes["sex_distance"], changes["site_distance"], changes["median_age"]) == (None, None, None)
    assert (changes["appearance"], changes["appearance_p"]) == (None, None), "no lesion is new"
    assert publish_second(changed_run, runs, "not_worse").candidate == f"models/{ADVISED}.keras"


def test_evaluate_excludes_lesions_that_the_champion_has_seen_and_establishes_nothing_with_few(
    runs: Path, changed_run: RunFolders
) -> None:
    listed = pd.read_csv(runs / "first" / "splits.csv")
    listed.loc[listed["lesion_id"].isin(["test-df-lesion-0", "validation-nv-lesion-1"]), "split"] = "train"
    listed.to_csv(runs / "first" / "splits.csv", index=False)
    write_manifest(runs / "first", CANDIDATE)
    found = changed_run.evaluate(champion=copy(runs, changed_run))["champion"]["comparison"]
    assert (found["excluded_lesions"], found["excluded_images"], found["rare_lesions"]) == (1, 2, 1)
    # All validation images were validation images of the first run, too.
    assert found["seen_validation_images"] == 20
    assert (found["few"], found["verdict"], found["figures"]) == (True, "not established", {})
    assert "Too few test lesions" in (changed_run.folder / "results" / "comparison.md").read_text()
    for promote_if in ("improved", "not_worse"):
        assert publish_second(changed_run, runs, promote_if).candidate is None


def test_champion_last_without_a_candidate_is_a_note(
    runs: Path, changed_run: RunFolders, capsys: pytest.CaptureFixture
) -> None:
    write_manifest(runs / "first")
    (runs / "unfinished").mkdir()
    (runs / "foreign").mkdir()
    (runs / "foreign" / "manifest.json").write_text("{}")
    (runs / "linked").mkdir()
    (runs / "linked" / "manifest.json").symlink_to(runs / "first" / "manifest.json")
    assert choose(runs) == ChosenChampion(requested="last", run=None)
    log = capsys.readouterr().out
    assert "foreign is no champion" in log
    assert "linked is no champion" in log
    outcome = changed_run.evaluate(champion=copy(runs, changed_run))
    assert outcome["champion"] == {"run": None, "comparison": None, "drift": None}
    assert "no earlier run has a candidate" in capsys.readouterr().out
    assert "No champion" in (changed_run.folder / "report.html").read_text()
    assert publish_second(changed_run, runs).champion is None


def test_champion_last_is_not_the_run_itself(runs: Path) -> None:
    chosen = champion.choose(champion.LAST, str(runs / "first"), 32, runs.parent / "scratch")
    assert chosen.run is None


@pytest.mark.parametrize("output", ["first", "second/../first"])
def test_champion_that_the_run_would_replace_is_refused(runs: Path, output: str) -> None:
    (runs / "second").mkdir()
    with raises_user_error("champion.own_output"):
        champion.choose(str(runs / "first"), str(runs / output), 32, runs.parent / "scratch")


def test_champion_last_in_a_new_output_is_a_note(tmp_path: Path) -> None:
    assert champion.choose(champion.LAST, str(tmp_path / "new" / "run"), 32, tmp_path).run is None


def test_champion_last_does_not_depend_on_arms_whose_names_start_alike(runs: Path) -> None:
    """The oldest of several runs with the same candidate is the champion, whatever their other models are."""
    shutil.copytree(runs / "first", runs / "later")
    (runs / "later" / "models" / f"{ARM}0.keras").write_bytes(b"another model")
    write_manifest(runs / "later", CANDIDATE)
    found = choose(runs).run
    assert found is not None
    assert found.run == "first"


def test_champion_by_its_folder_is_the_same_as_the_last(runs: Path) -> None:
    expected = ChampionRun(
        place=str(runs / "first"),
        run="first",
        manifest_sha256=file_sha256(runs / "first" / "manifest.json"),
        arm=ARM,
    )
    assert choose(runs, str(runs / "first")).run == choose(runs).run == expected
    text = champion.format_choice(choose(runs))
    assert champion.parse_choice(text).run == expected


@pytest.mark.parametrize("value", ["", '{"requested": "last"}', '{"requested": "last", "run": {"place": 1}}'])
def test_parse_choice_of_another_text_is_a_user_error(value: str) -> None:
    with raises_user_error("champion.invalid"):
        champion.parse_choice(value)


def rewrite(runs: Path, **changes: Any) -> None:
    """Change `run` of the first run's results, and publish it again."""
    path = runs / "first" / "metrics.json"
    results = json.loads(path.read_text())
    results["run"] |= changes
    path.write_text(json.dumps(results))
    write_manifest(runs / "first", CANDIDATE)


def remove(runs: Path, name: str) -> None:
    (runs / "first" / name).unlink()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda runs: shutil.rmtree(runs / "first"), "champion.not_found"),
        (lambda runs: remove(runs, "manifest.json"), "champion.not_found"),
        (lambda runs: write_manifest(runs / "first"), "champion.no_candidate"),
        (lambda runs: (runs / "first" / "manifest.json").write_text("[]"), "record.invalid"),
        (lambda runs: write_manifest(runs / "first", "models/other.keras"), "champion.other_arm"),
        (lambda runs: rewrite(runs, image_size=64), "champion.other_size"),
        (lambda runs: rewrite(runs, seeds=[1, 2, 3]), "run.missing_file"),
        (lambda runs: (runs / "first" / "metrics.json").write_text("{}"), "run.changed_file"),
        (lambda runs: remove(runs, "metrics.json"), "run.missing_file"),
    ],
)
def test_choose_bad_champion_is_refused(runs: Path, change: Callable[[Path], Any], code: str) -> None:
    change(runs)
    with pytest.raises(UserError) as caught:
        choose(runs, str(runs / "first"))
    assert caught.value.code == code
    assert str(runs / "first") in caught.value.message


def test_choose_last_with_output_auto_is_refused(tmp_path: Path) -> None:
    with raises_user_error("champion.no_output"):
        champion.choose(champion.LAST, "auto", 32, tmp_path)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda runs: (runs / "first" / CANDIDATE).write_bytes(b"PK\3\4"), "run.changed_file"),
        (lambda runs: remove(runs, f"models/{ARM}-seed2.keras"), "run.missing_file"),
        (lambda runs: write_manifest(runs / "first"), "champion.changed"),
    ],
)
def test_read_champion_that_was_changed_is_refused_and_leaves_nothing(
    runs: Path, run: RunFolders, change: Callable[[Path], Any], code: str
) -> None:
    text = champion.format_choice(choose(runs))
    change(runs)
    with pytest.raises(UserError) as caught:
        read_champion(text, run.arguments["training_data"], runs.parent / "champion")
    assert caught.value.code == code
    assert not (runs.parent / "champion").exists()


def test_read_champion_with_other_classes_is_refused(runs: Path, run: RunFolders, tmp_path: Path) -> None:
    header = read_header(run.arguments["training_data"] / "train.parquet")
    (tmp_path / "data").mkdir()
    with write_image_set(tmp_path / "data" / "train.parquet", replace(header, classes=("df", "mel", "nv"))):
        pass
    with raises_user_error("champion.other_classes"):
        read_champion(champion.format_choice(choose(runs)), tmp_path / "data", tmp_path / "champion")


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        (CANDIDATE, "PK", "evaluate.wrong_record"),
        ("splits.csv", "image_id\nx\n", "champion.no_splits"),
        ("splits.csv", "", "champion.no_splits"),
        ("predictions.parquet", "x", "predictions.invalid"),
        ("reference.parquet", "x", "reference.invalid"),
        (f"models/{ARM}.json", "{}", "record.invalid"),
    ],
)
def test_evaluate_refuses_a_champion_that_was_published_damaged(
    runs: Path, changed_run: RunFolders, name: str, content: str, code: str
) -> None:
    """The manifest has the hashes of these files: someone else may have written it."""
    (runs / "first" / name).write_text(content)
    write_manifest(runs / "first", CANDIDATE)
    folder = copy(runs, changed_run)
    with pytest.raises(UserError) as caught:
        changed_run.evaluate(champion=folder)
    assert caught.value.code == code
    assert not (changed_run.folder / "results").exists()


def test_evaluate_refuses_a_model_of_another_shape(runs: Path, changed_run: RunFolders) -> None:
    path = runs / "first" / CANDIDATE
    path.unlink()
    keras_setup.save_model(keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Flatten()]), path)
    edit(path.with_suffix(".json"), model_sha256=file_sha256(path))
    write_manifest(runs / "first", CANDIDATE)
    folder = copy(runs, changed_run)
    with raises_user_error("model.invalid") as caught:
        changed_run.evaluate(champion=folder)
    assert (caught.value.hint, caught.value.fields["arm"]) == ("set champion to another run, or to none", ARM)


@pytest.mark.parametrize(("brighter", "differs"), [(0, False), (60, True)])
def test_drift_of_new_lesions_is_a_distance_in_the_features_of_the_champion(
    runs: Path, make_set: Callable[..., Path], tmp_path: Path, brighter: int, differs: bool
) -> None:
    path = make_set(tmp_path / "train.parquet", "train", {"df": 30, "nv": 180, "vasc": 42}, seed=7)
    rows, header = pd.read_parquet(path), read_header(path)
    pixels = [np.clip(decode_png(it["bytes"]) + float(brighter), 0, 255).astype(np.uint8) for it in rows["image"]]
    with write_image_set(path, header) as out:
        columns = rows.drop(columns=["image", "split"]).assign(pixel_sha256=[pixel_sha256(it) for it in pixels])
        out.write(columns, [encode_png(it) for it in pixels])
    run = open_run("first", partial(find_file, runs / "first"))
    found = drift._appearance(run, pd.read_csv(runs / "first" / "splits.csv"), path, 1)
    assert found is not None
    assert (found[1] < 0.01) == differs
    assert found[0] > 0.1 or not differs


def replace_extractor(runs: Path, size: int, factor: float) -> None:
    """Replace the feature extractor of the first run by one for images of another size, or with other weights."""
    file = runs / "first" / "models" / "features.keras"
    inputs = keras.Input((size, size, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(inputs)
    features = keras.layers.Dense(224, kernel_initializer=keras.initializers.Constant(factor))(pooled)
    file.unlink()
    keras_setup.save_model(keras.Model(inputs, [features, keras.layers.Dense(3, "softmax")(pooled)]), file)
    edit(runs / "first" / "reference.json", features_sha256=file_sha256(file))


def enlarge_features(runs: Path) -> None:
    """Replace the features of the first run by numbers whose products are infinite."""
    file = runs / "first" / "reference.parquet"
    table = pq.read_table(file)
    large = pa.FixedSizeListArray.from_arrays(pa.array(np.full(224 * table.num_rows, 1e200)), 224)
    pq.write_table(table.set_column(table.schema.get_field_index("features"), "features", large), file)


@pytest.mark.parametrize(
    "damage",
    [
        lambda runs: replace_extractor(runs, 64, 1.0),
        lambda runs: replace_extractor(runs, 32, float("nan")),
        enlarge_features,
    ],
)
def test_drift_refuses_features_that_cannot_be_compared(
    runs: Path, make_set: Callable[..., Path], tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    path = make_set(tmp_path / "train.parquet", "train", {"df": 30, "nv": 180, "vasc": 42}, seed=7)
    damage(runs)
    write_manifest(runs / "first", CANDIDATE)
    run = open_run("first", partial(find_file, runs / "first"))
    with raises_user_error("features.invalid"):
        drift._appearance(run, pd.read_csv(runs / "first" / "splits.csv"), path, 1)


def test_evaluate_with_a_champion_of_an_earlier_version_measures_no_appearance(
    runs: Path, changed_run: RunFolders
) -> None:
    for name in champion.OPTIONAL_FILES:
        remove(runs, name)
    write_manifest(runs / "first", CANDIDATE)
    changes = changed_run.evaluate(champion=copy(runs, changed_run))["champion"]["drift"]
    assert (changes["appearance"], changes["appearance_p"]) == (None, None)


def test_read_images_takes_any_text_as_an_id(make_set: Callable[..., Path], tmp_path: Path) -> None:
    path = make_set(tmp_path / "test.parquet", "test", {"df": 2, "nv": 2, "vasc": 2})
    rows = pd.read_parquet(path, columns=["image_id"])
    rows.assign(patient_id="null").to_csv(tmp_path / "splits.csv", index=False)
    assert comparing.read_images(path, "test", tmp_path / "splits.csv")["patient_id"].tolist() == ["null"] * len(rows)
