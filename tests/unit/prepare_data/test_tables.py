"""Metadata tables: read unchanged, or rejected with an error that names the problem and the line."""

import contextlib
import csv
import os

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.prepare_data import layouts
from components.prepare_data.layouts.checks import FORMULA_STARTS
from components.prepare_data.layouts.tables import read_header
from components.shared.errors import UserError
from tests.helpers.errors import raises_user_error

HEADER = "lesion_id,image_id,dx,dx_type,age,sex,localization\n"
ROWS = "L1,I1,nv,histo,45.0,male,back\nL2,I2,mel,consensus,,unknown,\n"


def read(folder):
    """Return the table of a folder."""
    return layouts.read(folder, scratch=folder).table


def find(folder):
    """Return the path of the metadata file below a folder."""
    (file,) = layouts.read(folder, scratch=folder).source.metadata
    return folder / file.name


@pytest.fixture
def write(tmp_path):
    def write(content, name="HAM10000_metadata.csv"):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path

    return write


def read_code(folder):
    """Return the code of the error that reading the metadata raises."""
    with pytest.raises(UserError) as caught:
        read(folder)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600
    assert caught.value.hint
    return caught.value.code


def test_read_valid_file_returns_its_rows(write):
    table = read(write(HEADER + "L2,I2,mel,consensus,,unknown,\nL1,I1,nv,histo,45.0,male,back\n"))
    assert list(table["image_id"]) == ["I1", "I2"]
    assert list(table["dx"]) == ["nv", "mel"]
    assert table["age"].dtype == float
    assert table["age"].iloc[0] == 45
    assert np.isnan(table["age"].iloc[1])
    assert table["localization"].iloc[0] == "back"
    assert pd.isna(table["localization"].iloc[1])
    assert list(table.index) == [0, 1]


@pytest.mark.parametrize(
    "content",
    [
        "\ufeff" + HEADER + ROWS,
        (HEADER + ROWS).replace("\n", "\r\n"),
        (HEADER + ROWS).replace("\n", "\r"),
        (HEADER + ROWS).rstrip("\n"),
        (HEADER + ROWS).replace(",", ", "),
        (HEADER + ROWS).replace(",", " ,"),
        (HEADER + "\n\n" + ROWS + "\n,,,,,,\n   \n"),
        '"' + (HEADER + ROWS).replace(",", '","').replace("\n", '"\n"')[:-1],
        "extra," + HEADER + "x," + ROWS.replace("\nL2", "\ny,L2"),
        (HEADER + ROWS).replace(",", ";"),
        (HEADER + ROWS).replace(",", "\t"),
        '"' + (HEADER + ROWS).replace(",", '"\t"').replace("\n", '"\n"')[:-1],
        (HEADER + ROWS).replace(",", "|"),
        "sep=;\n" + (HEADER + ROWS).replace(",", ";"),
        "SEP=\t\r\n" + (HEADER + ROWS).replace(",", "\t"),
        (HEADER + ROWS).encode("utf-16"),
        (HEADER + ROWS).encode("utf-16-le"),
        HEADER.upper() + ROWS,
        HEADER.replace("_", " ").title() + ROWS,
        HEADER.replace("_", " ").title().replace(" ", "") + ROWS,
        HEADER.replace("image_id", "imageID").replace("lesion_id", "LesionID").replace("dx_type", "dxType") + ROWS,
        HEADER.replace("image_id", "imageid").replace("_", ".") + ROWS,
    ],
    ids=[
        "BOM",
        "CRLF",
        "CR",
        "no last line end",
        "space after",
        "space before",
        "blank rows",
        "quotes",
        "extra column",
        "semicolons",
        "tabs",
        "quoted tabs",
        "bars",
        "separator line",
        "separator line, tab",
        "UTF-16",
        "UTF-16 without BOM",
        "capitals",
        "words",
        "joined words",
        "camel case",
        "points",
    ],
)
def test_read_other_csv_dialects_returns_the_same_rows(write, content):
    pd.testing.assert_frame_equal(read(write(content)), read(write(HEADER + ROWS)))


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_read_header_with_a_line_break_in_a_name_is_complete(tmp_path, write, separator):
    header = '"image\nid","the first,\r\nthe second",dx,patient_id,lesion_id\n'
    folder = write((header + "I1,,nv,P1,L1\nI2,,mel,P2,L2\n").replace(",", separator))
    names = ["image id", f"the first{separator} the second".replace("\t", ""), "dx", "patient_id", "lesion_id"]
    assert read_header(folder / "HAM10000_metadata.csv") == names
    table = read(folder)
    assert list(table["patient_id"]) == ["P1", "P2"]
    assert list(table["lesion_id"]) == ["L1", "L2"]


def test_read_requires_only_three_columns(write):
    table = read(write("image_id,dx,lesion_id\nI1,nv,L1\nI2,mel,L2\n"))
    assert list(table["lesion_id"]) == ["L1", "L2"]
    assert table[["dx_type", "age", "sex", "localization"]].isna().all(axis=None)
    assert table["age"].dtype == float


def test_read_invalid_age_is_missing(write):
    rows = "".join(
        f"L{i},I{i},{('nv', 'mel')[i % 2]},,{age},,\n" for i, age in enumerate(["x", "inf", "1e999", "7", ""])
    )
    assert read(write(HEADER + rows))["age"].dropna().tolist() == [7]


def test_read_keeps_strings_that_pandas_treats_as_missing(write):
    table = read(write("lesion_id,image_id,dx\nL1,null,nv\nL2,NaN,None\n"))
    assert set(table["image_id"]) == {"null", "NaN"}
    assert set(table["dx"]) == {"nv", "None"}


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("", "metadata.empty"),
        ("\n\n", "metadata.empty"),
        (HEADER, "metadata.no_rows"),
        ("lesion_id,number,findings\nL,I,nv\n", "metadata.missing_column"),
        ("# exported in 2024\nimage_id,dx\nI1,nv\n", "metadata.no_header"),
        ("lesion_id,image_id,dx,dx\nL1,I1,nv,mel\n", "metadata.repeated_column"),
        (HEADER + "L1,I1,nv\n", "metadata.invalid_csv"),
        # pandas would treat the first column of these as an index and shift the others.
        (HEADER + ROWS.replace("\n", ",\n"), "metadata.invalid_csv"),
        (HEADER + ROWS + "L3,I3,nv,histo,45,male,back,more\n", "metadata.invalid_csv"),
        (HEADER + '"L\n1",I1,nv,,,,\n\nL2,I2,mel\n', "metadata.invalid_csv"),
        (HEADER + 'L1,"I1,nv,histo,45.0,male,back\nL2,I2,mel,,,,\n', "metadata.invalid_csv"),
        (HEADER + 'L1,"I1"x,nv,,,,\n', "metadata.invalid_csv"),
        (HEADER + "L1,,nv,,,,\nL2,,nv,,,,\nL3,,nv,,,,\nL4,,nv,,,,\n", "metadata.missing_value"),
        (HEADER + "L1,I1, ,,,,\n", "metadata.missing_value"),
        (HEADER + ROWS + "L3,I1,nv,,,,\n", "metadata.repeated_image"),
        (HEADER + ROWS + "L3,I3,NV,,,,\n", "metadata.class_spelling"),
        (HEADER + ROWS + "L3,I3,../x,,,,\n", "metadata.invalid_class"),
        (HEADER + ROWS + "L3,I3,<b>,,,,\n", "metadata.invalid_class"),
        (HEADER + ROWS + "L3,I3,黒色腫,,,,\n", "metadata.invalid_class"),
        (HEADER + ROWS + "L3,I3,a b,,,,\nL4,I4,A/B,,,,\n", "metadata.class_spelling"),
        (HEADER + "L1,I1,nv,,,,\n", "metadata.one_class"),
        (HEADER + "".join(f"L{i},I{i},c{i},,,,\n" for i in range(101)), "metadata.too_many_classes"),
        (HEADER + ROWS.replace("I2", '"I\n2"'), "metadata.invalid_value"),
        (HEADER + ROWS.replace("I2", "I\0"), "metadata.invalid_value"),
        (HEADER + ROWS.replace("I2", "\u202eI"), "metadata.invalid_value"),
        (HEADER + ROWS.replace("L2", "x" * 201), "metadata.invalid_value"),
        (HEADER + ROWS.replace("L2", "x" * 10_000_000), "metadata.invalid_csv"),
        ((HEADER + ROWS.replace("back", "Rücken")).encode("latin-1"), "metadata.not_utf8"),
        (b"PK\x03\x04" + bytes(range(256)), "metadata.not_utf8"),
        (b"\0" * 1000, "metadata.no_header"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) and "\n" not in value else "",
)
def test_read_invalid_file_raises(write, content, code):
    assert read_code(write(content)) == code


def test_read_paths_and_markup_as_plain_text(write):
    rows = "../../etc/passwd,/etc/passwd,nv,,,<b>,\nL2,x=1+1,mel,,,,\n"
    assert set(read(write(HEADER + rows))["image_id"]) == {"/etc/passwd", "x=1+1"}


@pytest.mark.parametrize("column", ["lesion_id", "image_id"])
@pytest.mark.parametrize("value", ['=HYPERLINK("http://a")', "+1", "-x", "@SUM(A1)", "＝1", " =1"])
def test_read_id_that_is_a_formula_raises(write, column, value):
    quoted = '"' + value.replace('"', '""') + '"'
    text = HEADER + ROWS.replace({"lesion_id": "L2", "image_id": "I2"}[column], quoted)
    with raises_user_error("metadata.formula") as caught:
        read(write(text))
    assert caught.value.fields == {"column": column, "line": 3}


@pytest.mark.parametrize(("value", "code"), [("=1+1", "metadata.formula"), ("P\x1b[31m", "metadata.invalid_value")])
def test_read_patient_id_which_the_split_file_lists_is_checked_as_other_ids(write, value, code):
    columns = ("patient_id", "P1", value)
    lines = [f"{line},{cell}" for line, cell in zip((HEADER + ROWS).splitlines(), columns, strict=True)]
    with raises_user_error(code) as caught:
        read(write("\n".join(lines) + "\n"))
    assert caught.value.fields == {"column": "patient_id", "line": 3}


@pytest.mark.parametrize("name", ["HAM10000_metadata", "HAM10000_metadata.tab", "my_Metadata.CSV", "a/b/c/rows.csv"])
def test_read_finds_the_table_by_its_content_at_any_depth(tmp_path, write, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    write("pixel0000,pixel0001,label\n1,2,0\n", "hmnist_8_8_L.csv")
    assert find(write(HEADER + ROWS, name)) == tmp_path / name


def test_read_without_or_with_several_tables_raises(tmp_path, write):
    assert read_code(tmp_path) == "metadata.missing"
    write(HEADER + ROWS, "HAM10000_metadata.csv")
    (tmp_path / "copy").mkdir()
    write(HEADER + ROWS, "copy/HAM10000_metadata.csv")
    assert find(tmp_path) == tmp_path / "HAM10000_metadata.csv"  # equal files are one
    write(HEADER + ROWS.replace("mel", "bcc"), "HAM10000_metadata_clean.csv")
    with raises_user_error("metadata.several") as caught:
        read(tmp_path)
    assert caught.value.fields["files"] == ["HAM10000_metadata.csv", "HAM10000_metadata_clean.csv"]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("https://example.org/d/1-2eQYrSFc4/view?usp=sharing", "metadata.link"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n", "metadata.pointer"),
        ("<!DOCTYPE html>\n<html><body>Sign in</body></html>", "metadata.web_page"),
    ],
)
def test_read_a_file_that_stands_in_for_the_table_raises(write, content, code):
    assert read_code(write(content)) == code


def test_find_skips_folders_pipes_and_hidden_files(tmp_path, write):
    (tmp_path / "metadata.csv").mkdir()
    os.mkfifo(tmp_path / "pipe_metadata.csv")
    (tmp_path / "loop_metadata.csv").symlink_to("loop_metadata.csv")
    (tmp_path / "zero_metadata.csv").symlink_to("/dev/zero")
    (tmp_path / "__MACOSX").mkdir()
    write("\0\5", "__MACOSX/HAM10000_metadata.csv")
    write("\0\5", "._HAM10000_metadata.csv")
    assert read_code(tmp_path) == "metadata.missing"
    assert find(write(HEADER + ROWS)) == tmp_path / "HAM10000_metadata.csv"


names = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=8).filter(
    lambda name: not name.startswith(FORMULA_STARTS)
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(names, names, names), min_size=2, max_size=12, unique_by=lambda row: row[1]))
def test_read_any_printable_id_returns_it_unchanged(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("any")
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["lesion_id", "image_id", "dx", "localization"])
        writer.writerows([f"L{i}", name, ("nv", "mel")[i % 2], site] for i, (_, name, site) in enumerate(rows))
    table = read(folder)
    assert sorted(zip(table["image_id"], table["localization"], strict=True)) == sorted((n, s) for _, n, s in rows)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda s: (HEADER + s).encode("utf-8", "replace")))
def test_read_any_bytes_returns_a_table_or_raises(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("any")
    (folder / "metadata.csv").write_bytes(content)
    with contextlib.suppress(UserError):
        assert read(folder)["image_id"].is_unique
