from pathlib import Path

import pytest

from components.shared.errors import UserError
from tools import parameters
from tools.run import arguments, data_version

DEFAULTS = {
    "data": "demo",
    "data_version": "1",
    "output": "x",
    "seed": 1,
    "gan_kimg": 12.0,
    "augmentation": "none",
    "image_size": 128,
    "gan_architecture": "dcgan",
    "rare_classes": "auto",
    "synthetic_per_class": 500,
    "classifier_epochs": 50,
    "classifier_patience": 10,
}


def test_types_are_the_defaults():
    assert parameters.typed({"seed": "7", "gan_kimg": "3", "rare_classes": "df"}, DEFAULTS) == {
        "seed": 7,
        "gan_kimg": 3.0,
        "rare_classes": "df",
    }


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"sede": "1"}, "sede is not a parameter; choose from .*seed"),
        ({"seed": "1.5"}, "seed is '1.5'; give a whole number"),
        ({"seed": ""}, "seed is ''; give a whole number"),
        ({"gan_kimg": "much"}, "gan_kimg is 'much'; give a number"),
        ({"gan_kimg": "nan"}, "gan_kimg is 'nan'; give a number"),
        ({"gan_kimg": "inf"}, "gan_kimg is 'inf'; give a number"),
        ({"augmentation": "mixup"}, "augmentation is 'mixup'; choose one of none, flips_and_turns"),
        ({"gan_architecture": "stylegan"}, "gan_architecture is 'stylegan'; choose one of dcgan"),
    ],
)
def test_a_wrong_value_is_one_sentence(given: dict[str, str], sentence: str):
    with pytest.raises(UserError, match=sentence):
        parameters.typed(given, DEFAULTS)


@pytest.mark.parametrize("words", [["seed"], ["=1"], ["seed=1", "seed=2"]])
def test_what_is_not_an_assignment_is_refused(words: list[str]):
    with pytest.raises(UserError):
        parameters.assignments(words)


@pytest.mark.parametrize("name", ["demo", "cpu", "full"])
def test_presets_name_parameters_only(name: str):
    values = parameters.preset(name)
    assert {k: type(v) for k, v in values.items()} == {k: type(DEFAULTS[k]) for k in values}


@pytest.mark.parametrize("name", ["gpu", "", "../presets/demo", "demo.yaml"])
def test_an_unknown_preset_is_refused(name: str):
    with pytest.raises(UserError, match="choose one of cpu, demo, full"):
        parameters.preset(name)


def test_the_same_command_has_the_same_run_id_and_another_has_another():
    first, values, folder = arguments(["seed=3"], DEFAULTS)
    assert arguments(["PRESET=demo", "seed=3"], DEFAULTS)[0] == first
    assert arguments(["seed=4"], DEFAULTS)[0] != first
    assert arguments(["seed=3", "OUT=/tmp/elsewhere"], DEFAULTS)[0] == first
    assert folder == Path("runs", first).resolve()
    assert values["output"] == str(folder)


def test_the_command_line_beats_the_preset_and_the_preset_the_default(tmp_path: Path):
    values = arguments(["PRESET=cpu", "gan_kimg=1", f"DATA={tmp_path}"], DEFAULTS)[1]
    assert (values["gan_kimg"], values["image_size"], values["seed"]) == (1.0, 64, 1)
    assert values["data"] == str(tmp_path)


def test_a_local_run_does_not_take_an_address_for_a_folder():
    with pytest.raises(UserError, match="a local run writes to a folder"):
        arguments(["OUT=gs://bucket/x"], DEFAULTS)


def test_a_folder_that_changed_is_another_version(tmp_path: Path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_text("one")
    first = data_version(str(tmp_path))
    assert data_version(str(tmp_path)) == first
    (tmp_path / "sub" / "a").write_text("other")
    assert data_version(str(tmp_path)) != first
    assert data_version("gs://bucket/x") == data_version("demo") == "1"
