"""Check ids and class names before any image is opened, and give class names their safe form."""

import re

import numpy as np
import pandas as pd

from components.prepare_data.layouts.dataset import Raw, number_paths
from components.prepare_data.layouts.inventory import Inventory, base_name, strip_suffixes
from components.prepare_data.layouts.tables import join_some
from components.prepare_data.texts import is_unique, iterate, map_different
from components.shared.class_names import safe_class_name
from components.shared.errors import UserError

MISSING_CLASSES = frozenset(("", "na", "nan", "n/a", "null"))
"""Values, in lower case, that stand for a missing class; `none` and `unknown` may be classes."""
_SIGNS = "#<>()[]{}?!.*'\"`/ "
"""What programs write around such a value, or instead of it: `#N/A`, `<NA>`, `?`."""

_DECIMALS = re.compile(r"(\.0*|,0{1,2})$")
_ROUNDED = re.compile(r"-?\d([.,]\d+)?E\+\d+")
MAX_CLASSES = 100
MAX_ID_CHARACTERS = 200
"""Characters of an id: file names cannot be much longer, and lists of images stay readable."""

FORMULA_STARTS = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
"""Beginnings of a cell that spreadsheets take for a formula, which can send data away; `splits.csv` contains the ids.

They are refused: an escaped id would no longer match the metadata, the file name, or `data_split` of another run.
"""


def _place(raw: Raw, row: np.integer) -> str:
    place = raw.places[int(row)]
    return f"line {place}" if isinstance(place, int) else place[:80]


def check_values(raw: Raw, column: str, table: pd.DataFrame) -> None:
    """Check that each id or class of a column is complete, printable and no formula.

    Raises:
        UserError: a value is not; the message names the place.
    """
    values = table[column]
    empty = np.flatnonzero(
        values.str.strip(_SIGNS).str.lower().isin(MISSING_CLASSES) if column == "dx" else values == ""
    )
    if len(empty) and column in ("image_id", "dx"):
        where = join_some([str(raw.places[int(row)]) for row in empty])
        line = "line " * isinstance(raw.places[int(empty[0])], int)
        value = values.iloc[empty[0]]
        shown = f" ({value!r})" if value else ""
        raise UserError(
            f"{raw.name} has no {raw.columns.get(column, column)}{shown} in {line}{where}",
            "complete or remove these rows",
            "metadata.missing_value",
            column=column,
        )
    odd = np.flatnonzero([not value.isprintable() or len(value) > MAX_ID_CHARACTERS for value in iterate(values)])
    if len(odd):
        raise UserError(
            f"{raw.name} has an invalid {column} in {_place(raw, odd[0])} ({join_some([values.iloc[odd[0]]])})",
            f"use up to {MAX_ID_CHARACTERS} printable characters",
            "metadata.invalid_value",
            column=column,
            line=raw.places[int(odd[0])],
        )
    formulas = np.flatnonzero(values.str.startswith(FORMULA_STARTS))
    if len(formulas):
        raise UserError(
            f"{raw.name} has the {column} {values.iloc[formulas[0]][:80]!r} in {_place(raw, formulas[0])}, "
            "which spreadsheets take for a formula",
            "let it begin with a letter or digit",
            "metadata.formula",
            column=column,
            line=raw.places[int(formulas[0])],
        )


def refuse_rounded_ids(raw: Raw, column: str, table: pd.DataFrame) -> None:
    """Raise if a spreadsheet has rounded ids: `202301000123` is `2.02301E+11` then, as are others.

    Raises:
        UserError: `metadata.rounded_ids`.
    """
    values = table[column]
    candidates = np.flatnonzero(values.str.contains("E+", regex=False))
    rounded = [row for row in candidates if _ROUNDED.fullmatch(values.iloc[row])]
    if rounded:
        raise UserError(
            f"{raw.name} has the {column} {values.iloc[rounded[0]][:80]!r} in {_place(raw, rounded[0])}: a spreadsheet "
            "has rounded it, and different ids may have become equal",
            "export the ids as text",
            "metadata.rounded_ids",
            column=column,
            line=raw.places[int(rounded[0])],
        )


def refuse_repeated_images(raw: Raw, inventory: Inventory, table: pd.DataFrame) -> None:
    """Raise if two rows have the same image.

    The hint names paths if the folder has several images of the name.

    Raises:
        UserError: `metadata.repeated_image`.
    """
    if not is_unique(table["image_id"]):
        repeated = table.loc[table["image_id"].duplicated(), "image_id"].unique()
        name = base_name(repeated[0])
        paths = [inventory.name(path) for path in inventory.images if strip_suffixes(base_name(path)) == name]
        raise UserError(
            f"{raw.name} lists an image more than once ({join_some(list(repeated))})",
            "keep one row per image"
            + f", or use paths as ids if several images are meant ({join_some(paths)})" * (len(paths) > 1),
            "metadata.repeated_image",
        )


def refuse_shared_files(raw: Raw, inventory: Inventory, table: pd.DataFrame) -> None:
    """Raise if one file is the image of two rows, such as of the ids `a` and `A`.

    Raises:
        UserError: `metadata.shared_file`.
    """
    files = pd.Series(number_paths(raw.files))
    shared = files[(files >= 0) & files.duplicated()]
    if len(shared):
        rows = np.flatnonzero(files == shared.iloc[0])[:2]
        file = str(raw.files[int(rows[0])])
        images = [name[:80] for name in table["image_id"].iloc[rows]]
        raise UserError(
            f"{raw.name} lists {images[0]} and {images[1]}, but only the file {inventory.name(file)} could be the "
            "image of both",
            "add the missing image, or remove one of the rows",
            "metadata.shared_file",
            images=images,
            file=inventory.name(file),
        )


def strip_decimals(dx: pd.Series, notes: list[str]) -> pd.Series:
    """Return classes that are whole numbers, as some programs write `1.0`, without decimals.

    Args:
        dx: (N,) strings.
        notes: sentences for log and pages; extended in place.
    """
    names = {name: _DECIMALS.sub("", name) for name in dx.unique()}
    if names == {name: name for name in names} or not all(name.isdecimal() for name in names.values()):
        return dx
    notes.append("classes are whole numbers: 1.0 is read as 1")
    return dx.map(names)


def name_classes(raw: Raw, dx: pd.Series) -> tuple[pd.Series, dict[str, str]]:
    """Return the safe class of each image, and safe name → name in the data for those that differ.

    Raises:
        UserError: a name has no safe form, or two classes would have the same one.
    """
    names = {name: safe_class_name(name) for name in dict.fromkeys(dx)}
    invalid = [name for name, safe in names.items() if safe is None]
    if invalid:
        raise UserError(
            f"{raw.name} has an invalid class name ({join_some([repr(name) for name in invalid])})",
            "use Latin letters, digits, - and _, at most 31",
            "metadata.invalid_class",
            names=invalid,
        )
    safe_names = {name: str(safe) for name, safe in names.items()}
    folded = pd.Series({name: safe.lower() for name, safe in safe_names.items()})
    alike = sorted(str(name) for name in folded.index[folded.duplicated(keep=False)])
    if alike:
        raise UserError(
            f"{raw.name} spells a class in two ways ({join_some(alike)})",
            "use one spelling, or names that differ in more than signs and the first 31 characters",
            "metadata.class_spelling",
            names=alike,
        )
    return map_different(dx, safe_names.__getitem__), {safe: name for name, safe in safe_names.items() if safe != name}


def check_number_of_classes(raw: Raw, inventory: Inventory, dx: pd.Series, min_classes: int) -> None:
    """Raise if there are too few or too many classes.

    Args:
        raw: what was read.
        inventory: the files of the folder.
        dx: (N,) the class of each image.
        min_classes: minimum number of classes.

    Raises:
        UserError: `metadata.one_class` or `metadata.too_many_classes`.
    """
    classes = dx.nunique()
    if classes < min_classes:
        packed = [inventory.name(path) for path in inventory.archives]
        raise UserError(
            f"{raw.name} has only the class {dx.iloc[0]}"
            + f"; packed files are not read ({join_some(packed)})" * bool(packed),
            "add images of another class" + f", or unpack {join_some(packed, 1)} if it holds one" * bool(packed),
            "metadata.one_class",
            archives=packed[:10],
        )
    if classes > MAX_CLASSES:
        raise UserError(
            f"{raw.name} has {classes} different values of {raw.columns.get('dx', 'dx')}",
            f"use at most {MAX_CLASSES} classes, or "
            + (
                "name the column of the class, as in data_columns=dx:COLUMN"
                if raw.metadata
                else "add a CSV with the columns image_id and dx if the folders are patients or images"
            ),
            "metadata.too_many_classes",
            classes=int(classes),
        )
