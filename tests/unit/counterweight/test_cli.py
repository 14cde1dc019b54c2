"""The command line: help, names of options, and what happens with unknown ones."""

import itertools
import re
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner

from components.shared.parameters import Options, Parameters
from counterweight import cli
from counterweight.run import PER_TASK


def call(*words: str) -> tuple[int, str]:
    """Return exit code and output of a command, at most 80 columns wide."""
    result = CliRunner(env={"COLUMNS": "80"}).invoke(cli.main, words)
    return result.exit_code, result.output


def test_sections_have_each_parameter_once():
    placed = [*itertools.chain(*cli.SECTIONS.values()), "data", "data_external", "output"]
    assert sorted(placed) == sorted([*Parameters.model_fields, *Options.model_fields])


def test_help_lists_all_commands_with_a_complete_sentence():
    _, text = call("--help")
    commands = text.partition("On this machine:\n")[2].partition("  Exit codes:")[0]
    assert re.findall(r"^  (\w+) +\S.*\.$", commands, re.MULTILINE) == list(cli.COMMANDS)
    assert text.index("On a cluster:") < text.index("  submit ")


def test_help_of_run_shows_types_defaults_and_aliases_below_headings():
    _, text = call("run", "--help")
    shown = " ".join(text.split())
    headings = ["Common:", "Data:", "Classifiers:", "GANs:", "Synthetic images:", "Promotion:", "Installation:"]
    assert [line for line in text.splitlines() if line in headings] == headings
    for expected in (
        "--out, --output FOLDER Folder of the results. [default: runs/<run id>]",
        "--external, --data-external PLACE ",
        "--preset [cpu|demo|full] ",
        "--classifier-epochs INTEGER Epochs of each classifier; ",
        "from 1 to 1,000,000. [default: 20]",
        "--classifier-seeds NUMBER,… ",
        "--data-duplicates [refuse|move_to_train] ",
        "--data-split random|K/N|FILE ",
        "-h, --help ",
    ):
        assert expected in shown
    assert "TEXT" not in text
    assert shown.count("--output") == shown.count("--data-external") == 1


def test_help_states_the_defaults_of_a_local_run():
    for name, default in PER_TASK.items():
        assert f"by default {default} in a local run" in str(Options.model_fields[name].description)


def test_options_and_names_give_the_same_arguments(monkeypatch: pytest.MonkeyPatch):
    given: list[list[str]] = []
    monkeypatch.setattr(cli, "_call", lambda name, command, known, arguments: given.append(sorted(arguments)))
    assert call("run", "--output", "o", "--data-external", "e", "--gan-kimg", "3") == (0, "")
    assert call("run", "OUT=o", "EXTERNAL=e", "gan_kimg=3") == (0, "")
    assert given[0] == given[1]


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("run", "synthetic_clases=df"), "did you mean synthetic_classes?"),
        (("run", "gan_architectur=dcgan"), "did you mean gan_architecture?"),
        (("run", "preset=cpu"), "did you mean PRESET?"),
        (("plan", "DAT=demo"), "did you mean DATA?"),
        (("submit", "zzz=1"), "see `counterweight submit --help`"),
        (("predict", "ARMS=x"), "did you mean ARM?"),
        (("compile", "PLACEMENTS=x"), "did you mean PLACEMENT?"),
        (("images", "seed=1"), "see `counterweight images --help`"),
        (("images", "REGISTRY=host/x"), "see `counterweight images --help`"),
        (("compare", "OUTS=x"), "did you mean OUT?"),
        (("runs", "KFP_HOST=x"), "see `counterweight runs --help`"),
        (("compile", "KFP_HOST=x"), "see `counterweight compile --help`"),
        *(((name, "FOO=1"), f"see `counterweight {name} --help`") for name in cli.COMMANDS),
    ],
)
def test_unknown_name_is_an_error_that_names_the_nearest(words: tuple[str, ...], hint: str):
    name = words[-1].partition("=")[0]
    assert call(*words) == (2, f"error: {name} is not an option of {words[0]}\nhint: {hint}\n")


@pytest.mark.parametrize("name", sorted(cli.CALLING_API))
def test_commands_that_call_the_api_take_its_variables(monkeypatch: pytest.MonkeyPatch, name: str):
    given: list[list[str]] = []
    module = SimpleNamespace(run=lambda words, out: given.append(words))
    monkeypatch.setattr(cli, "importlib", SimpleNamespace(import_module=lambda name: module))
    assert call(name, "KFP_HOST=http://host") == (0, "")
    assert given == [["KFP_HOST=http://host"]]


def test_every_name_of_a_command_is_known():
    for name, command in cli.main.commands.items():
        assert isinstance(command, click.Command)
        code, text = call(name, "--help")
        assert (code, "NAME=value: the same options in make form" in text) == (0, True)
