import pytest

from components.shared.records import Results
from scripts import results_tables
from tests.helpers.errors import raises_user_error
from tests.helpers.example_results import ARMS, example


def test_tables_have_the_figures_of_the_results():
    """Each figure of a table is that of the record, in the row of its arm or class."""
    results = Results.model_validate(example())
    arms = list(results_tables.arms_table(results))
    assert [line.split("|")[1].strip(" `") for line in arms[2:-1]] == list(ARMS)
    assert f"{results.arms['oversampled'].macro_auc:.3f}" in arms[3]
    gain = next(it for it in results.effect.remedies if it.arm == "oversampled")
    assert f"| {gain.value:+.3f} |".replace("-", "−") in arms[3]
    classes = list(results_tables.classes_table(results))
    assert classes[2].startswith("| akiec *")
    assert f"| {results.arms['augmented@1'].recall['akiec']:.3f} |" in classes[2]
    effects = "\n".join(results_tables.effects_table(results))
    assert f"| {results.effect.value:+.3f} | {results.effect.low:+.3f} to".replace("-", "−") in effects
    images = list(results_tables.images_table(results))
    assert f"| {results.synthetic['df'].kid:.3f} |" in next(line for line in images if line.startswith("| df"))


def test_every_row_has_the_columns_of_the_header():
    """A table that lacks a figure, such as the interval of the baseline, has an empty cell."""
    results = Results.model_validate(example())
    tables = results_tables.arms_table, results_tables.effects_table, results_tables.classes_table
    for table in (*tables, results_tables.images_table):
        header, *rows = [line for line in table(results) if line]
        assert {row.count("|") for row in rows} == {header.count("|")}, table.__name__


@pytest.mark.parametrize("given", [[], ["run", "sheet.jpg", "surplus"]])
def test_other_numbers_of_arguments_are_refused(given: list[str]):
    with raises_user_error("results_tables.arguments"):
        results_tables.main(given)
