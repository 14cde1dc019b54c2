"""Find, read and validate the metadata table before any image is opened."""

import csv
import re
from pathlib import Path

import numpy as np
import pandas as pd

from components.prepare_data import scan
from components.shared.errors import UserError

REQUIRED = ("lesion_id", "image_id", "dx")
OPTIONAL = ("dx_type", "age", "sex", "localization")

# Class names become file names, pipeline tasks and table cells.
_CLASS_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,30}")
MAX_CLASSES = 100
MAX_ID_CHARACTERS = 200
"""Characters of an id: file names cannot be much longer, and lists of images stay readable."""

FORMULA_STARTS = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
"""Beginnings of a cell that spreadsheets take for a formula, which can send data away; `splits.csv` contains the ids.

They are refused: an escaped id would no longer match the metadata, the file name, or `data_split` of another run.
"""


def _join_some(values: "pd.Series | list[str]") -> str:
    """Join the first few values for a message."""
    names = [str(value)[:80] for value in list(values)[:3]]
    more = len(values) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")


def find(folder: Path) -> Path:
    """Return the metadata file below a folder: `HAM10000_metadata`, or the only CSV with `metadata` in its name.

    Raises:
        UserError: there is no such file, or more than one.
    """
    files = scan.scan(folder).files
    exact = [p for p in files if p.name in ("HAM10000_metadata.csv", "HAM10000_metadata")]
    candidates = exact or [p for p in files if p.suffix.lower() == ".csv" and "metadata" in p.name.lower()]
    if not candidates:
        raise UserError(
            f"{folder} has no metadata file",
            f"add HAM10000_metadata.csv with the columns {', '.join(REQUIRED + OPTIONAL)}",
            "metadata.missing",
            path=str(folder),
        )
    if len(candidates) > 1:
        names = _join_some([str(p.relative_to(folder)) for p in candidates])
        raise UserError(
            f"{folder} has several metadata files ({names})",
            "keep only one of them",
            "metadata.several",
            path=str(folder),
        )
    return candidates[0]


def csv_rows(path: Path) -> tuple[list[str], list[list[str]], list[int]]:
    """Return the header, the rows and the last line number of each row; skip blank rows.

    pandas is not used because it treats a row with too many fields as one with an index, and shifts the columns.

    Raises:
        UserError: the file is not UTF-8 or not CSV, or a row is longer or shorter than the header.
    """
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True, skipinitialspace=True)
            for row in reader:
                fields = [field.strip() for field in row]
                if not any(fields):
                    continue
                if rows and len(fields) != len(rows[0]):
                    raise UserError(
                        f"{path.name} has {len(fields)} fields in line {reader.line_num}, {len(rows[0])} in its header",
                        "fix that line, or export the file again, separated by commas",
                        "metadata.invalid_csv",
                        line=reader.line_num,
                    )
                rows.append(fields)
                lines.append(reader.line_num)
    except UnicodeDecodeError as error:
        raise UserError(f"{path.name} is not UTF-8 text", "save it as CSV in UTF-8", "metadata.not_utf8") from error
    except csv.Error as error:
        raise UserError(
            f"{path.name} is not valid CSV ({error}, line {reader.line_num})",
            "fix the line or export the file again",
            "metadata.invalid_csv",
            line=reader.line_num,
        ) from error
    if not rows:
        raise UserError(
            f"{path.name} is empty", f"provide a CSV with the columns {', '.join(REQUIRED)}", "metadata.empty"
        )
    return rows[0], rows[1:], lines[1:]


def read(folder: Path, min_classes: int = 2) -> pd.DataFrame:
    """Read and validate the metadata.

    Args:
        folder: contains the metadata file, at any depth.
        min_classes: minimum number of different values of dx.

    Returns:
        One row per image, sorted by image id: image_id, lesion_id and dx (non-empty strings), dx_type, sex and
        localization (strings or null), age (float, years, or null).

    Raises:
        UserError: the file or a row is invalid; the message names the file and the lines.
    """
    path = find(folder)
    name = path.name
    header, rows, lines = csv_rows(path)
    missing = [column for column in REQUIRED if column not in header]
    if missing:
        raise UserError(
            f"{name} lacks the columns {', '.join(missing)} (it has {_join_some(header)})",
            "add them, separated by commas, with these names",
            "metadata.missing_column",
            columns=list(missing),
        )
    twice = sorted({c for c in REQUIRED + OPTIONAL if header.count(c) > 1})
    if twice:
        raise UserError(
            f"{name} has the column {twice[0]} more than once",
            "keep only one of them",
            "metadata.repeated_column",
            column=twice[0],
        )
    if not rows:
        raise UserError(f"{name} has no rows", "add one row per image", "metadata.no_rows")

    raw = pd.DataFrame(rows, columns=pd.Index(header), dtype=str)
    table = raw[list(REQUIRED)].copy()
    for column in OPTIONAL:
        table[column] = raw[column].replace("", None) if column in raw else None
    age = pd.to_numeric(table["age"], errors="coerce").astype(float)
    table["age"] = age.where(np.isfinite(age))  # `inf` is missing as well

    for column in REQUIRED:
        empty = np.flatnonzero(table[column] == "")
        if len(empty):
            where = _join_some([str(lines[row]) for row in empty])
            raise UserError(
                f"{name} has no {column} in line {where}",
                "complete or remove these rows",
                "metadata.missing_value",
                column=column,
            )
        odd = np.flatnonzero([not value.isprintable() or len(value) > MAX_ID_CHARACTERS for value in table[column]])
        if len(odd):
            raise UserError(
                f"{name} has an invalid {column} in line {lines[odd[0]]} ({_join_some([table[column].iloc[odd[0]]])})",
                f"use up to {MAX_ID_CHARACTERS} printable characters",
                "metadata.invalid_value",
                column=column,
                line=lines[odd[0]],
            )
        formulas = np.flatnonzero(table[column].str.startswith(FORMULA_STARTS))
        if len(formulas):
            raise UserError(
                f"{name} has the {column} {table[column].iloc[formulas[0]][:80]!r} in line {lines[formulas[0]]}, "
                "which spreadsheets take for a formula",
                "let it begin with a letter or digit",
                "metadata.formula",
                column=column,
                line=lines[formulas[0]],
            )
    repeated = table.loc[table["image_id"].duplicated(), "image_id"].unique()
    if len(repeated):
        raise UserError(
            f"{name} lists an image more than once ({_join_some(list(repeated))})",
            "keep one row per image",
            "metadata.repeated_image",
        )
    names = [dx for dx in table["dx"].unique() if not _CLASS_NAME.fullmatch(dx)]
    if names:
        raise UserError(
            f"{name} has an invalid class name ({_join_some([repr(dx) for dx in names])})",
            "use up to 31 letters, digits, - and _",
            "metadata.invalid_class",
            names=list(map(str, names)),
        )
    by_case = pd.Series(table["dx"].unique())
    alike = by_case[by_case.str.lower().duplicated(keep=False)]
    if len(alike):
        raise UserError(
            f"{name} spells a class in two ways ({_join_some(sorted(alike))})",
            "use one spelling",
            "metadata.class_spelling",
            names=sorted(alike),
        )
    of_lesion = table.groupby("lesion_id")["dx"].nunique()
    torn = of_lesion.index[of_lesion > 1]
    if len(torn):
        raise UserError(
            f"{name} assigns two classes to one lesion ({_join_some(list(torn))})",
            "correct dx, or give the lesions different ids",
            "metadata.lesion_with_two_classes",
        )
    classes = table["dx"].nunique()
    if classes < min_classes:
        raise UserError(
            f"{name} has only the class {table['dx'].iloc[0]}", "add images of another class", "metadata.one_class"
        )
    if classes > MAX_CLASSES:
        raise UserError(
            f"{name} has {classes} different values of dx",
            f"use at most {MAX_CLASSES} classes",
            "metadata.too_many_classes",
            classes=int(classes),
        )
    return table.sort_values("image_id", ignore_index=True)
