"""Examples in docstrings return what they show."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for folder in ("components", "counterweight", "benchmarks", "scripts")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]
NEED_MORE = {
    "components.prepare_data.layouts.read": "a data set",
    "components.shared.errors.UserError": "a place that catches it",
    "components.shared.files.atomic_write": "a folder",
    "components.shared.log.Progress": "90 seconds",
    "components.shared.records.load_record": "a finished run",
}
"""Objects whose example does not run alone, and what it needs."""


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    tests = [it for it in doctest.DocTestFinder().find(importlib.import_module(name)) if it.examples]
    runner = doctest.DocTestRunner()
    for test in tests:
        if test.name not in NEED_MORE:
            runner.run(test)
    assert not runner.failures


def test_objects_that_need_more_have_an_example() -> None:
    for name in NEED_MORE:
        module, _, member = name.rpartition(".")
        assert ">>> " in getattr(importlib.import_module(module), member).__doc__
