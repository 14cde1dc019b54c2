"""What a local run makes of its command line."""

from pathlib import Path
from typing import Any

import pytest

from components.shared.errors import UserError
from components.shared.parameters import defaults
from counterweight import run


def arguments(*words: str) -> tuple[str, dict[str, Any], Path]:
    return run.arguments(list(words), defaults())


def test_arguments_give_the_same_command_the_same_run_id():
    first, values, folder = arguments("random_seed=3")
    assert arguments("PRESET=demo", "random_seed=3")[0] == first
    assert arguments("random_seed=4")[0] != first
    assert arguments("random_seed=3", "OUT=/tmp/elsewhere")[0] == first
    assert folder == Path("runs", first).resolve()
    assert values["output"] == str(folder)


def test_arguments_take_precedence_over_the_preset_and_it_over_the_default(tmp_path: Path):
    values = arguments("PRESET=cpu", "gan_kimg=1", f"DATA={tmp_path}")[1]
    assert (values["gan_kimg"], values["data_image_size"], values["random_seed"]) == (1.0, 64, 1)
    assert values["data"] == str(tmp_path)


def test_arguments_give_changed_data_another_run_id(tmp_path: Path):
    (tmp_path / "a.jpg").write_text("one")
    first = arguments(f"DATA={tmp_path}")[0]
    assert arguments(f"DATA={tmp_path}")[0] == first
    (tmp_path / "a.jpg").write_text("other")
    assert arguments(f"DATA={tmp_path}")[0] != first


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("data_split=2/5", "data_split"),
        ("data_split=gs://bucket/s.csv", "data_split"),
        ("data_split=random", "data_split"),
        ("data_external=gs://bucket/x", "data_external"),
        ("EXTERNAL=none", "data_external"),
    ],
)
def test_arguments_leave_values_that_are_no_path_unchanged(word: str, name: str):
    assert arguments(word)[1][name] == word.partition("=")[2]


@pytest.mark.parametrize(
    "words",
    [
        ["OUT=gs://bucket/x"],
        ["data_split=no.csv"],
        ["EXTERNAL=/no/folder"],
        ["data_split=."],
        ["DATA=~nobody-of-this-name/x"],
        ["OUT=a", "output=b"],
        ["DATA=demo", "data=demo"],
    ],
)
def test_arguments_refuse_what_a_local_run_cannot_use(words: list[str]):
    with pytest.raises(UserError):
        arguments(*words)
