"""The sample results of the tests have the form of `metrics.json`."""

import json

import pytest

from components.shared.records import Results
from tests.helpers.example_results import example, example_subgroups


@pytest.mark.parametrize(("seeds", "external"), [(1, False), (2, True)])
def test_example_is_a_valid_record(seeds: int, external: bool) -> None:
    record = Results.model_validate_json(json.dumps(example(seeds, external) | {"subgroups": example_subgroups()}))
    assert (record.external is not None) == external
