"""Layouts of raw data, one module each, recognised by content. `read` returns every one in the same form.

A layout is a module with `NAME`, `recognise` and `read`, see `dataset.Layout`; the order of `TABLES` decides which
layout a table has, the specific ones first.
"""

import contextlib
import dataclasses
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd

from components.prepare_data.layouts import (
    ages,
    checks,
    class_folders,
    ham10000,
    image_folder,
    isic_archive,
    isic_challenge,
    medmnist,
    named_table,
    pad_ufes,
    parquet,
)
from components.prepare_data.layouts.columns import explain_unknown_columns, note_groups
from components.prepare_data.layouts.dataset import (
    Dataset,
    FileLayout,
    Found,
    ImageFiles,
    Layout,
    Raw,
    have_files,
    number_paths,
)
from components.prepare_data.layouts.inventory import (
    Inventory,
    base_name,
    set_masks_aside,
    strip_suffixes,
    take_inventory,
)
from components.prepare_data.layouts.matching import explain_missing
from components.prepare_data.layouts.relations import relate
from components.prepare_data.layouts.splits import split_of
from components.prepare_data.layouts.tables import join_some, read_header
from components.prepare_data.texts import STRING, Texts, is_unique, iterate, map_different, release_memory
from components.shared.errors import UserError
from components.shared.parameters import parse_columns
from components.shared.records import DataSource

TABLES: tuple[Layout, ...] = (ham10000, isic_challenge, isic_archive, pad_ufes, image_folder, named_table)
FILES: tuple[FileLayout, ...] = (parquet, medmnist)
LAYOUTS: Mapping[str, Layout] = {layout.NAME: layout for layout in (*TABLES, *FILES, class_folders)}

TEXT_SUFFIXES = (".json", ".jsonl", ".txt")
"""Suffixes of files that may list images, but are not read as metadata."""
MAX_LISTS = 100
"""Files beside class folders that are searched for names of images, those nearest to the top."""
START_BYTES = 16_384
"""Bytes of such a file that are read."""
MAX_FOLDERS = 50
"""Folders that the record of what was read lists."""


def read(
    folder: Path, columns: str = "auto", *, scratch: Path, min_classes: int = 2, ignore: Path | None = None
) -> Dataset:
    """Read a folder in any layout, without opening its images.

    Args:
        folder: the raw data.
        columns: `auto`, or `field:column` pairs such as `image_id:file,dx:label`; fields without one are recognised.
        scratch: an empty folder for images that are no separate files, such as those in Parquet.
        min_classes: minimum number of classes.
        ignore: a file that is no data, such as a given split.

    Raises:
        UserError: no layout is recognised, or more than one metadata file; an id or a class is invalid.

    Example:
        >>> read(Path("ham10000"), scratch=Path("scratch")).source.layout
        'HAM10000'
    """
    named = parse_columns(columns)
    inventory = take_inventory(folder, ignore.resolve() if ignore is not None else None)
    found = recognise(inventory, named)
    if found.layout == class_folders.NAME:
        inventory = set_masks_aside(inventory)
    return _as_dataset(LAYOUTS[found.layout].read(inventory, found, scratch), inventory, min_classes)


def inspect(folder: Path, columns: str = "auto", *, min_classes: int = 2, ignore: Path | None = None) -> Dataset:
    """Read a folder from its listing and its metadata alone.

    Images of one name are not compared, those in Parquet files and arrays are not read, and these files not hashed.

    Raises:
        UserError: as in `read`.
    """
    named = parse_columns(columns)
    inventory = take_inventory(folder, ignore.resolve() if ignore is not None else None)
    found, listed = recognise(inventory, named), dataclasses.replace(inventory, compare=False)
    if found.layout == class_folders.NAME:
        listed = set_masks_aside(listed)
    tables = {layout.NAME: layout.read_table for layout in FILES}
    if found.layout in tables:
        return _as_dataset(tables[found.layout](listed, found), listed, min_classes)
    return _as_dataset(LAYOUTS[found.layout].read(listed, found, folder), listed, min_classes)


def recognise(inventory: Inventory, named: dict[str, str]) -> Found:
    """Return the one way in which a folder can be read.

    Raises:
        UserError: there is none, or more than one.
    """
    found: dict[tuple[Path, ...], Found] = {}
    taken: set[Path] = set()
    # Columns that the user names do not identify a layout: the table is any other.
    for layout in [named_table] if {"image_id", "dx"} <= named.keys() else TABLES:
        for one in layout.recognise(inventory, named):
            if not taken & set(one.files):
                found[one.files] = one
                taken |= set(one.files)
    candidates = list(found.values())
    for layout in FILES:
        candidates += layout.recognise(inventory, named)
    candidates = _without_copies(candidates)
    if len(candidates) > 1:
        names = [" and ".join(inventory.name(path) for path in one.files[:3]) for one in candidates]
        raise UserError(
            f"{inventory.folder} has several metadata files ({join_some(names)})",
            "keep the one that is meant, and move the others out of the folder",
            "metadata.several",
            path=str(inventory.folder),
            files=names[:20],
        )
    if candidates:
        return candidates[0]
    if inventory.unreadable:
        raise inventory.unreadable[0]
    described, folders = _tables_of_images(inventory), class_folders.recognise(inventory, {})
    lists: list[Path] = []
    if folders and not named:
        image_of = _image_names(inventory)
        lists = [path for path in described if _is_list(_first_words(path)) and any(map(image_of, _words(path)))]
    if others := [path for path in described if path not in lists]:
        raise explain_unknown_columns(inventory, others, named, bool(folders))
    if folders and not named:
        return folders[0]._replace(lists=(*lists, *_lists_beside_folders(inventory)))
    raise _explain_no_layout(inventory, named)


def _without_copies(candidates: list[Found]) -> list[Found]:
    """Return the candidates without files that have the same content as another's."""
    seen: dict[tuple[bytes, ...], Found] = {}
    if len(candidates) < 2 or any(path.stat().st_size > 2**28 for one in candidates for path in one.files):
        return candidates
    for one in candidates:
        seen.setdefault(tuple(path.read_bytes() for path in one.files), one)
    return list(seen.values())


def _tables_of_images(inventory: Inventory) -> list[Path]:
    """Return tables that seem to be metadata although no column was recognised: by name, or as they list images."""
    image_of = _image_names(inventory)
    found = []
    for path in inventory.headers:
        if "metadata" in path.name.lower() or any(map(image_of, _words(path))):
            found.append(path)
    return found


def _image_names(inventory: Inventory) -> Callable[[str], str | None]:
    """Return a function that returns the image, without suffix, that a word names, or None; of many images, the first.

    A word is an id, a file name or a path.
    """
    names = {strip_suffixes(base_name(path)).lower() for path in inventory.images[:10_000]}

    def image_of(word: str) -> str | None:
        return name if (name := strip_suffixes(base_name(word)).lower()) in names else None

    return image_of


def _first_words(path: Path) -> list[list[str]]:
    """Return the words in each of the first lines of a text, without quotes and separators of tables."""
    with path.open("rb") as file:
        start = file.read(START_BYTES).decode("utf-8", errors="ignore")
    return [re.findall(r"[^\s,;|\"'\\]+", line) for line in start.splitlines()]


def _words(path: Path) -> Iterator[str]:
    return chain(*_first_words(path))


def _is_list(lines: Sequence[Collection[str]]) -> bool:
    """Return whether a text that names images has one word per line, so that it states no class."""
    return max(map(len, lines), default=0) == 1


def _lists_beside_folders(inventory: Inventory) -> list[Path]:
    """Return texts that list images without a class, and refuse other files that list images.

    Such a file is no text table, and it and not the folders may hold the classes.

    Raises:
        UserError: `metadata.other_format` or `metadata.other_suffix`.
    """
    image_of = _image_names(inventory)
    texts, lists = [path for path in inventory.others if path.suffix.lower() in TEXT_SUFFIXES], []
    for path in sorted(texts, key=lambda path: len(path.parts))[:MAX_LISTS]:
        lines = _first_words(path)
        named = [{image_of(word) for word in words if not word.isdecimal()} - {None} for words in lines]
        if len(set(chain(*named))) < 2:  # a file may name the image that it describes
            continue
        if path.suffix.lower() == ".txt" and _is_list(lines):
            lists.append(path)
            continue
        if path.suffix.lower() == ".txt" and sum(map(bool, named)) * 2 < len(lines):  # prose that mentions some images
            continue
        raise _explain_unread(inventory, path, beside_folders=True)
    for path in inventory.parquet:
        if len({image_of(word) for word in parquet.first_texts(path)} - {None}) > 1:
            raise _explain_unread(inventory, path, beside_folders=True)
    return lists


def _explain_unread(inventory: Inventory, path: Path, beside_folders: bool = False) -> UserError:
    """Return the error for a file that may hold the metadata, but is not read: a table named .txt, or no table."""
    folder, name = inventory.folder, inventory.name(path)
    instead = ", or move it out of the folder to read the classes from the folders" * beside_folders
    if path.suffix.lower() == ".txt" and _is_table(path):
        return UserError(
            f"{folder} has no metadata file; {name} is a table, but has the suffix .txt",
            "give it the suffix .csv if it is the metadata" + instead,
            "metadata.other_suffix",
            path=str(folder),
        )
    return UserError(
        f"{folder} has no metadata file that can be read; {name} is not a text table",
        "save it as CSV in UTF-8" + instead,
        "metadata.other_format",
        path=str(folder),
    )


def _is_table(path: Path) -> bool:
    """Return whether a text file begins as a table with several columns."""
    try:
        return len(read_header(path)) > 1
    except UserError:
        return False


def _explain_no_layout(inventory: Inventory, named: Mapping[str, str]) -> UserError:
    folder = inventory.folder
    if named and not inventory.headers and not inventory.parquet:
        return UserError(
            f"data_columns names columns, but {folder} has no metadata file",
            "add the file, or leave data_columns at auto",
            "metadata.missing",
            path=str(folder),
        )
    if inventory.archives:
        names = join_some([inventory.name(path) for path in inventory.archives])
        return UserError(
            f"{folder} has no metadata file that can be read; it has packed files ({names})",
            "unpack them into the folder",
            "metadata.packed",
            path=str(folder),
        )
    if not inventory.parquet and not inventory.arrays:
        class_folders.refuse_only_unread(inventory)
    other_formats = (*class_folders.SHEETS, ".json", ".jsonl")
    if sheets := [path for path in inventory.others if path.suffix.lower() in other_formats]:
        return _explain_unread(inventory, sheets[0])
    for path in inventory.parquet:
        return parquet.explain_columns(inventory, path)
    for path in inventory.arrays:
        return medmnist.explain_arrays(inventory, path)
    if texts := [path for path in inventory.others if path.suffix.lower() == ".txt" and _is_table(path)]:
        return _explain_unread(inventory, texts[0])
    return class_folders.explain_no_classes(inventory)


def _as_dataset(raw: Raw, inventory: Inventory, min_classes: int) -> Dataset:
    """Check what a layout read, and complete it."""
    table = raw.table.fillna("").reset_index(drop=True)
    notes = [*raw.notes, *note_groups(raw.ignored, raw.columns)]
    with contextlib.suppress(UnicodeEncodeError):  # of a class that is refused below
        table = table.astype(STRING)
    raw.table = pd.DataFrame()  # its columns are replaced one by one
    release_memory()
    if table.empty:
        raise UserError(f"{raw.name} has no rows", "add one row per image", "metadata.no_rows")
    short = Texts(map(strip_suffixes, iterate(table["image_id"]))).series()
    if is_unique(short) or not is_unique(table["image_id"]):
        table["image_id"] = short
    for column in ("image_id", "dx"):
        checks.check_values(raw, column, table)
    for column in table.columns.intersection(["image_id", "lesion_id", "patient_id"]):
        checks.refuse_rounded_ids(raw, column, table)
    checks.refuse_repeated_images(raw, inventory, table)
    checks.refuse_shared_files(raw, inventory, table)
    table["dx"], renamed = checks.name_classes(raw, checks.strip_decimals(table["dx"], notes))
    checks.check_number_of_classes(raw, inventory, table["dx"], min_classes)
    release_memory()
    table, unit = relate(table, notes)
    release_memory()
    for column in ("lesion_id", "patient_id"):
        checks.check_values(raw, column, table)
    if inventory.masks:
        example = inventory.name(inventory.masks[0])
        notes.append(
            f"{len(inventory.masks):,} images seem to be masks of others, such as {example}: they are not read"
        )
    if inventory.results:
        names = join_some([inventory.name(folder) for folder in inventory.results])
        notes.append(f"{inventory.results.total():,} files are the results of a run and are not read: {names}")
    if inventory.archives:
        names = join_some([inventory.name(path) for path in inventory.archives])
        notes.append(f"packed files are not read: {names}")
    if renamed:
        pairs = [f"{safe} for {name!r}" for safe, name in renamed.items()]
        notes.append(f"classes are renamed: {join_some(pairs, 20)}")
    table["split"] = _given_split(table, notes)
    for column in ("patient_id", "dx_type", "age", "sex", "localization"):
        known = table[column].where(table[column] != "") if column in table else pd.Series(None, table.index, STRING)
        table[column] = known if column in ("patient_id", "age") else known.astype("category")  # few different values
    table["age"] = ages.read(table["age"], notes)
    files = ImageFiles(iterate(table["image_id"]), raw.files)
    missing = table["image_id"][~have_files(raw.files)].tolist()
    used = np.unique(number_paths(raw.files))
    folders = dict(sorted(inventory.images_per_folder().items(), key=lambda item: -item[1])[:MAX_FOLDERS])
    source = DataSource(
        layout=raw.layout,
        metadata=raw.metadata,
        columns=raw.columns,
        ignored=[name[:200] for name in raw.ignored[:200]],
        folders={name[:1000]: count for name, count in folders.items()},
        renamed=renamed,
        unit=unit,
        own_split=bool(table["split"].notna().any()),
        notes=[note[:1900] for note in notes],
    )
    raw.files, raw.places, rows = (), (), table["image_id"].argsort().to_numpy()
    release_memory()
    order = ["image_id", "lesion_id", "group_id", "patient_id", "dx", "dx_type", "age", "sex", "localization", "split"]
    return Dataset(
        table=pd.DataFrame({name: table.pop(name).array.take(rows) for name in order}),  # one column at a time
        files=files,
        source=source,
        unused=len(inventory.images) - int((used >= 0).sum()),
        cause=explain_missing(inventory, missing, len(rows), raw.name) if missing else None,
    )


def _given_split(table: pd.DataFrame, notes: list[str]) -> pd.Series:
    """Return the split that the data itself states, or nulls: all images must have one, and test and train exist."""
    none = pd.Series(None, index=table.index, dtype=STRING)
    if "split" not in table:
        return none
    names = {name: split_of(name) for name in table["split"].unique()}
    splits = set(names.values())
    if None in splits or not {"train", "test"} <= splits:
        found = join_some(sorted(name or "(empty)" for name in names))
        notes.append(
            f"the data's own split is not used, because it does not assign all images to train and test ({found})"
        )
        return none
    return map_different(table["split"], names.__getitem__)
