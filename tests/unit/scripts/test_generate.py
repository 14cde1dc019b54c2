from pathlib import Path

import pytest

from components.shared.records import Record, Sha256, TrainedGan
from scripts import generate
from scripts.error_reference import collect_errors
from scripts.record_reference import models, section, type_of

SOURCE = """
import errno

CHECK = "check the name"
KINDS, MOST = ("a", "b"), 1_000

def missing(option, hint):
    return UserError(f"{option} is missing", hint, "option.missing")

def refuse(name, place):
    if place:
        raise UserError(f"{name} is {place}", "choose another", f"{name}.place")

def run(value):
    refuse("out", value)
    refuse("in", value)
    if not value:
        raise missing("RUN", CHECK)
    if value == 1:
        raise ApiError(f"no answer from {self.host} ({', '.join(sorted(names))})", CHECK, "api.no_answer")
    if value == 2:
        raise UserError(f"{value!r} exceeds {MOST:,}", f"choose {', '.join(KINDS)} or {errno.EPERM}", "kind.unknown")
    raise UserError(
        f"{'both' if value else 'neither'} of {value}", "c" if value else "d", "api.both" if value else "api.neither"
    )

def copy(error):
    return UserError(str(error), error.hint, error.code)
"""


def test_collect_errors_returns_each_code_with_its_templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "errors_of_a_test").mkdir()
    (tmp_path / "errors_of_a_test/module.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    found = collect_errors(tmp_path / "errors_of_a_test")
    assert [(error.code, error.message, error.hint, int(error.exit_code)) for error in found] == [
        ("api.both", "both of {value}", "c", 2),
        ("api.neither", "neither of {value}", "d", 2),
        ("api.no_answer", "no answer from {host} ({names})", "check the name", 5),
        ("in.place", "in is {value}", "choose another", 2),
        ("kind.unknown", "{value} exceeds 1,000", "choose a, b or 1", 2),
        ("option.missing", "RUN is missing", "check the name", 2),
        ("out.place", "out is {value}", "choose another", 2),
    ]


def test_collect_errors_has_those_of_the_operating_system_with_their_texts():
    errors = [error for error in collect_errors(generate.ROOT / "components") if "file." in error.code]
    assert ("file.disk_full", "{path}: no space left on the disk") in [(it.code, it.message) for it in errors]
    assert not any("{code}" in it.code for it in errors)


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"anyOf": [{"type": "number", "minimum": 0}, {"type": "null"}]}, "number ≥ 0 or null"),
        ({"enum": ["a", "b"], "type": "string"}, "`a` or `b`"),
        ({"const": "a"}, "`a`"),
        ({"type": "array", "items": {"$ref": "#/$defs/Losses"}}, "list of [Losses](#losses)"),
        ({"type": "object", "propertyNames": {"maxLength": 9}, "additionalProperties": {}}, "object: string → any"),
    ],
)
def test_type_of_describes_a_schema(schema: dict, text: str):
    assert type_of(schema) == text


def test_section_has_a_row_for_each_field():
    for model in models():
        text = section(model)
        assert all(f"| `{name}`" in text for name in model.model_fields)


def test_section_describes_fields_by_the_docstring():
    class Example(Record):
        """An example,
        `example.json`.

        Attributes:
            first, second: two hashes,
                in hexadecimal.
            third: a number.
        """

        first: Sha256
        second: Sha256
        third: int = 0
        fourth: float

    assert section(Example).splitlines() == [
        "## Example",
        "",
        "An example, `example.json`.",
        "",
        "| field | type | |",
        "|---|---|---|",
        "| `first` | string `^[0-9a-f]{64}$` | two hashes, in hexadecimal. |",
        "| `second` | string `^[0-9a-f]{64}$` | two hashes, in hexadecimal. |",
        "| `third` (optional) | integer | a number. |",
        "| `fourth` | number |  |",
    ]


def test_section_describes_inherited_fields_as_their_own_class_or_the_nearest_base():
    descriptions = {line.split("`")[1]: line for line in section(TrainedGan).splitlines() if line.startswith("| `")}
    assert descriptions.keys() == TrainedGan.model_fields.keys()
    assert descriptions["dx"].endswith("| the class. |")
    assert descriptions["latent"].endswith("| length of the generator's noise vector. |")
    assert descriptions["settings"].endswith("| seed, batch size and learning rate at the start. |")


def test_compiled_pipeline_does_not_depend_on_the_code_of_the_phases():
    text = generate.compiled_pipeline()
    assert "image: counterweight/train-gan:content\n" in text
    assert text.count("image: counterweight/") == text.count(":content\n")


def test_main_fails_once_after_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    monkeypatch.setattr(generate, "FILES", {"docs/page.md": lambda: "text\n"})
    assert generate.main() is True
    assert (tmp_path / "docs/page.md").read_text() == "text\n"
    assert generate.main() is False
