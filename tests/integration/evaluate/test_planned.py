"""A run that cites a plan: the report states when it was planned, and every deviation from the plan."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from components.evaluate.report.gallery import Gallery
from components.shared.code_identity import code_sha256
from components.shared.errors import UserError
from components.shared.image_set import hash_rows, read_rows
from components.shared.records import ImageCounts, Plan, Results, RunRecord, load_record
from counterweight import reevaluate
from tests.helpers.example_results import example
from tests.helpers.rendering import render_html, render_markdown, render_text
from tests.integration.evaluate.conftest import RunFolders

pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.fixture(scope="module")
def planned(run: RunFolders) -> Plan:
    """The plan of the run of the other tests."""
    training, test = run.arguments["training_data"], run.arguments["test_data"]
    paths = {name: training / f"{name}.parquet" for name in ("train", "validation")} | {"test": test / "test.parquet"}
    sets = {name: read_rows(path, name, ["image_id", "lesion_id", "dx"]) for name, path in paths.items()}
    counts = {
        name: {
            str(dx): ImageCounts(images=len(of_class), lesions=of_class["lesion_id"].nunique())
            for dx, of_class in rows.groupby("dx")
        }
        for name, rows in sets.items()
    }
    return Plan(
        created="2026-01-02 03:04 UTC",
        code=code_sha256("evaluate"),
        data="elsewhere",
        layout="HAM10000",
        unit="lesion",
        images_sha256=hash_rows(pd.concat(sets.values()), ["image_id", "lesion_id", "dx"]),
        splits={"random": "5" * 64},
        settings={"classifier_epochs": 2, "data": "elsewhere", "data_image_size": 32, "random_seed": 1},
        settings_sha256="0" * 64,
        arms=["baseline", "oversampled", "augmented@1"],
        seeds=[1, 2],
        rare_classes=["df"],
        primary_metric="m",
        decision_rule="r",
        alpha=0.05,
        counts=counts,
        folds=1,
        detectable=0.3,
        by_class={},
        assumptions={},
        machine="m",
        phases={},
        currency="",
    )


def text_of(plan: Plan, **changes: Any) -> str:
    return plan.model_copy(update=changes).model_dump_json(indent=1)


def test_evaluate_run_as_planned_cites_the_plan_without_deviation(run: RunFolders, planned: Plan, tmp_path: Any):
    text = text_of(planned)
    outcome = run.evaluate(plan=text, results=tmp_path / "results", report=tmp_path / "report.html")
    cited = load_record(tmp_path / "results" / "metrics.json", Results).run.plan
    assert cited is not None
    assert cited.model_dump() == outcome["run"]["plan"]
    assert (cited.created, cited.deviations) == ("2026-01-02 03:04 UTC", [])
    assert cited.sha256 == hashlib.sha256(text.encode()).hexdigest()
    page = (tmp_path / "report.html").read_text()
    assert "<b>Planned on 2026-01-02 03:04 UTC.</b> Data, split, settings, arms and seeds are as planned." in page
    assert cited.sha256 in page
    assert "as planned" in (tmp_path / "results" / "comparison.md").read_text()


@pytest.mark.parametrize(
    ("changes", "deviations"),
    [
        ({"settings": {"classifier_epochs": 9, "gan_kimg": 3.0}}, ["classifier_epochs is 2, planned 9"]),
        ({"settings": {"data_image_size": 64}}, ["data_image_size is 32, planned 64"]),
        ({"settings": {"positive_classes": "df"}}, ["positive_classes is vasc, planned df"]),
        ({"seeds": [1, 2, 3]}, ["the seeds of the classifiers are 1, 2, planned 1, 2, 3"]),
        (
            {"arms": ["baseline", "oversampled"]},
            ["the arms are baseline, oversampled, augmented@1, planned baseline, oversampled"],
        ),
        (
            {"rare_classes": ["df", "vasc"]},
            ["the rare classes are df, planned df, vasc"],
        ),
        ({"images_sha256": "1" * 64}, ["the images, lesions or classes differ: 128 images, planned 128"]),
        ({"splits": {"1/5": "5" * 64, "2/5": "6" * 64}}, ["data_split is random, planned 1/5 or 2/5"]),
        ({"splits": {"random": "6" * 64}}, ["the split differs from the planned one"]),
        ({"code": "0" * 64}, ["the code of the evaluation has changed"]),
        ({"splits": {"elsewhere/split.csv": "5" * 64}}, []),
    ],
)
def test_cite_states_each_deviation(
    run: RunFolders, planned: Plan, changes: dict[str, Any], deviations: list[str], tmp_path: Any
):
    outcome = run.evaluate(plan=text_of(planned, **changes), results=tmp_path / "r", report=tmp_path / "p.html")
    assert outcome["run"]["plan"]["deviations"] == deviations
    page = (tmp_path / "p.html").read_text()
    assert ("The run deviates from its plan" in page) == bool(deviations)


def test_cite_counts_the_lesions_of_another_split(run: RunFolders, planned: Plan, tmp_path: Any):
    counts = {name: dict(of_split) for name, of_split in planned.counts.items()}
    counts["test"]["df"] = ImageCounts(images=6, lesions=3)
    text = text_of(planned, splits={"random": "6" * 64}, counts=counts)
    outcome = run.evaluate(plan=text, results=tmp_path / "r", report=tmp_path / "p.html")
    assert outcome["run"]["plan"]["deviations"] == [
        "the split differs from the planned one: test has 2 lesions of df, planned 3"
    ]


@pytest.mark.parametrize("text", ["{}", "no plan", '{"created": 1}'])
def test_evaluate_invalid_plan_is_refused_before_any_output(run: RunFolders, text: str, tmp_path: Any):
    with pytest.raises(UserError) as caught:
        run.evaluate(plan=text, results=tmp_path / "r", report=tmp_path / "p.html")
    assert caught.value.code == "plan.invalid"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("render", [render_markdown, render_text, lambda it: render_html(it, Gallery())])
def test_pages_escape_a_hostile_deviation(render: Callable[[dict[str, Any]], str]):
    results = example()
    results["run"]["plan"] = {
        "created": "2026-01-02 03:04 UTC",
        "sha256": "a" * 64,
        "deviations": ["<script>alert(1)</script> *x* \x1b[31m"],
    }
    page = render(results)
    assert "2026-01-02 03:04 UTC" in page
    assert "\x1b" not in page
    assert ("<script>" in page) == (render is render_text)


def test_pooled_folds_cite_their_common_plan_with_the_deviations_of_each():
    class Fold:
        def __init__(
            self, split: str, sha256: str, deviations: list[str], code: str | None = code_sha256("evaluate")
        ) -> None:
            plan = {"created": "2026-01-02 03:04 UTC", "sha256": sha256 * 64, "deviations": deviations}
            record = example()["run"] | {"split": split, "plan": plan, "code": code}
            self.record = RunRecord.model_validate_json(json.dumps(record))

    same: list[Any] = [Fold("1/2", "a", []), Fold("2/2", "a", ["x"])]
    pooled = reevaluate._pool_plans(same)
    assert pooled is not None
    assert (pooled.sha256, pooled.deviations) == ("a" * 64, ["fold 2/2: x"])
    older: list[Any] = [Fold("1/2", "a", [], code="0" * 64), Fold("2/2", "a", [])]
    pooled = reevaluate._pool_plans(older)
    assert pooled is not None
    assert pooled.deviations == ["fold 1/2 was evaluated by other code"]
    other: list[Any] = [Fold("1/2", "a", []), Fold("2/2", "b", [])]
    assert reevaluate._pool_plans(other) is None
