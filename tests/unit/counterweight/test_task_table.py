"""The rows of the table of a local run."""

import io

import pytest

from components import placement
from components.shared.parameters import defaults
from counterweight.task_table import Row, TaskTable, is_interactive, planned_labels, select_rows, task_labels


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def states(table: TaskTable) -> dict[str, str]:
    return {row.label: row.state for row in table._rows}


def test_planned_labels_have_a_row_for_each_class_arm_and_seed():
    values = defaults() | {"synthetic_classes": "df, vasc", "classifier_seeds": [1, 2]}
    values |= {"arms": "augmented,oversampled,baseline", "synthetic_shares": [1.0, 0.5]}
    assert planned_labels(values) == [
        "check_inputs",
        "prepare_data",
        "train_classifier baseline, seed 1",
        "train_classifier baseline, seed 2",
        "train_classifier oversampled, seed 1",
        "train_classifier oversampled, seed 2",
        "read_other_data",
        "train_features",
        "pretrain_gan",
        "train_gan df",
        "train_gan vasc",
        "generate_images df",
        "generate_images vasc",
        "balance_dataset",
        "train_classifier augmented@0.5, seed 1",
        "train_classifier augmented@0.5, seed 2",
        "train_classifier augmented@1, seed 1",
        "train_classifier augmented@1, seed 2",
        "evaluate",
        "publish",
    ]


def test_planned_labels_with_a_champion_have_a_row_that_reads_it():
    placement.override_options({"champion": "last"})
    try:
        labels = planned_labels(defaults())
    finally:
        placement._overrides.clear()
        placement.placement.cache_clear()
    assert labels[:3] == ["check_inputs", "prepare_data", "read_champion"]
    assert "read_champion" not in planned_labels(defaults())


def test_planned_labels_of_automatic_classes_are_expanded_later():
    labels = planned_labels(defaults() | {"synthetic_classes": "auto"})
    assert labels.count("train_gan") == 1
    table = TaskTable(io.StringIO(), labels, 0.0)
    table.expand("train_gan", ["train_gan df", "train_gan vasc"])
    table.expand("generate_images", [])
    expanded = list(states(table))
    position = labels.index("train_gan")
    assert expanded[position : position + 3] == ["train_gan df", "train_gan vasc", "balance_dataset"]


def test_task_labels_of_generate_images_are_its_classes():
    assert task_labels("generate_images", {"classes": "df,vasc"}) == ["generate_images df", "generate_images vasc"]


def test_task_labels_of_train_classifier_are_in_the_order_of_training():
    assert task_labels("train_classifier", {"pack": "baseline:1*,baseline:2,oversampled:1*"}) == [
        "train_classifier baseline, seed 1",
        "train_classifier baseline, seed 2",
        "train_classifier oversampled, seed 1",
    ]


def test_rows_of_one_task_run_one_after_another():
    labels = ["train_gan df", "train_gan vasc", "train_gan mel"]
    table = TaskTable(io.StringIO(), labels, 0.0)
    table.start(labels)
    assert list(states(table).values()) == ["running", "waiting", "waiting"]
    table.update(labels, "train_gan df: 12.0 of 12.0 kimg, 100 images/s")
    table.update(labels, "train_gan vasc: 6.0 of 12.0 kimg, 100 images/s, 1 min 00 s left")
    assert list(states(table).values()) == ["done", "running", "waiting"]
    table.end(labels, "failed")
    assert list(states(table).values()) == ["done", "failed", "waiting"]


def test_rows_of_a_cached_task_are_all_cached():
    table = TaskTable(io.StringIO(), ["train_gan df", "train_gan vasc"], 0.0)
    table.end(["train_gan df", "train_gan vasc", "unplanned"], "cached")
    assert states(table) == {"train_gan df": "cached", "train_gan vasc": "cached", "unplanned": "cached"}


@pytest.mark.parametrize("limit", [1, 3, 6])
def test_select_rows_keeps_the_running_ones(limit: int):
    rows = [Row(f"ended {n}", "done", ended=n) for n in range(10)]
    rows += [Row("active", "running"), *(Row(f"next {n}") for n in range(10))]
    selected = [row.label for row in select_rows(rows, limit)]
    assert len(selected) == limit
    assert "active" in selected
    if limit > 1:
        assert "next 0" in selected
    assert selected == [row.label for row in rows if row.label in selected]


@pytest.mark.parametrize(
    ("environment", "interactive"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
        ({}, False),
        ({"TERM": "xterm", "CI": "true"}, False),
        ({"TERM": "xterm", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}, False),
    ],
)
def test_is_interactive_needs_a_capable_terminal(environment: dict[str, str], interactive: bool):
    assert is_interactive(Terminal(), environment) is interactive
    assert not is_interactive(io.StringIO(), environment)
