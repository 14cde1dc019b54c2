"""Patient metadata as numbers: missing, unseen and impossible values, and what can never enter."""

import math
import tracemalloc
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.shared.image_set import METADATA, SCHEMA
from components.shared.patient_metadata import encode, encode_missing, fill_synthetic, fit, inputs, require, table_of
from components.shared.records import MAX_CATEGORIES, MetadataEncoding
from tests.helpers.errors import raises_user_error

TRAIN = pd.DataFrame(
    {
        "age": [30.0, 50.0, 70.0, np.nan],
        "sex": ["Female", "male ", "female", "unknown"],
        "localization": ["back", "Lower  Extremity", None, "back"],
    }
)
ENCODING = fit(TRAIN)


def one(age: Any = None, sex: Any = None, localization: Any = None) -> list[float]:
    """Return the code of one image."""
    return encode(ENCODING, table_of([{"age": age, "sex": sex, "localization": localization}]))[0].tolist()


def test_fit_takes_statistics_and_categories_of_the_known_values():
    assert ENCODING.age_mean == 50.0
    assert ENCODING.age_deviation == pytest.approx(math.sqrt(800 / 3))
    assert ENCODING.sex == ["female", "male"]
    assert ENCODING.localization == ["back", "lower extremity"]


def test_encode_standardises_age_and_marks_one_category_each():
    names = ["age", "age missing", "sex: female", "sex: male", "sex missing"]
    names += ["localization: back", "localization: lower extremity", "localization missing"]
    assert inputs(ENCODING) == names
    row = one(70, "MALE", "lower extremity")
    assert row == pytest.approx([20 / math.sqrt(800 / 3), 0, 0, 1, 0, 0, 1, 0])
    assert encode(ENCODING, TRAIN).dtype == np.float32


@pytest.mark.parametrize("age", [None, np.nan, float("inf"), -float("inf"), 1e9, -1, "old", "", 131])
def test_encode_takes_an_impossible_age_as_missing(age: Any):
    assert one(age)[:2] == [0, 1]


@pytest.mark.parametrize("text", [None, "", "  ", "unknown", "N/A", "nan", "other", "=cmd()", "x" * 10_000, "\ud800"])
def test_encode_takes_a_missing_or_unseen_category_as_missing(text: Any):
    assert one(50, text, text) == [0, 0, 0, 0, 1, 0, 0, 1]


def test_encode_needs_memory_for_little_more_than_its_result():
    """A list of Python objects for each number would need 8 bytes instead of 4, and a float64 table as much again."""
    sites = [f"site {number}" for number in range(30)]
    encoding = ENCODING.model_copy(update={"localization": sites})
    table = table_of([{"age": 40, "sex": "male", "localization": site} for site in sites] * 1000)
    tracemalloc.start()
    codes = encode(encoding, table)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(codes[:30, 5:35], np.eye(30))
    assert peak < 3 * codes.nbytes


def test_encode_missing_is_the_code_of_an_image_without_metadata():
    assert encode_missing(ENCODING, 2).tolist() == [[0, 1, 0, 0, 1, 0, 0, 1]] * 2
    assert encode_missing(ENCODING, 0).shape == (0, 8)


def test_fit_of_one_age_and_many_categories_is_bounded():
    names = [f"site {n:03}" for n in range(200)] + ["site 150"] * 3
    encoding = fit(pd.DataFrame({"age": 40.0, "sex": None, "localization": names}))
    assert (encoding.age_mean, encoding.age_deviation, encoding.sex) == (40.0, 1.0, [])
    assert len(encoding.localization) == MAX_CATEGORIES
    assert "site 150" in encoding.localization
    assert encoding.localization == sorted(encoding.localization)


@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.floats(), st.integers(), st.text()),
            st.one_of(st.none(), st.text()),
            st.one_of(st.none(), st.text()),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_encode_of_any_values_is_finite_and_has_one_mark_per_column(rows: list[tuple[Any, ...]]):
    codes = encode(ENCODING, table_of([dict(zip(METADATA, row, strict=True)) for row in rows]))
    assert codes.shape == (len(rows), 8)
    assert np.isfinite(codes).all()
    assert (codes[:, 2:5].sum(1) == 1).all()
    assert (codes[:, 5:].sum(1) == 1).all()
    assert np.abs(codes[:, 0]).max() <= 130


@pytest.mark.parametrize(
    "values", [{}, {"age": 1e9, "sex": "unknown", "localization": ""}, {"age": np.nan, "sex": None}]
)
def test_require_without_any_known_value_fails(values: dict[str, Any]):
    for refuse in (require, fit):
        with raises_user_error("metadata.no_patients"):
            refuse(table_of([values, values]))


def test_require_accepts_one_column():
    require(table_of([{}, {"sex": "male"}]))


def test_dx_type_is_no_input():
    assert set(METADATA) == {"age", "sex", "localization"} <= set(SCHEMA.names)
    encoding = fit(TRAIN.assign(dx_type="histo"))
    assert encoding == ENCODING
    assert not any("histo" in name or "dx" in name for name in inputs(encoding))
    assert (
        encode(encoding, TRAIN.assign(dx_type=["histo", "follow_up"] * 2)).tolist() == encode(ENCODING, TRAIN).tolist()
    )
    assert set(MetadataEncoding.model_fields) == {"age_mean", "age_deviation", "sex", "localization"}


def test_fill_synthetic_gives_each_class_the_metadata_of_its_real_images_evenly():
    labels = np.array([0] * 3 + [1] * 2 + [0] * 7 + [1] * 2)
    is_real = np.arange(14) < 5
    ages = [10.0, 20.0, 30.0, 70.0, 80.0] + [np.nan] * 9
    table = pd.DataFrame({"age": ages, "sex": None, "localization": None})
    filled = fill_synthetic(table, labels, is_real, 7)
    assert filled["age"][:5].tolist() == ages[:5]
    assert sorted(np.unique(filled["age"][5:12], return_counts=True)[1]) == [2, 2, 3]
    assert sorted(filled["age"][12:]) == [70, 80]
    again, other = (fill_synthetic(table, labels, is_real, seed)["age"].tolist() for seed in (7, 8))
    assert filled["age"].tolist() == again
    assert again != other
