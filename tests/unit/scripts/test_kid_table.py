import json
from pathlib import Path

import pytest

from scripts import kid_table
from tests.helpers.errors import raises_user_error
from tests.unit.shared.test_records import OF_CLASS, SHARED, TRAINED


def write_record(path: Path, record: dict, *values: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    curve = {"kimg": [1.0 * number for number in range(1, len(values) + 1)], "value": list(values)}
    path.write_text(json.dumps(record | ({"kid": record["kid"] | curve} if values else {})))


def test_table_has_the_curve_of_each_gan(tmp_path: Path) -> None:
    models = tmp_path / "run" / "models"
    write_record(models / "shared.json", SHARED, 0.8, 0.2, 0.3, 0.1, 0.16)
    write_record(models / "gan-df.json", TRAINED, 0.5, -0.1, 0.2)
    write_record(models / "gan-nv.json", OF_CLASS | {"dx": "nv", "status": "failed", "failed": "diverged"})
    assert list(kid_table.table_of([tmp_path / "run"]))[2:] == [
        "| run | shared | 1 | 5 | 0.800 | 0.100 | 0.160 | 1.60 | 0.0 |",
        "| run | df | 1 | 3 | 0.500 | −0.100 | 0.200 |  | 0.0 |",
        "",
    ]


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0.3], None), ([0.4, 0.2, 0.1], 0.5), ([0.2, 0.5, 0.1, 0.2], 2.5), ([0.2, 0.0, 0.1], None)],
)
def test_largest_rise_is_relative_to_the_lowest_value_before(values: list[float], expected: float | None) -> None:
    assert kid_table.largest_rise(values) == expected


def test_table_refuses_a_run_without_gans(tmp_path: Path) -> None:
    with raises_user_error("kid_table.no_gans"):
        list(kid_table.table_of([tmp_path]))
    with raises_user_error("kid_table.no_run"):
        kid_table.main([])
