"""Assignments, presets and options of the command line."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from components.shared import parameters as model
from components.shared.errors import UserError
from counterweight import parameters
from tests.helpers.errors import raises_user_error


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["seed"], "arguments.not_an_assignment"),
        (["=1"], "arguments.not_an_assignment"),
        (["seed=1", "seed=2"], "arguments.repeated"),
        (["DATA="], "arguments.empty"),
        (["PRESET=cpu", "EXTERNAL= "], "arguments.empty"),
    ],
)
def test_assignments_refuses_other_words(words: list[str], code: str):
    with pytest.raises(UserError) as caught:
        parameters.assignments(words)
    assert caught.value.code == code


@pytest.mark.parametrize("name", parameters.preset_names())
def test_preset_sets_parameters_to_valid_values(name: str):
    values = parameters.preset(name)
    assert values.items() <= model.check(values).items()
    assert {type(value) for value in values.values()} <= {int, float, str, list}


@pytest.mark.parametrize("name", ["gpu", "", "../presets/demo", "demo.yaml"])
def test_preset_of_an_unknown_name_fails(name: str):
    with pytest.raises(UserError) as caught:
        parameters.preset(name)
    assert caught.value.code == "preset.unknown"


def test_preset_with_an_unknown_parameter_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "own.yaml").write_text("sede: 1")
    monkeypatch.setattr(parameters, "PRESETS", tmp_path)
    with pytest.raises(UserError) as caught:
        parameters.preset("own")
    assert (caught.value.code, caught.value.fields["name"]) == ("parameter.unknown", "sede")


def test_split_options_separates_options_from_parameters():
    given = {"gan_kimg": "3", "gans_per_task": "1", "OUT": "x"}
    assert parameters.split_options(given) == ({"gan_kimg": "3", "output": "x"}, {"gans_per_task": "1"})


@pytest.mark.parametrize(("word", "name"), parameters.ALIASES.items())
def test_split_options_refuses_both_names_of_a_parameter(word: str, name: str):
    assert name in model.Parameters.model_fields
    with raises_user_error("arguments.repeated") as caught:
        parameters.split_options({word: "x", name: "x"})
    assert caught.value.fields == {"name": name}


def test_table_has_a_row_for_each_parameter_and_option():
    for entries in (model.Parameters, model.Options):
        lines = parameters.table(entries).splitlines()
        assert [line.split("`")[1] for line in lines[2:]] == list(entries.model_fields)
        assert {line.count("|") for line in lines} == {5}


@pytest.mark.parametrize(
    "value",
    ["it's", "/x (copy)", 'a"b', "two  blanks", "r; echo no", "a=b", "&", "ends\\", "$b", "$(shell touch made)"],
)
def test_words_passes_on_what_make_was_given(value: str, tmp_path: Path):
    """Run make itself, with a stand-in for Python that prints its arguments."""
    root = Path(__file__).resolve().parents[3]
    shutil.copy(root / "Makefile", tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name in ("uv.lock", "pyproject.toml", ".venv/.ready"):
        (tmp_path / name).touch()
    stand_in = tmp_path / ".venv" / "bin" / "python"
    code = "from counterweight.parameters import words; import json, sys; print(json.dumps(words(sys.argv[4:])))"
    stand_in.write_text(f'#!/bin/sh\nPYTHONPATH="{root}" exec "{sys.executable}" -c "{code}" "$@"\n')
    stand_in.chmod(0o755)
    command = ["make", "run", f"OUT={value}", "PYTHON=other", "random_seed=3"]
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert sorted(json.loads(done.stdout.splitlines()[-1])) == [f"OUT={value}", "random_seed=3"]
    assert not (tmp_path / "made").exists()


def test_words_refuses_a_name_that_make_does_not_pass(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MAKEFLAGS", " -- gan-kimg=3")
    with raises_user_error("arguments.not_exported", name="gan-kimg") as caught:
        parameters.words(["--make"])
    assert caught.value.hint == "write gan_kimg=…"
