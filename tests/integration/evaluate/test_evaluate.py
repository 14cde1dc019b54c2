"""The phase as a whole: what the other phases made goes in, results come out; leaks and mixtures are refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from components.evaluate.compare import ARMS
from components.evaluate.evaluate import evaluate, roc_points, scalars
from components.shared.errors import UserError
from components.shared.image_set import read_header, read_rows, write_image_set

SEEDS = (1, 2)


NAMES = ("results", "predictions", "report_page", "comparison", "model_card", "data_sheet")


def outputs(folder: Path) -> dict[str, Path]:
    return {name: folder / name for name in NAMES}


def changed(run: dict[str, Any], folder: Path, arm: str, number: int, facts: dict[str, Any]) -> dict[str, Any]:
    """The run with one record altered."""
    record = folder / "record.json"
    before = json.loads(run["records"][arm][number].read_text())
    record.write_text(json.dumps(before | facts | {"settings": before["settings"] | facts.get("settings", {})}))
    own = [*run["records"][arm]]
    own[number] = record
    return run | {"records": run["records"] | {arm: own}}


def test_the_figures_follow_from_the_published_predictions(
    run: dict[str, Any], judged: tuple[dict[str, Any], Path]
) -> None:
    outcome, folder = judged
    assert json.loads((folder / "results").read_text()) == outcome
    table = pd.read_parquet(folder / "predictions")
    truth = pd.read_parquet(run["test_set"])
    assert table.groupby("set").size().to_dict() == {"validation": 20 * 6, "test": 24 * 6}
    classes = outcome["classes"]
    assert classes == ["df", "nv", "vasc"]
    for arm in ARMS:
        figures, recalls = outcome["arms"][arm], []
        for seed in SEEDS:
            rows = table[(table["arm"] == arm) & (table["seed"] == seed) & (table["set"] == "test")]
            assert rows["image_id"].tolist() == truth["image_id"].tolist()
            chances = rows[["p_df", "p_nv", "p_vasc"]].to_numpy()
            assert np.allclose(chances.sum(1), 1, atol=1e-5)
            predicted = np.array(classes)[chances.argmax(1)]
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
    assert (outcome["run"]["seeds"], outcome["run"]["malignant"]) == ([1, 2], ["vasc"])
    assert outcome["external"] is None
    df = outcome["synthetic"]["df"]
    assert df["images"] == 9
    assert df["drawn"] == 9 + df["copies"] + df["curated"]
    (quality,) = json.loads(run["quality"][0].read_text())
    assert (df["kid"], df["density"], df["coverage"]) == (quality["kid"], quality["density"], quality["coverage"])
    assert df["best_kimg"] == json.loads(run["gan_records"][0].read_text())[0]["best_kimg"]
    assert quality["pairs_jpeg"] not in (folder / "results").read_text()
    assert "Synthetic images of df above the training images nearest to them" in (folder / "report_page").read_text()
    assert outcome["arms"]["oversampled"]["train_rows"] == outcome["arms"]["augmented"]["train_rows"] == 93


def test_what_the_kubeflow_ui_gets(judged: tuple[dict[str, Any], Path]) -> None:
    outcome, folder = judged
    named = scalars(outcome)
    assert named["gan_effect_value"] == outcome["effect"]["value"]
    assert named["augmented_macro_auc"] == outcome["arms"]["augmented"]["macro_auc"]
    assert len(named) == 3 + 3 * 10
    for arm in ARMS:
        points = roc_points(folder / "predictions", arm, outcome["classes"])
        assert points[0][:2] == (0, 0)
        assert points[-1][:2] == (1, 1)
        assert len(points) <= 100
        assert np.isfinite(points).all()


def test_an_external_set_is_judged_by_the_same_models_and_thresholds(
    run: dict[str, Any], judged: tuple[dict[str, Any], Path], tmp_path: Path, make_set: Callable[..., Path]
) -> None:
    """Its classes may be a subset: what has no images is null, and means are over the classes that have."""
    elsewhere = make_set(tmp_path / "elsewhere", "external", {"nv": 5, "vasc": 3}, seed=9)
    outcome = evaluate(**(run | {"external_set": elsewhere, "external_data": "elsewhere"}), **outputs(tmp_path))
    external = outcome["external"]
    assert external["counts"]["df"] == {"images": 0, "lesions": 0}
    assert (external["verdict"], external["effect"]["value"]) == ("no evidence", None)
    figures = external["arms"]["augmented"]
    assert figures["recall"]["df"] is None
    assert figures["balanced_accuracy"] == pytest.approx((figures["recall"]["nv"] + figures["recall"]["vasc"]) / 2)
    assert figures["temperature"] == outcome["arms"]["augmented"]["temperature"]
    table = pd.read_parquet(tmp_path / "predictions")
    assert (table["set"] == "external").sum() == 8 * 6
    assert {key: outcome[key] for key in ("arms", "effect", "verdict")} == {
        key: judged[0][key] for key in ("arms", "effect", "verdict")
    }


@pytest.mark.parametrize("arm", ARMS)
def test_a_model_that_has_seen_a_test_image_is_refused_by_content(
    run: dict[str, Any], tmp_path: Path, arm: str
) -> None:
    rows = read_rows(run["test_set"], "test", ["image_id", "pixel_sha256"])
    seen = json.loads(run["records"][arm][1].read_text())["seen"]
    broken = changed(run, tmp_path, arm, 1, {"seen": sorted([*seen, rows["pixel_sha256"][5][:16]])})
    with pytest.raises(UserError, match=f"arm {arm} has seen 1 of the test images \\({rows['image_id'][5]}\\)"):
        evaluate(**broken, **outputs(tmp_path))
    assert not (tmp_path / "results").exists()


def test_a_gan_that_has_seen_a_test_image_is_refused(run: dict[str, Any], tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    (facts,) = json.loads(run["gan_records"][0].read_text())
    seen = read_rows(run["test_set"], "test", ["pixel_sha256"])["pixel_sha256"].str[:16].tolist()
    record.write_text(json.dumps([facts | {"seen": seen}]))
    with pytest.raises(UserError, match="the GAN of df has seen 24 of the test images"):
        evaluate(**(run | {"gan_records": [record]}), **outputs(tmp_path))
    record.write_text(json.dumps([facts | {"split_sha256": "6" * 64}]))
    with pytest.raises(UserError, match="the GAN of df is of another split"):
        evaluate(**(run | {"gan_records": [record]}), **outputs(tmp_path))


def test_an_external_image_that_was_trained_on_is_refused_under_another_name(
    run: dict[str, Any], tmp_path: Path, make_set: Callable[..., Path]
) -> None:
    """The same pixels as validation's, since the same seed drew them, under names and a split of their own."""
    copies = make_set(tmp_path / "copies", "validation", {"df": 3})
    header = replace(read_header(copies), split="external")
    with write_image_set(tmp_path / "external", header) as out:
        rows = read_rows(copies, "validation").drop(columns="split").assign(image_id=["x", "y", "z"])
        out.write(rows, [image["bytes"] for image in pd.read_parquet(copies, columns=["image"])["image"]])
    with pytest.raises(UserError, match="has seen 3 of the external images"):
        evaluate(**(run | {"external_set": tmp_path / "external"}), **outputs(tmp_path))


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        ({"split_sha256": "6" * 64}, "augmented was trained on another split, so it may have seen test images"),
        ({"model_sha256": "6" * 64}, "augmented does not belong to its model"),
        ({"arm": "oversampled"}, "augmented does not belong to its model"),
        ({"train_set_sha256": "6" * 64}, "augmented were trained on different sets"),
        ({"parameters": 1}, "trained with different settings"),
        ({"settings": {"augmentation": "flips"}}, "settings"),
        ({"settings": {"seed": 3}}, "same seeds"),
    ],
)
def test_arms_that_may_not_be_compared_are_refused(
    run: dict[str, Any], tmp_path: Path, facts: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        evaluate(**changed(run, tmp_path, "augmented", 1, facts), **outputs(tmp_path))
    assert not (tmp_path / "results").exists()


def test_a_record_that_does_not_say_what_it_has_seen_is_refused(run: dict[str, Any], tmp_path: Path) -> None:
    broken = changed(run, tmp_path, "baseline", 0, {})
    facts = json.loads(broken["records"]["baseline"][0].read_text())
    del facts["seen"]
    broken["records"]["baseline"][0].write_text(json.dumps(facts))
    with pytest.raises(UserError, match="arm baseline does not say which images it has seen"):
        evaluate(**broken, **outputs(tmp_path))


def test_a_class_whose_gan_failed_is_reported(run: dict[str, Any], tmp_path: Path, capsys: Any) -> None:
    (facts,) = json.loads(run["gan_records"][0].read_text())
    gan, quality = tmp_path / "gan.json", tmp_path / "quality.json"
    keep = ("data_sha256", "split_sha256", "classes", "image_size")
    failed = {"dx": "df", "failed": "the loss was no number."}
    gan.write_text(json.dumps([failed | {key: facts[key] for key in keep}]))
    quality.write_text(json.dumps([failed]))
    with write_image_set(tmp_path / "none", read_header(run["synthetic_sets"][0])):
        pass
    changed_ = {"gan_records": [gan], "quality": [quality], "synthetic_sets": [tmp_path / "none"]}
    outcome = evaluate(**(run | changed_), **outputs(tmp_path))
    assert outcome["synthetic"] == {"df": {"images": 0, "failed": "the loss was no number."}}
    assert "no synthetic images of df: the loss was no number." in capsys.readouterr().out


@pytest.mark.parametrize("split", ["train", "validation"])
def test_nothing_but_the_test_split_is_judged_on(run: dict[str, Any], tmp_path: Path, split: str) -> None:
    with pytest.raises(UserError, match="give the split 'test'"):
        evaluate(**(run | {"test_set": run[f"{split}_set"]}), **outputs(tmp_path))
