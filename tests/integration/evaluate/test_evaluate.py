"""The phase as a whole: artifacts in, results out; leakage and mixed runs are refused."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from kfp import dsl
from sklearn import metrics

from components.evaluate import component
from components.evaluate.predict.probabilities import load_probabilities
from components.evaluate.results import headline, headline_metrics
from components.shared.errors import UserError
from components.shared.image_set import open_pixels, read_header, read_rows, write_image_set
from components.shared.records import (
    DataSource,
    FailedGan,
    Provenance,
    Results,
    SharedGan,
    SyntheticSource,
    SyntheticSources,
    load_gan_record,
    load_record,
    write_record,
)
from tests.helpers.example_results import example
from tests.helpers.rendering import record
from tests.integration.evaluate.conftest import ARMS, SEEDS, SYNTHETIC_IMAGES, RunFolders, edit

pytestmark = pytest.mark.usefixtures("no_figures")


def refused(run: RunFolders, **changes: Any) -> UserError:
    """Return the error of an evaluation that must leave nothing behind."""
    with pytest.raises(UserError) as caught:
        run.evaluate(**changes)
    assert not (run.folder / "results").exists()
    assert not (run.folder / "report.html").exists()
    return caught.value


def test_evaluate_figures_follow_from_the_stored_predictions(
    run: RunFolders, evaluated: tuple[dict[str, Any], Path]
) -> None:
    outcome, folder = evaluated
    assert json.loads((folder / "results" / "metrics.json").read_text()) == outcome
    table = pd.read_parquet(folder / "results" / "predictions.parquet")
    truth = pd.read_parquet(run.arguments["test_data"] / "test.parquet")
    assert table.groupby("set").size().to_dict() == {"validation": 20 * 6, "test": 24 * 6}
    classes = outcome["classes"]
    assert classes == ["df", "nv", "vasc"]
    for arm in ARMS:
        figures, recalls = outcome["arms"][arm], []
        for seed in SEEDS:
            rows = table[(table["arm"] == arm) & (table["seed"] == seed) & (table["set"] == "test")]
            assert rows["image_id"].tolist() == truth["image_id"].tolist()
            probabilities = rows[["p_df", "p_nv", "p_vasc"]].to_numpy()
            predicted = np.array(classes)[probabilities.argmax(1)]
            recalls.append(metrics.recall_score(rows["dx"], predicted, average=None, labels=classes))
            assert figures["by_seed"][str(seed)]["rare_recall"] == pytest.approx(recalls[-1][0])
            assert figures["by_seed"][str(seed)]["accuracy"] == pytest.approx((predicted == rows["dx"]).mean())
        assert list(figures["recall"].values()) == pytest.approx(np.mean(recalls, 0).tolist())
        assert figures["balanced_accuracy"] == pytest.approx(np.mean(recalls))
        assert np.sum(figures["confusion"]) == 24 * len(SEEDS)
        assert len(figures["temperature"]) == len(SEEDS)
        assert list(figures["models"]) == ["1", "2"]
    assert outcome["splits"]["test"] == {
        "df": {"images": 4, "lesions": 2},
        "nv": {"images": 14, "lesions": 7},
        "vasc": {"images": 6, "lesions": 3},
    }
    assert outcome["external"] is None
    assert outcome["arms"]["augmented@1"]["train_rows"] == 93


def test_evaluate_records_what_identifies_the_run(evaluated: tuple[dict[str, Any], Path], run: RunFolders) -> None:
    outcome, folder = evaluated
    details = outcome["run"]
    assert (details["seeds"], details["malignant"], details["rare_classes"]) == ([1, 2], ["vasc"], ["df"])
    assert details["parameters"] == run.arguments["parameters"]
    assert "plan" not in details
    written = load_record(folder / "results" / "metrics.json", Results).run
    assert written.model_dump(exclude={"folds", "pooled_lesions", "plan"}) == details
    df = outcome["synthetic"]["df"]
    assert (df["images"], df["drawn"], df["best_kimg"], df["kid"]) == (SYNTHETIC_IMAGES, 12, 2.0, 0.1)
    assert {path.name for path in (folder / "results").iterdir()} == {
        "metrics.json", "predictions.parquet", "comparison.md", "model_card.md", "data_sheet.md",
        "reference.parquet", "reference.json", "examples.parquet",
    }  # fmt: skip


def test_component_records_the_parameters_of_the_form(changed_run: RunFolders) -> None:
    folder, given = changed_run.folder, changed_run.arguments
    parameters = {
        "arms": "augmented", "data": "elsewhere", "data_columns": "image_id:file,lesion_id:patient",
        "data_duplicates": "refuse", "data_external": "none", "data_split": "1/5", "gan_architecture": "dcgan",
        "gan_kimg": 4.0, "gan_shared_kimg": 0.0, "random_seed": 1, "synthetic": "gan", "synthetic_per_class": 9,
    }  # fmt: skip
    results, metrics_file = dsl.Artifact(uri=f"{folder}/results"), folder / "metrics"
    verdict = component.evaluate.python_func(
        **{name: dsl.Dataset(uri=str(given[name])) for name in ("training_data", "test_data", "synthetic_images")},
        classifiers_real=[dsl.Model(uri=str(given["classifiers"][0]))],
        classifiers_synthetic=[dsl.Model(uri=str(given["classifiers"][1]))],
        **parameters,
        positive_classes="vasc",
        synthetic_shares=[0.5, 1.0],
        plan="",
        results=results,
        report=dsl.HTML(uri=f"{folder}/report.html"),
        metrics=dsl.Metrics(uri=str(metrics_file)),
    )
    record = load_record(folder / "results" / "metrics.json", Results)
    assert record.run.parameters == parameters | {"synthetic_shares": "0.5, 1"}
    assert verdict == record.verdict
    assert json.loads(metrics_file.read_text()) == headline_metrics(record)
    assert list(results.metadata) == ["finished"]


def test_evaluate_reports_separability_and_label_fidelity(
    run: RunFolders, evaluated: tuple[dict[str, Any], Path]
) -> None:
    _, folder = evaluated
    df = load_record(folder / "results" / "metrics.json", Results).synthetic["df"]
    assert (df.separability, df.separability_spectrum) == (0.9, 0.97)
    with open_pixels(run.arguments["synthetic_images"] / "synthetic" / "df.parquet", "train") as pixels:
        models = [keras.saving.load_model(run.record("oversampled", seed).with_suffix(".keras")) for seed in SEEDS]
        assigned = [model.predict(pixels.images, verbose=0).argmax(1) == 0 for model in models]
    assert df.label_fidelity == pytest.approx(np.mean(assigned))
    table = pd.read_parquet(folder / "results" / "predictions.parquet")
    rows = table[(table["set"] == "validation") & (table["arm"] == "oversampled") & (table["dx"] == "df")]
    recall = (rows[["p_df", "p_nv", "p_vasc"]].to_numpy().argmax(1) == 0).mean()
    assert df.validation_recall == pytest.approx(recall)


def test_headline_metrics_are_a_dozen_and_the_effect_sorts_first(evaluated: tuple[dict[str, Any], Path]) -> None:
    outcome, _ = evaluated
    named = headline_metrics(Results(**outcome))
    assert len(named) == 12
    assert min(named) == "1_gan_effect"
    assert named["1_gan_effect"] == outcome["effect"]["value"]
    assert named["4_macro_auc_augmented"] == outcome["arms"]["augmented@1"]["macro_auc"]


def test_headline_without_a_value_states_why() -> None:
    results = record(example(2))
    effect = results.effect.model_copy(update={"value": None})
    outcome = results.model_copy(update={"effect": effect})
    assert headline(outcome, results.run).endswith(": the set has no image of a rebalanced class")
    run = results.run.model_copy(update={"rebalanced_classes": []})
    assert headline(outcome, run).endswith(": no rare class has synthetic images of every source")


def test_evaluate_without_synthetic_images_compares_a_remedy_with_the_baseline(remedies_run: RunFolders) -> None:
    parameters = remedies_run.arguments["parameters"] | {"gan_kimg": 8.0, "synthetic_per_class": 5}
    outcome = Results(**remedies_run.evaluate(parameters=parameters))
    recalls = {arm: it.rare_recall for arm, it in outcome.arms.items()}
    assert (outcome.effect.arm, outcome.effect.reference) == ("oversampled", "baseline")
    assert outcome.effect.value == pytest.approx(recalls["oversampled"] - recalls["baseline"])
    assert outcome.run.rebalanced_classes == outcome.run.rare_classes == ["df"]
    assert outcome.synthetic == {}
    assert "gan_kimg" not in outcome.run.parameters
    assert outcome.run.parameters["synthetic_per_class"] == 5
    named = headline_metrics(outcome)
    assert min(named) == "1_remedy_effect"
    assert named["2_rare_recall_remedy"] == recalls["oversampled"]
    assert len(named) == 9
    results = remedies_run.folder / "results"
    pages = [results / name for name in ("comparison.md", "model_card.md", "data_sheet.md")]
    for path in (*pages, remedies_run.folder / "report.html"):
        text = path.read_text(encoding="utf-8").lower()
        assert "oversampled" in text or path.name == "data_sheet.md"
        assert not re.search(r"\bgans?\b|synthetic image|augmented|kimg", text), path.name


def test_load_probabilities_is_the_inverse_of_the_table(evaluated: tuple[dict[str, Any], Path]) -> None:
    table = pd.read_parquet(evaluated[1] / "results" / "predictions.parquet")
    rows, probabilities = load_probabilities(table, "test", ARMS, SEEDS, ("df", "nv", "vasc"))
    assert len(rows) == 24
    assert probabilities["augmented@1"].shape == (2, 24, 3)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.assign(p_df=np.nan),
        lambda table: table.assign(p_df=-1.0),
        lambda table: table.assign(p_df=table["p_df"] + 1),
        lambda table: table.assign(dx="other"),
        lambda table: table.drop(columns="p_nv"),
        lambda table: table[table["seed"] == 1],
        lambda table: table.iloc[1:],
        lambda table: pd.concat([table, table.iloc[:1]]),
        lambda table: table.assign(p_df="x"),
        lambda table: table.assign(lesion_id=None),
        lambda table: pd.DataFrame({"set": ["test"]}),
        lambda table: table.drop(columns="set"),
    ],
)
def test_load_probabilities_invalid_table_is_a_user_error(
    evaluated: tuple[dict[str, Any], Path], change: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    table = pd.read_parquet(evaluated[1] / "results" / "predictions.parquet")
    with pytest.raises(UserError) as caught:
        load_probabilities(change(table[table["set"] == "test"]), "test", ARMS, SEEDS, ("df", "nv", "vasc"))
    assert caught.value.code == "predictions.invalid"


def test_evaluate_external_set_uses_the_same_models_and_thresholds(
    changed_run: RunFolders, evaluated: tuple[dict[str, Any], Path], make_set: Callable[..., Path]
) -> None:
    """Its classes may be a subset: figures of the others are null, and means are over the classes with images."""
    external_set = changed_run.arguments["synthetic_images"] / "external.parquet"
    make_set(external_set, "external", {"nv": 5, "vasc": 3}, seed=9)
    outcome = changed_run.evaluate()
    external = outcome["external"]
    assert external["counts"]["df"] == {"images": 0, "lesions": 0}
    assert (external["verdict"], external["effect"]["value"]) == ("no evidence", None)
    figures = external["arms"]["augmented@1"]
    assert figures["recall"]["df"] is None
    assert figures["balanced_accuracy"] == pytest.approx((figures["recall"]["nv"] + figures["recall"]["vasc"]) / 2)
    assert figures["temperature"] == outcome["arms"]["augmented@1"]["temperature"]
    table = pd.read_parquet(changed_run.folder / "results" / "predictions.parquet")
    assert (table["set"] == "external").sum() == 8 * 6
    assert {key: outcome[key] for key in ("arms", "effect", "verdict")} == {
        key: evaluated[0][key] for key in ("arms", "effect", "verdict")
    }


def test_evaluate_reads_the_duration_of_pretraining_from_the_whole_record(
    changed_run: RunFolders, evaluated: tuple[dict[str, Any], Path]
) -> None:
    assert evaluated[0]["run"]["pretraining_s"] is None
    trained = load_gan_record(changed_run.gan).model_dump(exclude={"dx", "status", "model_sha256", "seen"})
    shared = SharedGan(**trained | {"trained_on": ["df"], "features_sha256": "f" * 64, "seconds": 12.5})
    path = changed_run.gan.with_name("shared.json")
    write_record(path, shared)
    assert changed_run.evaluate()["run"]["pretraining_s"] == 12.5
    shutil.rmtree(changed_run.folder / "results")
    (changed_run.folder / "report.html").unlink()
    path.write_text('{"seconds": 12.5}')
    error = refused(changed_run)
    assert (error.code, error.fields["record"]) == ("record.invalid", "SharedGan")


def test_evaluate_reports_groups_of_the_test_images(
    changed_run: RunFolders, evaluated: tuple[dict[str, Any], Path]
) -> None:
    """The data has no metadata at first, but the classes of images of skin."""
    groups = evaluated[0]["subgroups"]["groups"]
    assert {it["attribute"] for it in groups} == {"skin_tone"}
    assert sum(it["images"] for it in groups) == 24
    path = changed_run.arguments["test_data"] / "test.parquet"
    rows, header = pd.read_parquet(path), read_header(path)
    columns = {"sex": ["male", "female", None] * 8, "age": [30.0] * 12 + [None] * 12}
    with write_image_set(path, header) as out:
        out.write(rows.drop(columns=["image", "split"]).assign(**columns), [it["bytes"] for it in rows["image"]])
    subgroups = changed_run.evaluate()["subgroups"]
    found = {
        (it["attribute"], it["group"]): it["images"] for it in subgroups["groups"] if it["attribute"] != "skin_tone"
    }
    assert found == {
        ("age", "under 40"): 12, ("age", "unknown"): 12, ("sex", "female"): 8, ("sex", "male"): 8,
        ("sex", "unknown"): 8,
    }  # fmt: skip
    assert subgroups["arms"] == ["baseline", "oversampled", "augmented@1"]
    report = (changed_run.folder / "report.html").read_text()
    assert "Results by subgroup" in report
    assert "Sex: female" in (changed_run.folder / "results" / "model_card.md").read_text()


@pytest.mark.parametrize("arm", ARMS)
def test_evaluate_classifier_trained_on_a_test_image_is_refused(changed_run: RunFolders, arm: str) -> None:
    rows = read_rows(changed_run.arguments["test_data"] / "test.parquet", "test", ["image_id", "pixel_sha256"])
    path = changed_run.record(arm, 2)
    edit(path, seen=[*json.loads(path.read_text())["seen"], rows["pixel_sha256"][5][:16]])
    error = refused(changed_run)
    assert error.code == "evaluate.seen_image"
    assert (error.fields["images"], error.fields["first"]) == (1, rows["image_id"][5])
    assert arm in error.fields["name"]


def test_evaluate_gan_trained_on_test_images_is_refused(changed_run: RunFolders) -> None:
    test_set = changed_run.arguments["test_data"] / "test.parquet"
    edit(changed_run.gan, seen=read_rows(test_set, "test", ["pixel_sha256"])["pixel_sha256"].str[:16].tolist())
    error = refused(changed_run)
    assert (error.code, error.fields["images"], error.fields["name"]) == ("evaluate.seen_image", 24, "the GAN of df")


def test_evaluate_gan_of_another_split_is_refused(changed_run: RunFolders) -> None:
    edit(changed_run.gan, split_sha256="6" * 64)
    assert refused(changed_run).code == "evaluate.other_split"


def test_evaluate_external_image_that_was_trained_on_is_refused_under_another_name(
    changed_run: RunFolders, make_set: Callable[..., Path], tmp_path: Path
) -> None:
    copies = make_set(tmp_path / "copies", "validation", {"df": 3})  # the pixels of the validation set: same seed
    header = replace(read_header(copies), split="external")
    with write_image_set(changed_run.arguments["synthetic_images"] / "external.parquet", header) as out:
        rows = read_rows(copies, "validation").drop(columns="split").assign(image_id=["x", "y", "z"])
        out.write(rows, [image["bytes"] for image in pd.read_parquet(copies, columns=["image"])["image"]])
    error = refused(changed_run)
    assert (error.code, error.fields["images"], error.fields["split"]) == ("evaluate.seen_image", 3, "external")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"split_sha256": "6" * 64}, "evaluate.other_split"),
        ({"model_sha256": "6" * 64}, "evaluate.wrong_record"),
        ({"arm": "oversampled"}, "evaluate.wrong_record"),
        ({"train_set_sha256": "6" * 64}, "evaluate.different_training_sets"),
        ({"parameters": 1}, "evaluate.different_settings"),
        ({"versions": {"keras": "0"}}, "evaluate.different_settings"),
        ({"synthetic_until": 0.5}, "evaluate.different_settings"),
        ({"synthetic_weight": 0.5}, "evaluate.different_settings"),
        ({"synthetic_smoothing": 0.2}, "evaluate.different_settings"),
        ({"synthetic_scope": "all"}, "evaluate.different_settings"),
        ({"settings": {"epochs": 2, "augmentation": "x", "seed": 2, "batch": 32, "precision": "float32"}},
         "evaluate.different_settings"),
        ({"settings": {"epochs": 2, "augmentation": "none", "seed": 3, "batch": 32, "precision": "float32"}},
         "evaluate.wrong_record"),
        ({"seen": None}, "record.invalid"),
        ({"arm": "../../baseline"}, "record.invalid"),
    ],
)  # fmt: skip
def test_evaluate_arms_that_are_not_comparable_are_refused(
    changed_run: RunFolders, changes: dict[str, Any], code: str
) -> None:
    edit(changed_run.record("augmented@1", 2), **changes)
    assert refused(changed_run).code == code


def test_evaluate_with_synthetic_images_of_every_class_has_the_primary_figure_of_the_rare_ones(
    changed_run: RunFolders, evaluated: tuple[dict[str, Any], Path]
) -> None:
    folder = changed_run.arguments["synthetic_images"]
    for dx in ("nv", "vasc"):
        for name in ("models/gan-{}.json", "synthetic/{}.json"):
            shutil.copy(folder / name.format("df"), folder / name.format(dx))
            edit(folder / name.format(dx), dx=dx)
        made = folder / "synthetic" / "df.parquet"
        with write_image_set(made.with_name(f"{dx}.parquet"), read_header(made)) as out:
            rows = read_rows(made, "train").drop(columns="split").assign(dx=dx)
            out.write(rows, [image["bytes"] for image in pd.read_parquet(made, columns=["image"])["image"]])
    for seed in SEEDS:  # at share 1, no real image would be left
        path = changed_run.record("augmented@1", seed)
        edit(path, arm="augmented@0.5", synthetic_scope="all")
        for suffix in (".json", ".keras"):
            path.with_suffix(suffix).rename(path.with_name(path.stem.replace("@1", "@0.5") + suffix))
    results = changed_run.evaluate()
    assert results["run"]["rebalanced_classes"] == results["run"]["rare_classes"] == ["df"]
    assert results["run"]["synthetic_scope"] == "all"
    assert list(results["synthetic"]) == ["df", "nv", "vasc"]
    assert all(details["label_fidelity"] is not None for details in results["synthetic"].values())
    assert results["effect"]["value"] == evaluated[0]["effect"]["value"]
    card = (changed_run.folder / "results" / "model_card.md").read_text(encoding="utf-8")
    assert "as oversampled; 50 % of each class are synthetic images" in card


def test_evaluate_arms_with_different_seeds_are_refused(changed_run: RunFolders) -> None:
    path = changed_run.record("augmented@1", 2)
    for suffix in (".json", ".keras"):
        path.with_suffix(suffix).rename(path.with_name(f"augmented@1-seed3{suffix}"))
    moved = path.with_name("augmented@1-seed3.json")
    edit(moved, settings=json.loads(moved.read_text())["settings"] | {"seed": 3})
    assert refused(changed_run).code == "evaluate.different_seeds"


def test_evaluate_arm_without_classifier_is_refused(changed_run: RunFolders) -> None:
    shutil.rmtree(changed_run.folder / "classifiers_synthetic")
    error = refused(changed_run)
    assert (error.code, error.fields["arm"]) == ("evaluate.missing_classifiers", "augmented")


def test_evaluate_rare_class_without_gan_record_is_refused(changed_run: RunFolders) -> None:
    edit(changed_run.arguments["training_data"] / "classes.json", rare=["df", "vasc"])
    assert refused(changed_run).code == "evaluate.other_classes"


def test_evaluate_class_whose_gan_failed_is_reported_and_not_in_the_primary_figure(
    changed_run: RunFolders, capsys: Any
) -> None:
    """Regression: .131 was reported over two classes, one of which had no synthetic images."""
    edit(changed_run.arguments["training_data"] / "classes.json", rare=["df", "vasc"])
    header = read_header(changed_run.arguments["training_data"] / "train.parquet")
    failed = FailedGan(
        dx="vasc", architecture="dcgan", classes=list(header.classes), image_size=32, data_sha256=header.data_sha256,
        split_sha256=header.split_sha256, failed="the loss was no number",
    )  # fmt: skip
    write_record(changed_run.gan.with_name("gan-vasc.json"), failed)
    outcome = changed_run.evaluate()
    assert outcome["synthetic"]["vasc"] == {"images": 0, "architecture": "dcgan", "failed": "the loss was no number"}
    assert (outcome["run"]["rare_classes"], outcome["run"]["rebalanced_classes"]) == (["df", "vasc"], ["df"])
    for arm in ARMS:
        assert outcome["arms"][arm]["rare_recall"] == pytest.approx(outcome["arms"][arm]["recall"]["df"])
    assert "vasc, its GAN failed: the loss was no number" in capsys.readouterr().out


def use_another_source(run: RunFolders) -> None:
    """Turn the images of the GAN into those of a source, and its arm into that of the source."""
    folder = run.folder / "synthetic_images"
    (folder / "synthetic" / "zoo").mkdir()
    edit(folder / "synthetic" / "df.json", source="zoo", pairs_jpeg="")
    for suffix in ("json", "parquet"):
        (folder / "synthetic" / f"df.{suffix}").rename(folder / "synthetic" / "zoo" / f"df.{suffix}")
    run.gan.unlink()
    source = SyntheticSource(
        place="gs://bucket/zoo",
        images={"df": 12},
        available={"df": 12},
        scaled=0,
        skipped=0,
        held_out=["a reproduces b (test)"],
        provenance=Provenance(generator="Diffusion <2>", trained_on="the training split"),
    )
    write_record(folder / "sources.json", SyntheticSources(sources={"zoo": source}))
    for seed in SEEDS:
        record = run.record("augmented@1", seed)
        edit(record, arm="zoo@1")
        for suffix in (".json", ".keras"):
            record.with_suffix(suffix).rename(record.with_name(record.stem.replace("augmented", "zoo") + suffix))


def test_evaluate_compares_images_of_another_source_in_the_same_way(
    changed_run: RunFolders, evaluated: tuple[dict[str, Any], Path]
) -> None:
    use_another_source(changed_run)
    outcome, (expected, _) = changed_run.evaluate(), evaluated
    results = load_record(changed_run.folder / "results" / "metrics.json", Results)
    assert list(results.synthetic) == ["zoo/df"]
    assert results.synthetic["zoo/df"].source == "zoo"
    assert results.synthetic["zoo/df"].label_fidelity == expected["synthetic"]["df"]["label_fidelity"]
    assert results.sources["zoo"].place == "gs://bucket/zoo"
    assert results.run.rebalanced_classes == ["df"]
    assert outcome["effect"]["arm"] == "zoo@1"
    assert outcome["effect"]["value"] == expected["effect"]["value"]
    page = (changed_run.folder / "report.html").read_text()
    for text in ("Effect of zoo", "From zoo", "Diffusion &lt;2&gt;", "the training split", "df (zoo)"):
        assert text in page, text
    assert "GAN effect" not in page
    sheet = (changed_run.folder / "results" / "data_sheet.md").read_text()
    assert "| zoo, gs:" in sheet
    assert "Each GAN was trained" not in sheet
    assert "(zoo)" in (changed_run.folder / "results" / "comparison.md").read_text()


@pytest.mark.parametrize("split", ["train", "validation"])
def test_evaluate_other_split_than_test_is_refused(changed_run: RunFolders, split: str) -> None:
    shutil.copy(
        changed_run.arguments["training_data"] / f"{split}.parquet", changed_run.arguments["test_data"] / "test.parquet"
    )
    assert refused(changed_run).fields.get("split", "test") == "test"


def test_evaluate_with_a_positive_class_that_the_data_lacks_is_refused(run: RunFolders) -> None:
    error = refused(run, positive_classes="mel,vasc")
    assert (error.code, error.fields) == ("parameter.unknown_class", {"name": "positive_classes", "classes": ["mel"]})


def test_evaluate_records_how_the_data_was_read(changed_run: RunFolders) -> None:
    source = DataSource(
        layout="class folders", metadata=[], columns={}, ignored=[], folders={"nv": 3}, renamed={}, unit="image",
        own_split=False, notes=["a note"],
    )  # fmt: skip
    write_record(changed_run.arguments["test_data"] / "data_source.json", source)
    outcome = changed_run.evaluate()
    assert outcome["run"]["source"] == source.model_dump()
    assert outcome["run"]["malignant"] == ["vasc"]
    assert "a note" in (changed_run.folder / "results" / "model_card.md").read_text(encoding="utf-8")
