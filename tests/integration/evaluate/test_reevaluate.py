"""Finished runs judged again: on outside data, and folds pooled; as a command, with its exit codes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.evaluate import reevaluate
from components.evaluate.compare import ARMS, counts
from components.evaluate.evaluate import decide, judged, predictions_table
from components.prepare_data.near_duplicates import perceptual_hashes, thumbnail
from components.publish.publish import named, publish
from components.shared.errors import UserError
from components.shared.image_set import open_pixels, read_rows
from counterweight import evaluate as tool
from counterweight import exit_codes

CLASSES = ("df", "mel", "nv")


@pytest.fixture(scope="session")
def published(
    run: dict[str, Any], judged: tuple[dict[str, Any], Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run as publish leaves it."""
    folder = tmp_path_factory.mktemp("published")
    parts = []
    for split in ("train", "validation", "test"):
        with open_pixels(run[f"{split}_set"], split) as pixels:
            small = b"".join(thumbnail(Image.fromarray(image)) for image in pixels.images)
            hashes = perceptual_hashes(np.frombuffer(small, np.uint8).reshape(-1, 32, 32))
        rows = read_rows(run[f"{split}_set"], split, ["image_id", "lesion_id", "dx", "split", "pixel_sha256"])
        parts.append(rows.assign(perceptual_hash=hashes))
    pd.concat(parts).to_csv(folder / "splits.csv", index=False)
    files = named(
        models=run["models"],
        records=run["records"],
        generators=[run["gan_records"][0].with_name("gans")],
        gan_records=run["gan_records"],
        gan_pages=[run["gan_records"][0].with_suffix(".html")],
        synthetic_sets=run["synthetic_sets"],
        sheets=[run["synthetic_sets"][0].with_name("sheet")],
        quality=run["quality"],
        scratch=folder,
        others={
            "metrics.json": judged[1] / "results",
            "predictions.parquet": judged[1] / "predictions",
            "splits.csv": folder / "splits.csv",
        },
    )
    return Path(publish(str(folder / "run"), files, folder / "manifest", judged[0]["verdict"]))


def raw(folder: Path, counts_: dict[str, int], seed: int = 0) -> Path:
    """A folder in HAM10000's layout, of coarse noise."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    lines = ["lesion_id,image_id,dx"]
    for dx, count in counts_.items():
        for number in range(count):
            name = f"out-{seed}-{dx}-{number}"
            small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
            small.resize((48, 40), Image.Resampling.BICUBIC).save(folder / f"{name}.jpg", quality=95)
            lines.append(f"lesion-{name},{name},{dx}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


def command(*words: str | Path) -> int:
    return exit_codes.run_command(lambda: tool.evaluate(list(map(str, words))))


def test_a_finished_run_is_judged_on_outside_data(
    published: Path, judged: tuple[dict[str, Any], Path], tmp_path: Path, capsys: Any
) -> None:
    external = raw(tmp_path / "raw", {"df": 4, "nv": 9})
    assert command(f"RUN={published}", f"EXTERNAL={external}") == 0
    results = json.loads((published / "external" / "metrics.json").read_text())
    assert {key: value for key, value in results.items() if key != "external"} == {
        key: value for key, value in judged[0].items() if key != "external"
    }
    outside = results["external"]
    assert outside["data"] == str(external)
    assert outside["counts"]["nv"] == {"images": 9, "lesions": 9}
    assert outside["arms"]["augmented"]["support"] == {"df": 4, "nv": 9, "vasc": 0}
    # What validation decided, read back from the published predictions.
    assert outside["arms"]["augmented"]["temperature"] == pytest.approx(
        judged[0]["arms"]["augmented"]["temperature"], rel=1e-4
    )
    table = pd.read_parquet(published / "external" / "predictions.parquet")
    assert table.groupby("set").size().to_dict() == {"external": 13 * 6, "test": 24 * 6, "validation": 20 * 6}
    for name in ("report.html", "comparison.md"):
        assert (published / "external" / name).stat().st_size > 1000
    said = capsys.readouterr().out
    assert f"{external}: {outside['verdict']}" in said


def test_files_that_were_not_published_are_refused(published: Path, tmp_path: Path) -> None:
    def bring(name: str) -> Path:
        if name != "models/augmented.keras":
            return published / name
        (tmp_path / "other").write_bytes(b"another model")
        return tmp_path / "other"

    run = reevaluate.open_run("here", bring)
    with pytest.raises(UserError, match=r"augmented\.keras is not the file that was published"):
        reevaluate.outside(run, "elsewhere", tmp_path)


def test_mistakes_end_with_code_2_and_leave_nothing(published: Path, tmp_path: Path, capsys: Any) -> None:
    external, out = raw(tmp_path / "raw", {"nv": 2}), tmp_path / "out"
    known = raw(tmp_path / "known", {"nv": 2}, seed=1)
    lesion = pd.read_csv(published / "splits.csv")["lesion_id"][0]
    text = (known / "metadata.csv").read_text()
    (known / "metadata.csv").write_text(text.replace("lesion-out-1-nv-0", lesion))
    (tmp_path / "empty").mkdir()
    other = raw(tmp_path / "other", {"mel": 2})
    cases = {
        (f"RUN={tmp_path / 'none'}", f"EXTERNAL={external}"): "holds no manifest.json",
        (f"RUN={published}",): "EXTERNAL is missing",
        (f"RUN={published}", f"EXTERNAL={external}", "seed=1"): "seed is not known",
        (f"RUN={published}", f"EXTERNAL={tmp_path / 'nowhere'}"): "nowhere",
        (f"RUN={published}", f"EXTERNAL={known}"): "belong to images of this run",
        (f"RUN={published}", f"EXTERNAL={other}"): "holds the class mel",
        (f"RUN={published},{published}",): "OUT is missing",
        (f"RUN={published},{published}", f"EXTERNAL={external}"): "EXTERNAL goes with one run",
        (f"RUN={published}", f"EXTERNAL={external}", "max_bad_images=-1"): "whole number",
    }
    for words, sentence in cases.items():
        given = words if "OUT is missing" in sentence else (*words, f"OUT={out}")
        assert command(*given) == 2, words
        assert sentence in capsys.readouterr().err
    assert command(f"RUN={published}", f"EXTERNAL={external}", f"OUT={published}") == 2
    assert not out.exists()


def fold(folder: Path, split: str, lesions: range, **facts: Any) -> Path:
    """A published run of one fold, whose predictions are drawn."""
    rng = np.random.default_rng(lesions.start)
    seeds, rare, malignant = [1, 2], ["df", "mel"], ["mel"]

    def drawn(name: str, numbers: range) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
        ids = [f"{name}-{number}" for number in numbers]
        rows = pd.DataFrame({"image_id": ids, "lesion_id": ids, "dx": [CLASSES[number % 3] for number in numbers]})
        truth = rows["dx"].map(CLASSES.index).to_numpy()
        said = {arm: rng.dirichlet(np.ones(3), (2, len(ids))) + np.eye(3)[truth] / 2 for arm in ARMS}
        return rows, {arm: chances / chances.sum(2, keepdims=True) for arm, chances in said.items()}

    tests, validation = drawn("test", lesions), drawn(f"validation-{lesions.start}", range(40))
    found = judged_(tests, validation, rare, malignant, seeds)
    for arm in ARMS:
        found["arms"][arm] |= {"train_rows": 9, "models": {"1": {"epochs": 1}, "2": {"epochs": 1}}}
    run = {
        "data": "x", "data_sha256": "d", "split_sha256": split, "split": split, "seed": 1, "seeds": seeds,
        "image_size": 32, "rare_classes": rare, "malignant": malignant, "settings": {}, "versions": {},
    } | facts  # fmt: skip
    splits = {name: counts(tests[0], CLASSES) for name in ("train", "validation", "test")}
    results = {"run": run, "classes": CLASSES, "splits": splits, **found, "synthetic": {}, "external": None}
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(results))
    tables = [
        predictions_table(*part, seeds, CLASSES)
        for part in ((tests[0], "test", tests[1]), (validation[0], "validation", validation[1]))
    ]
    pd.concat(tables).to_parquet(folder / "predictions.parquet")
    files = {name: folder / name for name in ("metrics.json", "predictions.parquet")}
    return Path(publish(str(folder / "run"), files, folder / "manifest", found["verdict"]))


def judged_(tests: Any, validation: Any, rare: list[str], malignant: list[str], seeds: list[int]) -> dict[str, Any]:
    fixed = decide(*validation, CLASSES, malignant)
    return judged(*tests, fixed, CLASSES, malignant, rare, seeds, 1)


def opened(*folders: Path) -> list[reevaluate.Run]:
    return [reevaluate.open_run(str(folder), lambda name, folder=folder: folder / name) for folder in folders]


def test_folds_are_pooled_out_of_fold(tmp_path: Path) -> None:
    """Each lesion counts once; recall is over all of them, alarms are those of each fold's own threshold."""
    one, two = fold(tmp_path / "a", "1/2", range(60)), fold(tmp_path / "b", "2/2", range(60, 150))
    results, table = reevaluate.pooled(opened(two, one))
    each = [json.loads((folder / "metrics.json").read_text()) for folder in (one, two)]
    assert len(table) == 150 * 6
    assert results["run"]["split"] == "2 folds, pooled"
    assert [part["split"] for part in results["run"]["folds"]] == ["1/2", "2/2"]
    assert results["splits"]["test"]["df"] == {"images": 50, "lesions": 50}
    assert results["effect"]["by_class"]["df"]["lesions"] == 50
    for arm in ARMS:
        pooled, parts = results["arms"][arm], [part["arms"][arm] for part in each]
        assert pooled["confusion"] == np.sum([part["confusion"] for part in parts], 0).tolist()
        for name in ("accuracy", "rare_recall", "malignant_sensitivity", "malignant_specificity", "brier"):
            assert pooled[name] == pytest.approx((60 * parts[0][name] + 90 * parts[1][name]) / 150)
        assert list(pooled["models"]) == ["1, fold 1/2", "2, fold 1/2", "1, fold 2/2", "2, fold 2/2"]
    json.dumps(results, allow_nan=False)


def test_folds_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    one = fold(tmp_path / "a", "1/2", range(30))
    two = fold(tmp_path / "b", "2/2", range(30, 60))
    overlapping = fold(tmp_path / "c", "2/2", range(29, 60))
    another = fold(tmp_path / "d", "2/2", range(30, 60), settings={"epochs": 3})
    random = fold(tmp_path / "e", "random", range(30, 60))
    for folders, sentence in (
        ((one, one), "give one run of each fold, split=1/2 to split=2/2"),
        ((one,), "give one run of each fold"),
        ((one, two, two), "give one run of each fold"),
        ((random, one), "give one run of each fold"),
        ((one, overlapping), "the lesion test-29 is in the test split of"),
        ((one, another), "differ in settings"),
    ):
        with pytest.raises(UserError, match=sentence):
            reevaluate.pooled(opened(*folders))


def test_a_run_of_an_earlier_version_is_refused(tmp_path: Path) -> None:
    for name in ("metrics.json", "predictions.parquet"):
        pd.DataFrame({"arm": ["baseline"]}).to_parquet(tmp_path / name)
    (tmp_path / "metrics.json").write_text(json.dumps({"run": {"seed": 1}}))
    files = {name: tmp_path / name for name in ("metrics.json", "predictions.parquet")}
    folder = Path(publish(str(tmp_path / "run"), files, tmp_path / "manifest", "worse"))
    with pytest.raises(UserError, match="made by an earlier version"):
        opened(folder)
    (folder / "manifest.json").write_text("[]")
    with pytest.raises(UserError, match=r"manifest\.json is not of this pipeline"):
        opened(folder)
