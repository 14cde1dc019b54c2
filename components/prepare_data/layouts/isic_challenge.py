"""ISIC challenges of 2018 (task 3) and 2019: one column per class, with 1 for the image's, and lesions in another file.

The tables of training, validation and test of a challenge are read together; their names are the split.
"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from components.prepare_data.layouts.columns import COMMON, join_splits
from components.prepare_data.layouts.dataset import Found, ImagePaths, Raw
from components.prepare_data.layouts.inventory import Inventory, strip_suffixes
from components.prepare_data.layouts.matching import ImageIndex
from components.prepare_data.layouts.splits import split_of_path
from components.prepare_data.layouts.tables import Table, normalise, read_table
from components.prepare_data.texts import Texts
from components.shared.errors import UserError, printable
from components.shared.records import MetadataFile

NAME = "ISIC challenge"
IMAGE_COLUMNS = ("image", "image_id", "image_name", "isic_id")
CODES = frozenset(["mel", "nv", "bcc", "akiec", "ak", "bkl", "df", "vasc", "scc", "unk"])
MIN_CODES = 3
"""Classes of ISIC that a table has as columns; other tables with numbers are no ground truth."""
NO_CLASSES = frozenset(["score_weight", "validation_weight"])
"""Columns of the test table of ISIC 2019 that are no classes."""
_ONE_HOT = "one column per class"
_DOWNSAMPLED = "_downsampled"


def recognise(inventory: Inventory, named: dict[str, str]) -> list[Found]:
    """Recognise tables with a column of images and one for each class."""
    found = []
    for path, header in inventory.headers.items():
        names = [normalise(column) for column in header]
        image = next((name for name in IMAGE_COLUMNS if name in names), None)
        if image and "dx" not in named and len(CODES & set(names)) >= MIN_CODES:
            found.append(Found(NAME, (path,), {"image_id": header[names.index(image)], "dx": _ONE_HOT}))
    return join_splits(inventory, found)


def _is_set(table: Table, value: str, at: int, line: int) -> bool:
    """Return whether a value is 1 and not 0."""
    try:
        number = float(value)
    except ValueError:
        number = -1
    if number not in (0, 1):
        column = table.header[at]
        raise UserError(
            f"{table.path.name} has {value[:40]!r} as {column} in line {line}; one column per class needs 0 or 1",
            "correct the value, or remove the column if it is no class",
            "metadata.class_value",
            column=column,
            line=line,
        )
    return number == 1


def _classes(table: Table, image: str) -> Texts:
    """Return the class of each row: the column with 1.

    Raises:
        UserError: `metadata.not_one_hot`: a row has no class or several; `metadata.class_value`: a value is neither 0
            nor 1.
    """
    codes = [at for at, name in enumerate(table.header) if name and name != image and normalise(name) not in NO_CLASSES]
    classes = Texts()
    for row, line in enumerate(table.lines):
        set_ = [table.header[at] for at in codes if _is_set(table, table.columns[at][row], at, line)]
        if len(set_) != 1:
            raise UserError(
                f"{table.path.name} has {len(set_) or 'no'} classes in line {line}; one column per class needs one 1",
                "correct the line, or use a table with the class in one column",
                "metadata.not_one_hot",
                line=line,
            )
        classes.append(set_[0])
    return classes


def _further_columns(inventory: Inventory, found: Found) -> list[tuple[Path, str, dict[str, str]]]:
    """Return tables that describe the same images: file, image column, and field → column."""
    further = []
    for path, header in inventory.headers.items():
        by_name = {normalise(column): column for column in reversed(header)}
        image = next((by_name[name] for name in IMAGE_COLUMNS if name in by_name), None)
        fields = {f: by_name[n] for f, names in COMMON.items() for n in reversed(names) if n in by_name}
        if path not in found.files and image and fields:
            further.append((path, image, fields))
    return further


def _join(ids: pd.Series, values: Mapping[str, str]) -> pd.Series:
    """Return the value of each image from another table, which may lack suffixes and `_downsampled`; else empty."""
    names = ids.map(strip_suffixes)
    return names.map(values).fillna(names.str.removesuffix(_DOWNSAMPLED).map(values)).fillna("")


def _refuse_no_match(name: str, ids: pd.Series, images: list[str]) -> None:
    """Raise if another table describes none of the images, since its lesions would be lost."""
    if not _join(ids, dict.fromkeys(images, "1")).any():
        raise UserError(
            f"{name} describes none of the images of the ground truth, such as {printable(str(ids.iloc[0])[:80])}",
            "spell the images as in the ground truth, or move the file out of the data folder",
            "metadata.no_match",
            file=name,
        )


def read(inventory: Inventory, found: Found, scratch: Path) -> Raw:
    """Read the ground truth, and join lesion ids and other fields from the tables beside it."""
    parts, metadata, ignored = [], [], []
    places: list[int | str] = []
    for path in found.files:
        table = read_table(path)
        image = found.columns["image_id"]
        part = pd.DataFrame({"image_id": table.column(image).series(), "dx": _classes(table, image).series()})
        if len(found.files) > 1:
            part["split"] = split_of_path(inventory.name(path))
        parts.append(part)
        ignored += [column for column in table.header if normalise(column) in NO_CLASSES]
        places += table.lines
        metadata.append(MetadataFile(name=inventory.name(path), rows=len(part), sha256=table.sha256))
    rows, columns = pd.concat(parts, ignore_index=True), dict(found.columns)
    for path, image, fields in _further_columns(inventory, found):
        table = read_table(path)
        metadata.append(MetadataFile(name=inventory.name(path), rows=len(table), sha256=table.sha256))
        images = [strip_suffixes(value) for value in table.column(image)]
        _refuse_no_match(inventory.name(path), rows["image_id"], images)
        for field, column in fields.items():
            joined = _join(rows["image_id"], dict(zip(images, table.column(column), strict=True)))
            rows[field] = joined.where(joined != "", rows[field]) if field in rows else joined
            columns.setdefault(field, f"{column} of {inventory.name(path)}")
    index, near = ImageIndex(inventory), found.files[0].parent
    name = ", ".join(path.name for path in found.files)
    files = ImagePaths(inventory.images, (index.locate(value, near) for value in rows["image_id"]))
    return Raw(NAME, name, rows, files, places, metadata, columns, list(dict.fromkeys(ignored)))
