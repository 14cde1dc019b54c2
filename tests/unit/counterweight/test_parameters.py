import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from components.shared.errors import UserError
from counterweight import parameters
from counterweight.run import arguments, data_version

DEFAULTS = {
    "data": "demo",
    "data_version": "1",
    "output": "x",
    "seed": 1,
    "gan_kimg": 8.0,
    "shared_kimg": 24.0,
    "augmentation": "none",
    "image_size": 128,
    "gan_architecture": "dcgan",
    "rare_classes": "auto",
    "synthetic_per_class": 500,
    "classifier_epochs": 50,
    "classifier_patience": 10,
    "seeds": [1],
    "split": "random",
    "external": "none",
    "checkpoints": "auto",
}


def test_types_are_the_defaults():
    given = {"seed": "7", "gan_kimg": "3", "rare_classes": "df", "seeds": "4, 2"}
    assert parameters.typed(given, DEFAULTS) == {
        "seeds": [4, 2],
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
        ({"augmentation": "mixup"}, "augmentation is 'mixup'; choose one of none, flips_and_rotations"),
        ({"seeds": ""}, "seeds is ''; give whole numbers with commas"),
        ({"seeds": "1,x"}, "seeds is '1,x'; give whole numbers"),
        ({"seeds": "1,2,1"}, "seeds is 1,2,1; give up to 20 different numbers"),
        ({"seeds": "-1"}, "seeds is -1; give up to 20 different numbers from 0"),
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
    assert data_version("gs://bucket/x") == data_version("demo", "none", "random") == "1"


def test_an_external_folder_or_a_split_file_that_changed_is_another_version(tmp_path: Path):
    for name in ("data", "external"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jpg").write_text(name)
    split = tmp_path / "split.csv"
    split.write_text("image_id,split\n")
    versions = [arguments([f"DATA={tmp_path}/data"], DEFAULTS)[1]["data_version"]]
    words = [f"DATA={tmp_path}/data", f"EXTERNAL={tmp_path}/external", f"split={split}"]
    for change in ("", "one", "a third"):
        split.write_text(f"image_id,split\n{change}")
        values = arguments(words, DEFAULTS)[1]
        assert (values["external"], values["split"]) == (str(tmp_path / "external"), str(split))
        versions.append(values["data_version"])
    assert len(set(versions)) == 4


@pytest.mark.parametrize(
    "word", ["split=2/5", "split=gs://b/s.csv", "external=gs://b/x", "EXTERNAL=none", "split=random"]
)
def test_what_is_no_path_stays_as_it_is(word: str):
    name, _, value = word.partition("=")
    assert arguments([word], DEFAULTS)[1][name.lower()] == value


@pytest.mark.parametrize("word", ["split=no.csv", "EXTERNAL=/no/folder", "split=."])
def test_a_path_that_is_not_there_is_one_sentence(word: str):
    with pytest.raises(UserError, match="there is no such"):
        arguments([word], DEFAULTS)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"seed": "-1"}, "seed is -1; choose from 0 to"),
        ({"seed": "99999999999999999999"}, "seed is 99999999999999999999; choose from 0 to 9,007,199,254,740,992"),
        ({"gan_kimg": "0"}, "gan_kimg is 0; choose from 0.001 to"),
        ({"image_size": "4096"}, "image_size is 4096; choose from 32 to 512"),
        ({"synthetic_per_class": "0"}, "synthetic_per_class is 0; choose from 1 to"),
    ],
)
def test_a_value_out_of_range_comes_out_before_anything_is_started(given: dict[str, str], sentence: str):
    with pytest.raises(UserError, match=sentence):
        parameters.typed(given, DEFAULTS)


@pytest.mark.parametrize("words", [["OUT=a", "output=b"], ["DATA=demo", "data=demo"]])
def test_one_thing_under_two_names_is_refused(words: list[str]):
    with pytest.raises(UserError, match="are the same; give one of them"):
        arguments(words, DEFAULTS)


def test_nobodys_home_is_one_sentence():
    with pytest.raises(UserError, match="there is no such folder"):
        arguments(["DATA=~nobody-of-this-name/x"], DEFAULTS)


def test_results_in_the_datas_own_folder_do_not_change_its_version(tmp_path: Path):
    (tmp_path / "a.jpg").write_text("one")
    first = data_version(str(tmp_path))
    for name in ("report.html", "metrics.json", "df.parquet", ".DS_Store"):
        (tmp_path / name).touch()
    assert data_version(str(tmp_path)) == first


@pytest.mark.parametrize("value", ["it's", "/x (copy)", 'a"b', "two  blanks", "r; echo no", "a=b", "&", "ends\\"])
def test_make_hands_over_what_was_written(value: str, tmp_path: Path):
    """Through make itself, with a Python that says what it got."""
    root = Path(__file__).resolve().parents[3]
    shutil.copy(root / "Makefile", tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name in ("uv.lock", "pyproject.toml", ".venv/.ready"):
        (tmp_path / name).touch()
    stand_in = tmp_path / ".venv" / "bin" / "python"
    code = "from counterweight.parameters import words; import json, sys; print(json.dumps(words(sys.argv[3:])))"
    stand_in.write_text(f'#!/bin/sh\nPYTHONPATH="{root}" exec "{sys.executable}" -c "{code}" "$@"\n')
    stand_in.chmod(0o755)
    command = ["make", "run", f"OUT={value}", "PYTHON=other", "seed=3"]
    outside = {name: text for name, text in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(command, cwd=tmp_path, env=outside, capture_output=True, text=True, check=True)
    assert sorted(json.loads(done.stdout.splitlines()[-1])) == [f"OUT={value}", "seed=3"]
