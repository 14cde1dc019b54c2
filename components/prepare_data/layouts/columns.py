"""Recognise a text table by its columns, and read it: the common part of all layouts with a metadata file."""

import filecmp
import re
from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from components.prepare_data.layouts.dataset import Found, ImagePaths, Raw, name_lines
from components.prepare_data.layouts.inventory import Inventory, strip_suffixes
from components.prepare_data.layouts.matching import ImageIndex
from components.prepare_data.layouts.one_hot import (
    ONE_HOT,
    are_no_classes,
    find_classes,
    note_classes,
    read_classes,
    share_columns,
)
from components.prepare_data.layouts.splits import split_of, split_of_path
from components.prepare_data.layouts.tables import Table, join_some, normalise, read_start, read_table, refuse_repeated
from components.prepare_data.texts import iterate
from components.shared.errors import UserError, printable
from components.shared.parameters import COLUMN_FIELDS
from components.shared.records import MetadataFile

Aliases = Mapping[str, Sequence[str]]

COMMON: Aliases = {
    "lesion_id": ("lesion_id",),
    "patient_id": (
        "patient_id", "patient", "patient_no", "patient_nr", "patient_number", "patient_code", "subject_id",
        "participant_id", "case_id",
    ),
    "dx_type": ("dx_type", "diagnosis_confirm_type", "biopsed"),
    "age": ("age", "age_approx"),
    "sex": ("sex", "gender"),
    "localization": ("localization", "anatom_site_general", "anatom_site", "region", "site"),
    "split": ("split",),
}  # fmt: skip
"""Column names of optional fields that several layouts share."""
_MAY_GROUP = {
    field: re.compile(rf"({words})(_(id|no|nr|num|number|code|name|key|uid))?")
    for field, words in {
        "lesion_id": "lesion|nodule|tumou?r|wound|mole",
        "patient_id": "patient|subject|participant|person|individual|pid|mrn|case|study|specimen|slide",
    }.items()
}
"""Names of other columns whose values images may share that must stay in one split."""
IMAGE_COLUMNS = (
    "image_id", "isic_id", "img_id", "image", "image_name", "image_file", "image_path", "img", "img_path", "file",
    "filename", "file_name", "filepath", "file_path", "path",
)  # fmt: skip
"""Column names that usually hold the image."""
CLASS_COLUMNS = ("dx", "label", "class", "diagnosis", "category", "target", "diagnostic", "class_name", "label_name")
"""Column names that usually hold the class."""
MAX_COMPARED = 1_000
"""First rows of which the images of two columns are compared."""
FIRST_ROWS = 20
"""Rows of which one must name an image, so that a table lists images."""


def usual_classes(header: Sequence[str]) -> list[str]:
    """Return the one column that usually holds the class, in normal form; of several, `dx` or none.

    Example:
        >>> usual_classes(["file", "Label"]), usual_classes(["label", "dx"]), usual_classes(["label", "diagnosis"])
        (['label'], ['dx'], [])
    """
    names = set(map(normalise, header))
    found = [name for name in CLASS_COLUMNS if name in names]
    return found if len(found) == 1 else [name for name in found if name == "dx"]


def match_columns(header: Sequence[str], aliases: Aliases, named: Mapping[str, str]) -> dict[str, str] | None:
    """Return field → column, or None if image_id or dx has no column or a named column does not exist.

    Args:
        header: the columns.
        aliases: field → names of its column in this layout, the preferred one first.
        named: field → column that the user named; these take precedence.
    """
    by_name: dict[str, str] = {}
    for column in header:
        by_name.setdefault(normalise(column), column)
    columns: dict[str, str] = {}
    for field, column in named.items():
        if normalise(column) not in by_name:
            return None
        columns[field] = column if column in header else by_name[normalise(column)]
    for field, names in {**COMMON, **aliases}.items():
        free = [by_name[name] for name in names if name in by_name and by_name[name] not in columns.values()]
        if field not in columns and free:
            columns[field] = free[0]
    if not {"image_id", "dx"} <= columns.keys():
        return None
    return {field: columns[field] for field in COLUMN_FIELDS if field in columns}


def recognise_tables(layout: str, inventory: Inventory, aliases: Aliases, named: Mapping[str, str]) -> list[Found]:
    """Return the tables whose columns have the names of a layout; parts that are splits of one set are one."""
    found = []
    for path, header in inventory.headers.items():
        columns = match_columns(header, aliases, named)
        if columns is not None:
            found.append(Found(layout, (path,), columns, frozenset(named)))
    return join_splits(inventory, found)


def join_splits(inventory: Inventory, found: list[Found]) -> list[Found]:
    """Return tables of equal columns as one if each has the name of another split, in its path or in its folder's."""
    splits = [split_of_path(inventory.name(it.files[0])) for it in found]
    alike = len({tuple(sorted(it.columns.items())) for it in found}) == 1
    if len(found) > 1 and alike and None not in splits and len(set(splits)) == len(found):
        return [found[0]._replace(files=tuple(it.files[0] for it in found))]
    return found


def read_columns(inventory: Inventory, found: Found, classes: Sequence[str] = CLASS_COLUMNS) -> Raw:
    """Read the tables that `recognise_tables` returned, and find the image of each row.

    Args:
        inventory: the files of the folder.
        found: the tables and their columns.
        classes: names of columns that a note lists, since they may be the class as well.
    """
    index: ImageIndex | None = None
    parts: list[pd.DataFrame] = []
    files = array("q")
    places = array("q")
    metadata: list[MetadataFile] = []
    ignored: list[str] = []
    notes: dict[str, None] = {}
    for path in found.files:
        table = read_table(path)
        refuse_repeated(path, table.header, found.columns.values())
        if not len(table):
            raise UserError(f"{path.name} has no rows", "add one row per image", "metadata.no_rows")
        hot = find_classes(path, found.columns.values()) if found.columns["dx"] == ONE_HOT else []
        part = pd.DataFrame(
            {
                field: (read_classes(table, hot) if column == ONE_HOT else table.column(column)).series()
                for field, column in found.columns.items()
            }
        )
        if len(found.files) > 1:
            part["split"] = split_of_path(inventory.name(path))
        parts.append(part)
        places.extend(table.lines)
        metadata.append(MetadataFile(name=inventory.name(path), rows=len(part), sha256=table.sha256))
        unused = [column for column in table.header if column and column not in (*found.columns.values(), *hot)]
        ignored += unused
        if "split" not in found.columns:
            notes |= dict.fromkeys(_note_splits(table, unused))
        notes |= {note_classes(hot): None} if hot else {}
        others = {it.parent for it in found.files} - {path.parent, *path.parent.parents}
        rivals = {} if "image_id" in found.named else _rival_columns(table, found.columns)
        del table  # before the index needs memory
        index = index or ImageIndex(inventory)
        _refuse_rivals(path, rivals, found.columns["image_id"], part["image_id"], index)
        for value in iterate(part["image_id"]):
            image = index.locate(value, path.parent)
            # An image beside another split's table is not that of this table's row.
            if others and image >= 0 and not others.isdisjoint(Path(inventory.images[image]).parents):
                image = -1
            files.append(image)
        if len({it.parent for it in found.files}) > 1:
            # Names repeat in the folders of other splits.
            part["image_id"] = (inventory.name(path.parent) + "/" + part["image_id"]).where(part["image_id"] != "", "")
    name = ", ".join(path.name for path in found.files)
    ignored = list(dict.fromkeys(ignored))
    return Raw(
        layout=found.layout,
        name=name,
        table=pd.concat(parts, ignore_index=True)[[field for field in COLUMN_FIELDS if field in parts[0]]],
        files=ImagePaths(inventory.images, files),
        places=name_lines(places, metadata),
        metadata=metadata,
        columns=found.columns,
        ignored=ignored,
        notes=[
            *notes,
            *note_other_classes(found, ignored, classes),
            *note_unused_tables(inventory, found.files, index or ImageIndex(inventory)),
        ],
    )


def _rival_columns(table: Table, columns: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the first values of the other columns that usually hold the image."""
    names = [name for name in table.header if normalise(name) in IMAGE_COLUMNS and name not in columns.values()]
    return {name: table.column(name)[:MAX_COMPARED] for name in names}


def _refuse_rivals(path: Path, rivals: Mapping[str, list[str]], column: str, ids: pd.Series, index: ImageIndex) -> None:
    """Raise if another column names other images than that of `image_id` in most rows.

    Raises:
        UserError: `metadata.two_image_columns`.
    """
    for other, values in rivals.items():
        found = [_locate(index, value, path.parent) for value in values]
        own = [_locate(index, value, path.parent) for value in iterate(ids[:MAX_COMPARED])]
        differ = [at for at, pair in enumerate(zip(own, found, strict=True)) if min(pair) >= 0 and pair[0] != pair[1]]
        if len(differ) * 2 > len(found):
            at = differ[0]
            raise UserError(
                f"the columns {column} and {other} of {path.name} name different images in most rows, such as "
                f"{printable(ids.iloc[at][:80])} and {printable(values[at][:80])}",
                f"name the one that is meant: data_columns=image_id:{other} or data_columns=image_id:{column}",
                "metadata.two_image_columns",
                columns=[column, other],
                file=path.name,
            )


def _locate(index: ImageIndex, value: str, near: Path) -> int:
    """Return the position of an image, −1 if there is none, or several."""
    try:
        return index.locate(value, near) if value else -1
    except UserError:
        return -1


def note_other_classes(found: Found, ignored: Sequence[str], classes: Sequence[str] = CLASS_COLUMNS) -> list[str]:
    """Return a note that names the ignored columns which usually hold a class, too, unless the user named one."""
    others = [column for column in ignored if normalise(column) in classes]
    if not others or "dx" in found.named:
        return []
    return [f"the class is the column {found.columns['dx']}; set data_columns=dx:COLUMN for {' or '.join(others)}"]


def note_groups(ignored: Sequence[str], columns: Mapping[str, str]) -> list[str]:
    """Return a note for each ignored column that may identify lesions or patients, of which no column is known.

    Example:
        >>> note_groups(["case_num", "clinic"], {"lesion_id": "lesion"})[0][:49]
        'the column case_num, which is not used, may ident'
    """
    return [
        f"the column {column}, which is not used, may identify {field.removesuffix('_id')}s: set data_columns="
        f"{field}:{column} if images with the same value must stay in one split"
        for field, names in _MAY_GROUP.items()
        for column in ignored
        if field not in columns and names.fullmatch(normalise(column))
    ]


def _note_splits(table: Table, ignored: Sequence[str]) -> list[str]:
    """Return a note for each ignored column that states a split."""
    return [
        f"the column {column}, which is not used, has the names of splits: set data_columns=split:{column} to use them"
        for column in ignored
        if _are_splits(table.column(column))
    ]


def _are_splits(values: Iterable[str]) -> bool:
    """Return whether all values are the names of splits, train and test among them."""
    found = set()
    for value in values:
        if (split := split_of(value)) is None:
            return False
        found.add(split)
    return {"train", "test"} <= found


def _usual(header: Sequence[str]) -> list[str]:
    """Return the columns that usually hold an image or an optional field."""
    usual = {*IMAGE_COLUMNS, *(name for names in COMMON.values() for name in names)}
    return [name for name in header if normalise(name) in usual]


def _name_images(inventory: Inventory, header: Sequence[str]) -> bool:
    """Return whether the first row of a table has the name of an image, and none that is usual for a column."""
    names = set(map(normalise, header))
    if _usual(header) or names & set(CLASS_COLUMNS):
        return False
    index = ImageIndex(inventory)
    return any(_locate(index, name, inventory.folder) >= 0 for name in header)


def note_unused_tables(inventory: Inventory, used: Collection[Path], index: ImageIndex) -> list[str]:
    """Return a note for each other table that lists images, unless it is a copy of one that is used.

    Raises:
        UserError: a table cannot be read any more.
    """
    notes = []
    for path, header in inventory.headers.items():
        if path in used or any(filecmp.cmp(path, other, shallow=False) for other in used):
            continue
        columns = [normalise(name) in IMAGE_COLUMNS for name in header]
        cells = [
            cell
            for row in read_start(path)[1:FIRST_ROWS]
            for cell, of_image in zip(row, columns, strict=False)
            if of_image or not re.fullmatch(r"[\d.]*", cell)  # pixels resemble images that are numbers
        ]
        if any(_locate(index, cell, path.parent) >= 0 for cell in cells):
            notes.append(
                f"{inventory.name(path)} lists images, but is not read; add its columns ({join_some(header, 8)}) to "
                f"{join_some([inventory.name(other) for other in used])} to use them"
            )
    return notes


def explain_unknown_columns(
    inventory: Inventory, paths: Sequence[Path], named: Mapping[str, str], has_class_folders: bool
) -> UserError:
    """Return the error for tables in which no image or class column was recognised: of several, the likeliest."""

    def rank(path: Path) -> tuple[int, int, int]:
        names = set(map(normalise, inventory.headers[path]))
        own = sum(normalise(column) in names for column in named.values())
        return own, sum(not names.isdisjoint(usual) for usual in (IMAGE_COLUMNS, CLASS_COLUMNS)), path.stat().st_size

    path = max(paths, key=rank)
    header = inventory.headers[path]
    if not header:
        return UserError(
            f"{inventory.name(path)} is empty", "provide a CSV with the columns image_id and dx", "metadata.empty"
        )
    if any(strip_suffixes(name) != name for name in header) or _name_images(inventory, header):
        return UserError(
            f"{inventory.name(path)} has no header row: its first line is {join_some(header)}",
            "add a first line with the names of the columns, such as image_id,dx",
            "metadata.no_header",
            file=inventory.name(path),
        )
    shown = join_some(header, 12) or "none"
    if named:
        lost = [column for column in named.values() if normalise(column) not in map(normalise, header)]
        if lost:
            return UserError(
                f"data_columns names {join_some(lost)}, which {inventory.name(path)} lacks (it has {shown})",
                "name columns of the metadata file in data_columns",
                "metadata.unknown_column",
                columns=lost,
                file=inventory.name(path),
            )
    if len(header) == 1 or header[0].startswith("#"):
        return UserError(
            f"{inventory.name(path)} begins with {header[0][:80]!r}, which is no header with several columns",
            "remove the lines above the header, or separate the columns by a comma, semicolon, tab or |",
            "metadata.no_header",
            file=inventory.name(path),
        )
    names = set(map(normalise, header))
    hot = [] if "dx" in named or names & set(CLASS_COLUMNS) else share_columns(path, _usual(header))
    if not are_no_classes(hot) and names & set(IMAGE_COLUMNS):
        return UserError(
            f"{inventory.name(path)} has no column of classes, and its columns with numbers from 0 to 1 "
            f"({join_some(hot, 12)}) do not have exactly one 1 and otherwise 0 in each row",
            "write 1 for the class of the image and 0 for the others, and keep only the columns of classes, or name "
            "the column of the class, as in data_columns=dx:COLUMN",
            "metadata.not_one_hot",
            file=inventory.name(path),
            columns=hot[:50],
        )
    suggested = _suggest(inventory, path, named)
    return UserError(
        f"{inventory.name(path)} does not have exactly one column that usually holds the image, and one the class "
        f"(it has {shown})",
        f"name the columns, as in {suggested}"
        + " and, if there are some, lesion_id:COLUMN,patient_id:COLUMN"
        * names.isdisjoint((*COMMON["lesion_id"], *COMMON["patient_id"]))
        + ", or move the file out of the folder to read the classes from the folders" * has_class_folders,
        "metadata.missing_column",
        file=inventory.name(path),
        columns=header[:50],
    )


def _suggest(inventory: Inventory, path: Path, named: Mapping[str, str]) -> str:
    """Return `data_columns` for a table, with the columns that may hold the image and the class."""
    header = inventory.headers[path]
    images = [name for name in header if normalise(name) in IMAGE_COLUMNS] or _columns_of_images(inventory, path)
    images = [named["image_id"]] if "image_id" in named else images or ["COLUMN"]
    classes = [name for name in header if normalise(name) in CLASS_COLUMNS and name not in images]
    classes = [named["dx"]] if "dx" in named else classes or ["COLUMN"]
    pairs = [f"data_columns=image_id:{image},dx:{dx}" for image in images for dx in classes]
    return " or ".join(pairs[:3])


def _columns_of_images(inventory: Inventory, path: Path) -> list[str]:
    """Return the columns that name another image in each of the first rows."""
    header, *rows = read_start(path)
    index, rows = ImageIndex(inventory), [row for row in rows[:FIRST_ROWS] if len(row) == len(header)]
    found = []
    for at, name in enumerate(header):
        images = {_locate(index, row[at], path.parent) for row in rows}
        if name and rows and -1 not in images and len(images) == len(rows):
            found.append(name)
    return found
