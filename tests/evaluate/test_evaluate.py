import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from components.balance_dataset.balance import balance
from components.evaluate.evaluate import ARMS, evaluate, roc_points
from components.generate_images.generate import generate
from components.shared.errors import UserError
from components.train_classifier.train import train as train_classifier
from components.train_gan.train import train as train_gan


@pytest.fixture(scope="module")
def run(splits: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Everything that evaluate reads, made by the phases themselves."""
    folder = tmp_path_factory.mktemp("run")
    paths = (folder / "g.keras", folder / "g.json", folder / "g.html")
    train_gan("df", splits["train"], "dcgan", 0.03, 1, *paths, validation_set=splits["validation"])
    generate(folder / "g.keras", folder / "g.json", 9, 1, folder / "synthetic", folder / "sheet")
    balance(splits["train"], [folder / "synthetic"], 1, folder / "augmented", folder / "oversampled", folder / "s.md")
    sets = {"baseline": splits["train"], "oversampled": folder / "oversampled", "augmented": folder / "augmented"}
    for arm, path in sets.items():
        train_classifier(
            arm, path, splits["validation"], 3, 3, "none", 1,
            folder / f"{arm}.keras", folder / f"{arm}.json", folder / f"{arm}.html",
        )  # fmt: skip
    return {
        "data": "test",
        "rare_classes": ["df"],
        "seed": 1,
        "test_set": splits["test"],
        "train_set": splits["train"],
        "validation_set": splits["validation"],
        "synthetic_sets": [folder / "synthetic"],
        "gan_records": [folder / "g.json"],
        "models": {arm: folder / f"{arm}.keras" for arm in ARMS},
        "records": {arm: folder / f"{arm}.json" for arm in ARMS},
    }


def outputs(folder: Path) -> dict[str, Path]:
    return {name: folder / name for name in ("results", "predictions", "report_page", "comparison")}


def test_the_figures_follow_from_the_published_predictions(run: dict[str, Any], tmp_path: Path):
    outcome = evaluate(**run, **outputs(tmp_path))
    assert json.loads((tmp_path / "results").read_text()) == outcome
    table = pd.read_parquet(tmp_path / "predictions")
    truth = pd.read_parquet(run["test_set"])
    for arm in ARMS:
        rows = table[table["arm"] == arm]
        assert rows["image_id"].tolist() == truth["image_id"].tolist()
        chances = rows[["p_df", "p_nv", "p_vasc"]].to_numpy()
        assert np.allclose(chances.sum(1), 1, atol=1e-5)
        predicted = np.array(["df", "nv", "vasc"])[chances.argmax(1)]
        for dx in ("df", "nv", "vasc"):
            recall = (predicted[rows["dx"] == dx] == dx).mean()
            assert outcome["arms"][arm]["recall"][dx] == pytest.approx(recall)
    assert outcome["classes"] == ["df", "nv", "vasc"]
    assert outcome["splits"]["test"] == {
        "df": {"images": 4, "lesions": 2},
        "nv": {"images": 14, "lesions": 7},
        "vasc": {"images": 6, "lesions": 3},
    }
    assert outcome["synthetic"]["df"]["images"] == 9
    assert outcome["arms"]["oversampled"]["train_rows"] == outcome["arms"]["augmented"]["train_rows"] == 93
    page = (tmp_path / "report_page").read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert (
        page.count("data:image/png") + page.count("data:image/jpeg") == 8 * 4
    )  # real of three classes, synthetic of one
    points = roc_points(tmp_path / "predictions", "augmented", outcome["classes"])
    assert points[0][:2] == (0, 0)
    assert points[-1][:2] == (1, 1)
    assert all(np.isfinite(points).ravel())


def test_a_model_of_another_split_may_have_seen_test_images(
    run: dict[str, Any], tmp_path: Path, make_set: Callable[..., Path]
):
    record = json.loads(run["records"]["augmented"].read_text()) | {"split_sha256": "6" * 64}
    (tmp_path / "record").write_text(json.dumps(record))
    records = run["records"] | {"augmented": tmp_path / "record"}
    with pytest.raises(UserError, match="augmented was trained on another split, so it may have seen test images"):
        evaluate(**(run | {"records": records}), **outputs(tmp_path))
    assert not (tmp_path / "results").exists()


def test_a_record_of_another_model_is_refused(run: dict[str, Any], tmp_path: Path):
    records = run["records"] | {"augmented": run["records"]["baseline"]}
    with pytest.raises(UserError, match="does not belong to its model"):
        evaluate(**(run | {"records": records}), **outputs(tmp_path))


@pytest.mark.parametrize("split", ["train", "validation"])
def test_nothing_but_the_test_split_is_judged_on(run: dict[str, Any], tmp_path: Path, split: str):
    with pytest.raises(UserError, match="give the split 'test'"):
        evaluate(**(run | {"test_set": run[f"{split}_set"]}), **outputs(tmp_path))
