"""The metadata table: found, read and checked, row by row, before any image is opened."""

import re
from pathlib import Path

import pandas as pd

from components.shared.errors import UserError

REQUIRED = ("lesion_id", "image_id", "dx")
OPTIONAL = ("dx_type", "age", "sex", "localization")

# A class names files, pipeline tasks and table cells further on: it must be plain.
_CLASS_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,30}")
MAX_CLASSES = 100


def _some(values: "pd.Series | list[str]") -> str:
    """The first few of many values, for a sentence."""
    names = [str(value) for value in list(values)[:3]]
    more = len(values) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")


def find(folder: Path) -> Path:
    """The metadata file somewhere below a folder: `HAM10000_metadata`, or else the one CSV with `metadata` in its name.

    Raises:
        UserError: there is none, or several that could be meant.
    """
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    exact = [p for p in files if p.name in ("HAM10000_metadata.csv", "HAM10000_metadata")]
    found = exact or [p for p in files if p.suffix.lower() == ".csv" and "metadata" in p.name.lower()]
    if not found:
        raise UserError(
            f"{folder} holds no metadata file; put HAM10000_metadata.csv, with the columns "
            f"{', '.join(REQUIRED + OPTIONAL)}, into it or below it."
        )
    if len(found) > 1:
        names = _some([str(p.relative_to(folder)) for p in found])
        raise UserError(f"{folder} holds several metadata files ({names}); leave only the one that is meant.")
    return found[0]


def read(folder: Path) -> pd.DataFrame:
    """The checked metadata.

    Returns:
        One row an image, sorted by image id: image_id, lesion_id and dx (non-empty strings), dx_type, sex, localization
        (strings or null), age (float, years, or null).

    Raises:
        UserError: the file or a row can't be used; the sentence names the file and the rows.
    """
    path = find(folder)
    name = path.name
    try:
        raw = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True)
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not UTF-8 text; save it as CSV in UTF-8 and run the same command again.") from error
    except pd.errors.EmptyDataError as error:
        raise UserError(f"{name} is empty; give a CSV with the columns {', '.join(REQUIRED)}.") from error
    except (pd.errors.ParserError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1][:200]
        raise UserError(f"{name} is not a proper CSV ({reason}); mend or export it again.") from error
    raw.columns = [str(column).strip() for column in raw.columns]
    missing = [column for column in REQUIRED if column not in raw]
    if missing:
        raise UserError(
            f"{name} lacks the columns {', '.join(missing)} (it has {_some(list(raw.columns))}); "
            "add them, comma-separated, with these names."
        )
    twice = sorted({c for c in REQUIRED + OPTIONAL if list(raw.columns).count(c) > 1})
    if twice:
        raise UserError(f"{name} has the column {twice[0]} more than once; leave only the one that is meant.")
    if raw.empty:
        raise UserError(f"{name} has no rows; add one row for each image.")

    table = pd.DataFrame({c: raw[c].fillna("").str.strip() for c in REQUIRED})
    for column in OPTIONAL:
        table[column] = raw[column].fillna("").str.strip().replace("", None) if column in raw else None
    table["age"] = pd.to_numeric(table["age"], errors="coerce")

    for column in REQUIRED:
        empty = table.index[table[column] == ""]
        if len(empty):
            lines = _some([str(row + 2) for row in empty])
            raise UserError(f"{name} has no {column} in line {lines}; fill it in or remove these rows.")
    repeated = table.loc[table["image_id"].duplicated(), "image_id"].unique()
    if len(repeated):
        raise UserError(f"{name} names an image more than once ({_some(list(repeated))}); keep one row for each image.")
    odd = [dx for dx in table["dx"].unique() if not _CLASS_NAME.fullmatch(dx)]
    if odd:
        raise UserError(
            f"{name} has a class name that can't be used ({_some([repr(dx) for dx in odd])}); "
            "use up to 31 letters, digits, - and _."
        )
    by_case = pd.Series(table["dx"].unique())
    if by_case.str.lower().duplicated().any():
        raise UserError(f"{name} spells a class in two ways ({_some(sorted(by_case))}); use one spelling.")
    of_lesion = table.groupby("lesion_id")["dx"].nunique()
    torn = of_lesion.index[of_lesion > 1]
    if len(torn):
        raise UserError(
            f"{name} gives one lesion two classes ({_some(list(torn))}); correct dx, or give the lesions different ids."
        )
    classes = table["dx"].nunique()
    if classes < 2:
        raise UserError(f"{name} holds only the class {table['dx'].iloc[0]}; at least two classes are needed.")
    if classes > MAX_CLASSES:
        raise UserError(
            f"{name} holds {classes} different values of dx; at most {MAX_CLASSES} classes can be told apart."
        )
    return table.sort_values("image_id", ignore_index=True)
