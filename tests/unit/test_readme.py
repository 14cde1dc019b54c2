"""The README says what the pipeline has."""

import warnings
from pathlib import Path

from counterweight.parameters import default_of

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_table_of_parameters_is_the_pipelines():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pipeline import counterweight
    entries = counterweight.pipeline_spec.root.input_definitions.parameters
    rows = {f"| `{name}` | `{default_of(entry)}` | {entry.description} |" for name, entry in entries.items()}
    table = README.split("## Parameters")[1].split("## ")[0].splitlines()
    assert {line for line in table if line.startswith("| `")} == rows


def test_every_make_target_it_names_exists():
    makefile = (Path(__file__).resolve().parents[2] / "Makefile").read_text(encoding="utf-8")
    for target in ("run", "test", "compile", "clean", "check", "bench"):
        assert f"make {target}" in README
        assert f"\n{target}:" in makefile
