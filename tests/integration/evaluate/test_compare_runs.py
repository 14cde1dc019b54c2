"""`compare`: settings that differ, and paired differences of two runs with the same split."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from components.evaluate.predict.published import Run
from counterweight import compare, reevaluate
from tests.helpers.errors import raises_user_error
from tests.helpers.example_results import CLASSES
from tests.helpers.published_run import rows_of, simulate, write_manifest, write_run


def command(tmp_path: Path, *runs: Path) -> str:
    out = io.StringIO()
    assert compare.run([f"RUN={','.join(map(str, runs))}", f"OUT={tmp_path / 'c.html'}"], out) == 0
    return out.getvalue()


def open_both(*folders: Path) -> tuple[Run, ...]:
    return tuple(reevaluate.open_published(str(folder), folder) for folder in folders)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("first") / "a")


def test_compare_finds_the_better_arm_of_the_second_run(first: Path, tmp_path: Path):
    second = write_run(tmp_path / "b", skill=4.0, luck=1)
    pairs, seeds, rare = compare.compare_runs(*open_both(first, second))
    found = {(pair.arm, pair.metric): pair for pair in pairs}
    assert (seeds, rare) == ([1, 2, 3], ["akiec", "df"])
    # The values are the mean over seeds and rare classes of the recall of the predictions.
    rows = rows_of("test")
    for which, skill, luck in (("first", 1.0, 2), ("second", 4.0, 102)):
        predicted = np.array(CLASSES)[simulate(rows, 3, skill, luck).argmax(-1)]
        recalls = [(predicted[:, rows["dx"] == dx] == dx).mean() for dx in rare]
        assert getattr(found["augmented@1", "rare_recall"], which) == pytest.approx(np.mean(recalls))
    for pair in (it for (arm, _), it in found.items() if arm == "augmented@1"):
        assert pair.value is not None
        assert pair.first is not None
        assert pair.second is not None
        assert pair.value == pytest.approx(pair.second - pair.first)
        better = pair.low if pair.metric != "balanced_log_loss" else pair.high
        assert better is not None
        assert (better > 0) == (pair.metric != "balanced_log_loss")
    # The other arms have the same predictions in both runs.
    assert (found["baseline", "rare_recall"].low, found["baseline", "rare_recall"].high) == (0.0, 0.0)


def test_compare_prints_and_writes_settings_and_differences(first: Path, tmp_path: Path):
    parameters = {"data": "gs://skin-data/ham10000", "gan_kimg": 12.5, "synthetic_per_class": 735}
    second = write_run(tmp_path / "b", skill=2.0, luck=1, parameters=parameters, versions={"keras": "9"})
    printed = command(tmp_path, first, second)
    page = (tmp_path / "c.html").read_text()
    for text in (printed, page):
        assert "parameter gan_kimg" in text
        assert "12.5" in text
        assert "version of tensorflow" in text
        assert "not recorded" in text
        assert "synthetic_per_class" not in text
        assert "104 test images of 52 lesions; seeds 1, 2, 3; rare classes akiec, df" in text
    assert len([line for line in printed.splitlines() if line.startswith("augmented 100 %")]) == 3


def test_compare_uses_common_seeds_arms_and_rare_classes(first: Path, tmp_path: Path):
    arms = ("baseline", "oversampled", "class_weights", "augmented@0.5", "augmented@1")
    second = write_run(tmp_path / "b", seeds=2, arms=arms, rebalanced_classes=["df"])
    pairs, seeds, rare = compare.compare_runs(*open_both(first, second))
    assert (seeds, rare) == ([1, 2], ["df"])
    assert list(dict.fromkeys(pair.arm for pair in pairs)) == ["baseline", "oversampled", "augmented@1"]


def test_compare_with_one_common_seed_states_that_the_intervals_do_not_cover_seeds(first: Path, tmp_path: Path):
    second = write_run(tmp_path / "b", seeds=1, rebalanced_classes=["mel"])
    printed = command(tmp_path, first, second)
    for text in (printed, (tmp_path / "c.html").read_text()):
        assert "An interval covers test lesions only" in text
    assert "seeds 1; rare classes none" in printed
    (line,) = [line for line in printed.splitlines() if line.startswith("augmented 100 %  recall, rare classes")]
    assert line.split()[-3:] == ["n/a", "n/a", "n/a"]


def test_compare_does_not_depend_on_the_order_of_the_rows(first: Path, tmp_path: Path):
    second = write_run(tmp_path / "b", luck=1)
    straight = compare.compare_runs(*open_both(first, second))
    path = second / "predictions.parquet"
    pd.read_parquet(path).sample(frac=1, random_state=0).to_parquet(path, index=False)
    write_manifest(second)
    shuffled = compare.compare_runs(*open_both(first, second))
    for one, other in zip(straight[0], shuffled[0], strict=True):
        # Sums in another order differ in the last digits.
        assert vars(one) == pytest.approx(vars(other), abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"split_sha256": "b" * 64}, "compare.other_split"),
        ({"split_sha256": ""}, "compare.other_split"),
        ({"folds": [{"split": "1/2", "split_sha256": "", "verdict": "worse", "value": None}]}, "compare.folds"),
    ],
)
def test_compare_runs_that_cannot_be_paired_are_refused_after_the_settings(
    first: Path, tmp_path: Path, changes: dict[str, Any], code: str
):
    second = write_run(tmp_path / "b", **changes)
    out = io.StringIO()
    with raises_user_error(code):
        compare.run([f"RUN={first},{second}", f"OUT={tmp_path / 'c.html'}"], out)
    assert ("split_sha256" in out.getvalue()) == ("split_sha256" in changes)
    assert not (tmp_path / "c.html").exists()


def test_compare_other_seeds_are_refused(first: Path, tmp_path: Path):
    second = write_run(tmp_path / "b")
    table = pd.read_parquet(second / "predictions.parquet")
    table.assign(seed=table["seed"] + 10).to_parquet(second / "predictions.parquet", index=False)
    text = (second / "metrics.json").read_text().replace('"seeds": [1, 2, 3]', '"seeds": [11, 12, 13]')
    (second / "metrics.json").write_text(text)
    write_manifest(second)
    with raises_user_error("compare.no_common_seed"):
        compare.run([f"RUN={first},{second}", f"OUT={tmp_path / 'c.html'}"], io.StringIO())


def test_compare_other_lesions_under_the_same_hash_are_refused(first: Path, tmp_path: Path):
    second = write_run(tmp_path / "b")
    table = pd.read_parquet(second / "predictions.parquet")
    table["lesion_id"] = table["lesion_id"].replace("test-df-lesion-0", "test-df-lesion-1")
    table.to_parquet(second / "predictions.parquet", index=False)
    write_manifest(second)
    with raises_user_error("compare.other_images"):
        compare.run([f"RUN={first},{second}", f"OUT={tmp_path / 'c.html'}"], io.StringIO())


def test_compare_hostile_names_and_values_are_escaped(first: Path, tmp_path: Path):
    second = write_run(tmp_path / "<b>\x1b[31m", data="<script>alert(1)</script>\x1b", versions={"<i>": "\x1b"})
    printed = command(tmp_path, first, second)
    page = (tmp_path / "c.html").read_text()
    assert "\x1b" not in printed + page
    for tag in ("<script", "<b>", "<i>"):
        assert tag not in page


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([], "compare.two_runs"),
        (["RUN=a"], "compare.two_runs"),
        (["RUN=a,b,c"], "compare.two_runs"),
        (["RUN=/nowhere,/elsewhere"], "option.invalid"),
        (["RUN=\0,b"], "option.invalid"),
        (["RUN=gs://,b"], "storage.invalid_address"),
        (["RUN={0},{0}", "OUT=x.txt"], "compare.out"),
        (["RUN={0},{0}", "OUT=gs://bucket/x.html"], "option.invalid"),
        (["RUN={0},{0}", "OUT=/proc/x.html"], "run.not_writable"),
        (["RUN={0},{1}"], "run.missing_file"),
    ],
)
def test_compare_invalid_input_is_a_user_error(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: str
):
    monkeypatch.chdir(tmp_path)
    with raises_user_error(code):
        compare.run([word.format(first, tmp_path) for word in words], io.StringIO())
    assert not list(tmp_path.glob("*.html"))
