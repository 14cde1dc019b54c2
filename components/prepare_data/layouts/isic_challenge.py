"""ISIC challenges of 2018 (task 3) and 2019: one column per class, with 1 for the image's, and lesions in another file.

The tables of training, validation and test of a challenge are read together; their names are the split.
"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from components.prepare_data.layouts.columns import (
    COMMON,
    FIRST_ROWS,
    join_splits,
    match_columns,
    note_unused_tables,
)
from components.prepare_data.layouts.dataset import Found, ImagePaths, Raw, name_lines
from components.prepare_data.layouts.inventory import Inventory, strip_suffixes
from components.prepare_data.layouts.matching import ImageIndex
from components.prepare_data.layouts.one_hot import ONE_HOT, binary_columns, read_classes
from components.prepare_data.layouts.splits import split_of_path
from components.prepare_data.layouts.tables import normalise, read_table, refuse_repeated
from components.shared.errors import UserError, printable
from components.shared.records import MetadataFile

NAME = "ISIC challenge"
IMAGE_COLUMNS = ("image", "image_id", "image_name", "isic_id")
CODES = frozenset(["mel", "nv", "bcc", "akiec", "ak", "bkl", "df", "vasc", "scc", "unk"])
MIN_CODES = 3
"""Classes of ISIC that a table has as columns; other tables with numbers are no ground truth."""
NO_CLASSES = frozenset(["score_weight", "validation_weight"])
"""Columns of the test table of ISIC 2019 that are no classes."""
_DOWNSAMPLED = "_downsampled"


def recognise(inventory: Inventory, named: dict[str, str]) -> list[Found]:
    """Recognise tables with a column of images and one for each class."""
    found = []
    for path, header in inventory.headers.items():
        names = set(map(normalise, header))
        if "dx" not in named and len(CODES & names) >= MIN_CODES:
            own = {field: column for field, column in named.items() if normalise(column) in names}
            columns = match_columns([*header, ONE_HOT], {"image_id": IMAGE_COLUMNS, "dx": [normalise(ONE_HOT)]}, own)
            found += [Found(NAME, (path,), columns, frozenset(own))] if columns else []
    return join_splits(inventory, found)


def _class_columns(path: Path, header: list[str], columns: Mapping[str, str]) -> list[str]:
    """Return the classes of ISIC and the other columns with 0 and 1, without those of fields and weights."""
    others = {*columns.values(), *(name for name in header if normalise(name) in NO_CLASSES)}
    binary = binary_columns(path, others)
    return [name for name in header if name not in others and (name in binary or normalise(name) in CODES)]


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


def _describes(name: str, images: list[str], rows: pd.DataFrame, files: ImagePaths, index: ImageIndex) -> bool:
    """Return whether another table describes some of the rows, and not only other images, such as a test set.

    Raises:
        UserError: `metadata.no_match`: it describes neither, or spells ids otherwise, so that lesions would be lost.
    """
    if _join(rows["image_id"], dict.fromkeys(images, "1")).any():
        return True
    described = {index.locate(image, Path()) for image in images[:FIRST_ROWS]} - {-1}
    if not described or not described.isdisjoint(files.positions.tolist()):
        raise UserError(
            f"{name} describes none of the images of the ground truth, such as "
            f"{printable(str(rows['image_id'].iloc[0])[:80])}",
            "spell the images as in the ground truth, or move the file out of the data folder",
            "metadata.no_match",
            file=name,
        )
    return False


def read(inventory: Inventory, found: Found, scratch: Path) -> Raw:
    """Read the ground truth, and join lesion ids and other fields from the tables beside it."""
    parts, metadata, ignored = [], [], []
    lines: list[int] = []
    for path in found.files:
        table = read_table(path)
        classes = _class_columns(path, table.header, found.columns)
        refuse_repeated(path, table.header, found.columns.values())
        values = {field: table.column(column) for field, column in found.columns.items() if column != ONE_HOT}
        values["dx"] = read_classes(table, classes)
        part = pd.DataFrame({field: texts.series() for field, texts in values.items()})
        if len(found.files) > 1:
            part["split"] = split_of_path(inventory.name(path))
        parts.append(part)
        ignored += [column for column in table.header if column and column not in (*classes, *found.columns.values())]
        lines += table.lines
        metadata.append(MetadataFile(name=inventory.name(path), rows=len(part), sha256=table.sha256))
    rows, columns = pd.concat(parts, ignore_index=True), dict(found.columns)
    places = name_lines(lines, metadata)
    further, notes = _further_columns(inventory, found), list[str]()
    index, near = ImageIndex(inventory), found.files[0].parent
    files = ImagePaths(inventory.images, (index.locate(value, near) for value in rows["image_id"]))
    for path, image, fields in further:
        table, file = read_table(path), inventory.name(path)
        images = [strip_suffixes(value) for value in table.column(image)]
        if not _describes(file, images, rows, files, index):
            notes.append(f"{file} describes images without a class only, and is not used")
            continue
        metadata.append(MetadataFile(name=file, rows=len(table), sha256=table.sha256))
        for field, column in fields.items():
            joined = _join(rows["image_id"], dict(zip(images, table.column(column), strict=True)))
            rows[field] = joined.where(joined != "", rows[field]) if field in rows else joined
            columns.setdefault(field, f"{column} of {file}")
    name = ", ".join(path.name for path in found.files)
    notes += note_unused_tables(inventory, [*found.files, *(path for path, *_ in further)], index)
    return Raw(NAME, name, rows, files, places, metadata, columns, list(dict.fromkeys(ignored)), notes)
