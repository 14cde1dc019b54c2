"""ISIC challenges of 2018 (task 3) and 2019: one column per class, with 1 for the image's, and lesions in another file.

The tables of training, validation and test of a challenge are read together; their names are the split.
"""

from pathlib import Path

import pandas as pd

from components.prepare_data.layouts.columns import COMMON, join_splits
from components.prepare_data.layouts.dataset import Found, Raw
from components.prepare_data.layouts.inventory import Inventory
from components.prepare_data.layouts.matching import ImageIndex
from components.prepare_data.layouts.splits import split_of_path
from components.prepare_data.layouts.tables import Table, normalise, read_table
from components.shared.errors import UserError
from components.shared.records import MetadataFile

NAME = "ISIC challenge"
IMAGE_COLUMNS = ("image", "image_id", "image_name", "isic_id")
CODES = frozenset(["mel", "nv", "bcc", "akiec", "ak", "bkl", "df", "vasc", "scc", "unk"])
MIN_CODES = 3
"""Classes of ISIC that a table has as columns; other tables with numbers are no ground truth."""
_ONE_HOT = "one column per class"


def recognise(inventory: Inventory, named: dict[str, str]) -> list[Found]:
    """Recognise tables with a column of images and one for each class."""
    found = []
    for path, header in inventory.headers.items():
        names = [normalise(column) for column in header]
        image = next((name for name in IMAGE_COLUMNS if name in names), None)
        if image and "dx" not in named and len(CODES & set(names)) >= MIN_CODES:
            found.append(Found(NAME, (path,), {"image_id": header[names.index(image)], "dx": _ONE_HOT}))
    return join_splits(inventory, found)


def _classes(table: Table, image: str) -> list[str]:
    """Return the class of each row: the column with 1.

    Raises:
        UserError: `metadata.not_one_hot`: a row has no class or several.
    """
    codes = [at for at, name in enumerate(table.header) if name and name != image]
    classes = []
    for row, line in zip(table.rows, table.lines, strict=True):
        try:
            set_ = [table.header[at] for at in codes if float(row[at] or 0)]
        except ValueError:
            set_ = []
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


def read(inventory: Inventory, found: Found, scratch: Path) -> Raw:
    """Read the ground truth, and join lesion ids and other fields from the tables beside it."""
    parts, places, metadata = [], [], []
    for path in found.files:
        table = read_table(path)
        image = found.columns["image_id"]
        part = pd.DataFrame({"image_id": table.column(image), "dx": _classes(table, image)}, dtype=object)
        if len(found.files) > 1:
            part["split"] = split_of_path(inventory.name(path))
        parts.append(part)
        places += table.lines
        metadata.append(MetadataFile(name=inventory.name(path), rows=len(part), sha256=table.sha256))
    rows, columns = pd.concat(parts, ignore_index=True), dict(found.columns)
    for path, image, fields in _further_columns(inventory, found):
        table = read_table(path)
        metadata.append(MetadataFile(name=inventory.name(path), rows=len(table.rows), sha256=table.sha256))
        for field, column in fields.items():
            values = dict(zip(table.column(image), table.column(column), strict=True))
            joined = rows["image_id"].map(values).fillna("")
            rows[field] = joined.where(joined != "", rows[field]) if field in rows else joined
            columns.setdefault(field, f"{column} of {inventory.name(path)}")
    index, near = ImageIndex(inventory), found.files[0].parent
    name = ", ".join(path.name for path in found.files)
    files = [index.find(value, near) for value in rows["image_id"]]
    return Raw(NAME, name, rows, list(files), places, metadata, columns)
