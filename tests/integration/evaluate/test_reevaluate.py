"""Published runs evaluated again: on external data, and folds pooled; as a command, with its exit codes."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.evaluate.predict.published import Run
from components.shared.code_identity import code_sha256
from components.shared.errors import UserError
from components.shared.files import file_sha256
from components.shared.records import Results
from components.shared.storage import make_fetch
from counterweight import evaluate as command_module
from counterweight import exit_codes, reevaluate
from tests.helpers.errors import raises_user_error
from tests.helpers.published_fold import ARMS, write_fold
from tests.integration.evaluate.conftest import edit, write_manifest

pytestmark = pytest.mark.usefixtures("no_figures")


def write_raw(folder: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """Write a folder in HAM10000's layout, of coarse noise."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    lines = ["lesion_id,image_id,dx"]
    for dx, count in counts.items():
        for number in range(count):
            name = f"out-{seed}-{dx}-{number}"
            small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
            small.resize((48, 40), Image.Resampling.BICUBIC).save(folder / f"{name}.jpg", quality=95)
            lines.append(f"lesion-{name},{name},{dx}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


def command(*words: str | Path) -> int:
    return exit_codes.run_command(lambda: command_module.run(list(map(str, words)), sys.stdout))


def open_local(folder: Path) -> Run:
    return reevaluate.open_published(str(folder), folder)


def test_command_external_data_is_evaluated_by_the_run_s_models(
    published: Path, evaluated: tuple[dict[str, Any], Path], tmp_path: Path, capsys: Any
) -> None:
    external = write_raw(tmp_path / "raw", {"df": 4, "nv": 9})
    assert command(f"RUN={published}", f"EXTERNAL={external}") == 0
    results = json.loads((published / "external" / "metrics.json").read_text())
    assert {key: value for key, value in results.items() if key != "external"} == {
        key: value for key, value in evaluated[0].items() if key != "external"
    }
    outside = results["external"]
    assert outside["data"] == str(external)
    assert outside["counts"]["nv"] == {"images": 9, "lesions": 9}
    assert outside["arms"]["augmented@1"]["support"] == {"df": 4, "nv": 9, "vasc": 0}
    # Fitted again on the published predictions, which are the float32 probabilities of the run.
    assert outside["arms"]["augmented@1"]["temperature"] == pytest.approx(
        evaluated[0]["arms"]["augmented@1"]["temperature"], rel=1e-4
    )
    table = pd.read_parquet(published / "external" / "predictions.parquet")
    assert table.groupby("set").size().to_dict() == {"external": 13 * 6, "test": 24 * 6, "validation": 20 * 6}
    for name in ("report.html", "comparison.md"):
        assert (published / "external" / name).stat().st_size > 1000
    assert f"{external}: {outside['verdict']}" in capsys.readouterr().out


def test_run_file_that_differs_from_the_manifest_is_refused(published: Path) -> None:
    (published / "models" / "augmented@1.keras").write_bytes(b"another model")
    run = open_local(published)
    with pytest.raises(UserError) as caught:
        reevaluate.evaluate_external(run, "elsewhere", published)
    assert (caught.value.code, caught.value.fields["file"]) == ("run.changed_file", "models/augmented@1.keras")


def change_results(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "metrics.json"
    results = json.loads(path.read_text())
    change(results)
    path.write_text(json.dumps(results))
    write_manifest(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda it: it["run"].update(seeds=[1, "/../../../escaped"]),
        lambda it: it["run"].update(seeds=["/../../../escaped"]),
        lambda it: it["run"].update(seeds=[]),
        lambda it: it["run"].update(seeds=[1, 1]),
        lambda it: it["run"].update(seeds=[-1]),
        lambda it: it["run"].update(seed=1e300),
        lambda it: it["run"].update(image_size="32"),
        lambda it: it["run"].update(malignant="mel"),
        lambda it: it["run"].pop("parameters"),
        lambda it: it.update(classes=["df", "../x"]),
        lambda it: it.update(classes=["df", "df"]),
        lambda it: it.update(run=[]),
        lambda it: it.pop("classes"),
        lambda it: it.update(arms={}),
        lambda it: it["arms"].pop("baseline"),
        lambda it: it["arms"].update({"../x": it["arms"]["baseline"]}),
        lambda it: it["arms"]["baseline"].update(confusion=[[1]]),
        lambda it: it["arms"]["baseline"].update(recall=[]),
        lambda it: it["effect"].pop("mcnemar"),
        lambda it: it.update(verdict="<script>"),
        lambda it: it["synthetic"].update({"df": {"images": "many"}}),
        lambda it: it.update(splits={}),
    ],
)
def test_open_run_hostile_results_are_refused(published: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    change_results(published, change)
    with pytest.raises(UserError) as caught:
        open_local(published)
    assert caught.value.code == "record.invalid"


def test_command_hostile_seed_writes_nothing_outside(published: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """Regression: a seed with a path in it made `make evaluate` create files outside its scratch folder."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    change_results(published, lambda it: it["run"].update(seeds=[1, "/../../../../escaped"]))
    external = write_raw(tmp_path / "raw", {"nv": 2})
    before = sorted(path for path in tmp_path.rglob("*"))
    assert command(f"RUN={published}", f"EXTERNAL={external}", f"OUT={tmp_path / 'out'}") == 2
    assert sorted(path for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["../outside.json", "/etc/hostname", "models/../../outside.json", "link.json"])
def test_fetch_name_that_leaves_the_run_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "outside.json").write_text("{}")
    run = tmp_path / "run"
    run.mkdir()
    (run / "link.json").symlink_to(tmp_path / "outside.json")
    for place in (str(run), "gs://bucket/run"):
        scratch = run if "://" not in place else tmp_path / "scratch"
        if name == "link.json" and "://" in place:
            continue
        with pytest.raises(UserError) as caught:
            make_fetch(place, scratch)(name)
        assert caught.value.code == "path.outside"


@pytest.mark.parametrize("content", ["[]", "{}", '{"files": {"../x": {"sha256": "", "bytes": 1}}}', "\0", "{" * 10_000])
def test_open_run_foreign_manifest_is_refused(published: Path, content: str) -> None:
    (published / "manifest.json").write_text(content)
    with pytest.raises(UserError) as caught:
        open_local(published)
    assert caught.value.code == "record.invalid"


def test_open_run_damaged_predictions_are_refused(published: Path) -> None:
    (published / "predictions.parquet").write_bytes(b"PAR1 and no more")
    write_manifest(published)
    with pytest.raises(UserError) as caught:
        open_local(published)
    assert caught.value.code == "predictions.invalid"


def test_command_user_errors_exit_with_2_and_leave_nothing(published: Path, tmp_path: Path, capsys: Any) -> None:
    external, out = write_raw(tmp_path / "raw", {"nv": 2}), tmp_path / "out"
    other = write_raw(tmp_path / "other", {"mel": 2})
    for words in (
        (f"RUN={tmp_path / 'none'}", f"EXTERNAL={external}"),
        (f"RUN={published}", f"EXTERNAL={tmp_path / 'nowhere'}"),
        (f"RUN={published}", f"EXTERNAL={other}"),
    ):
        assert command(*words, f"OUT={out}") == 2, words
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["RUN=r"], "option.missing"),
        (["RUN=nowhere"], "option.invalid"),
        (["EXTERNAL=e"], "option.missing"),
        (["RUN=r,s"], "option.missing"),
        (["RUN=gs://bucket/r", "EXTERNAL=e"], "option.missing"),
        (["RUN=ftp://bucket/r", "EXTERNAL=e", "OUT=o"], "storage.invalid_address"),
        (["RUN=r,s", "EXTERNAL=e"], "option.conflict"),
        (["RUN=r", "EXTERNAL=e", "max_bad_images=-1"], "option.invalid"),
        (["RUN=r", "EXTERNAL=e", "max_bad_images=²"], "option.invalid"),
        (["RUN=r", "EXTERNAL=e", "OUT=gs://b/x"], "option.invalid"),
        (["RUN=r", "EXTERNAL=e", "OUT=./r"], "option.invalid"),
    ],
)
def test_arguments_invalid_options_are_refused(
    words: list[str], code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("r", "s"):
        Path(name).mkdir()
    with pytest.raises(UserError) as caught:
        command_module.arguments(words)
    assert caught.value.code == code


def test_evaluate_external_known_lesion_is_refused(published: Path, tmp_path: Path) -> None:
    known = write_raw(tmp_path / "known", {"nv": 2}, seed=1)
    lesion = pd.read_csv(published / "splits.csv")["lesion_id"][0]
    text = (known / "metadata.csv").read_text()
    (known / "metadata.csv").write_text(text.replace("lesion-out-1-nv-0", lesion))
    assert command(f"RUN={published}", f"EXTERNAL={known}", f"OUT={tmp_path / 'out'}") == 2
    assert not (tmp_path / "out").exists()


def test_evaluate_external_with_a_file_that_is_no_model_is_refused(published: Path, tmp_path: Path) -> None:
    """Regression: an error of Keras, with a traceback."""
    model = published / "models" / "oversampled.keras"
    model.write_bytes(b"PK")
    edit(model.with_suffix(".json"), model_sha256=file_sha256(model))
    write_manifest(published)
    external = write_raw(tmp_path / "raw", {"df": 4, "nv": 9})
    with raises_user_error("model.invalid"):
        command_module.run([f"RUN={published}", f"EXTERNAL={external}", f"OUT={tmp_path / 'out'}"], sys.stdout)
    assert not (tmp_path / "out").exists()


def test_pool_folds_counts_each_lesion_once(tmp_path: Path) -> None:
    """Recall is over all lesions, alarms are those of each fold's own threshold."""
    one, two = write_fold(tmp_path / "a", "1/2", range(60)), write_fold(tmp_path / "b", "2/2", range(60, 150))
    pooled_record, table = reevaluate.pool_folds([open_local(two), open_local(one)])
    results = pooled_record.model_dump()
    each = [json.loads((folder / "metrics.json").read_text()) for folder in (one, two)]
    assert len(table) == 150 * 6
    assert results["run"]["split"] == "2 folds, pooled"
    assert results["run"]["code"] == code_sha256("evaluate")
    assert results["run"]["folds"] == [
        {
            "split": part["run"]["split"],
            "split_sha256": part["run"]["split_sha256"],
            "verdict": part["verdict"],
            "value": part["effect"]["value"],
        }
        for part in each
    ]
    assert results["splits"]["test"]["df"] == {"images": 50, "lesions": 50}
    assert results["effect"]["by_class"]["df"]["lesions"] == 50
    for arm in ARMS:
        pooled, parts = results["arms"][arm], [part["arms"][arm] for part in each]
        assert pooled["confusion"] == np.sum([part["confusion"] for part in parts], 0).tolist()
        for name in ("accuracy", "rare_recall", "malignant_sensitivity", "malignant_specificity", "brier"):
            assert pooled[name] == pytest.approx((60 * parts[0][name] + 90 * parts[1][name]) / 150)
        assert list(pooled["models"]) == ["1, fold 1/2", "2, fold 1/2", "1, fold 2/2", "2, fold 2/2"]
    assert Results.model_validate_json(pooled_record.model_dump_json()) == pooled_record


@pytest.mark.parametrize(
    ("details", "name"),
    [
        ({"settings": {"epochs": 3}}, "settings"),
        ({"versions": {"keras": "0"}}, "versions"),
        ({"parameters": {"data_split": "2/2", "gan_kimg": 300.0}}, "gan_kimg"),
        ({"parameters": {"data_split": "2/2", "gan_kimg": 3.0, "synthetic_per_class": 9}}, "synthetic_per_class"),
        ({"parameters": {"data_split": "2/2", "gan_kimg": 3.0, "data_columns": "lesion_id:patient"}}, "data_columns"),
        ({"rebalanced_classes": ["df"]}, "rebalanced_classes"),
        ({"data_sha256": "e"}, "data_sha256"),
    ],
)
def test_pool_folds_runs_that_differ_in_more_than_the_fold_are_refused(
    tmp_path: Path, details: dict[str, Any], name: str
) -> None:
    """Regression: folds whose GANs, image counts or versions differ were pooled."""
    one, two = write_fold(tmp_path / "a", "1/2", range(30)), write_fold(tmp_path / "b", "2/2", range(30, 60), **details)
    with pytest.raises(UserError) as caught:
        reevaluate.pool_folds([open_local(one), open_local(two)])
    assert (caught.value.code, caught.value.fields["settings"]) == ("folds.different_settings", [name])


def test_pool_folds_incomplete_or_overlapping_folds_are_refused(tmp_path: Path) -> None:
    one = write_fold(tmp_path / "a", "1/2", range(30))
    two = write_fold(tmp_path / "b", "2/2", range(30, 60))
    overlapping = write_fold(tmp_path / "c", "2/2", range(29, 60))
    random = write_fold(tmp_path / "d", "random", range(30, 60))
    for folders, code in (
        ((one, one), "folds.incomplete"),
        ((one,), "folds.incomplete"),
        ((one, two, two), "folds.incomplete"),
        ((random, one), "folds.incomplete"),
        ((one, overlapping), "folds.repeated_lesion"),
    ):
        with pytest.raises(UserError) as caught:
            reevaluate.pool_folds([open_local(folder) for folder in folders])
        assert caught.value.code == code
