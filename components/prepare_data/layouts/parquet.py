"""Parquet files with images, such as a Hugging Face repository: a struct of bytes and path, or plain bytes."""

import json
import re
from array import array
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.prepare_data.image_reader import MAX_BYTES, Stored
from components.prepare_data.layouts.checks import FORMULA_STARTS
from components.prepare_data.layouts.columns import (
    CLASS_COLUMNS,
    IMAGE_COLUMNS,
    match_columns,
    note_other_classes,
    usual_classes,
)
from components.prepare_data.layouts.dataset import NOT_HASHED, Found, ImageFile, Raw, name_lines
from components.prepare_data.layouts.inventory import Inventory, strip_suffixes
from components.prepare_data.layouts.matching import ImageIndex
from components.prepare_data.layouts.splits import split_of, split_of_path
from components.prepare_data.layouts.tables import join_some, normalise, refuse_repeated
from components.prepare_data.texts import Texts, is_unique, map_different
from components.shared.errors import UserError, printable
from components.shared.files import file_sha256
from components.shared.records import MetadataFile

NAME = "Parquet"
IDS = ("image_id", "isic_id", "img_id", "id")
BATCH_ROWS, ROWS_WITHOUT_IMAGES = 16, 1_000
"""Rows that are in memory at a time, with images and without."""
BATCH_BYTES = 128 * 2**20
"""Expected size of the values that are in memory at a time, unless one row has more."""
MAX_TEXT_BYTES = 2_048
"""Length of an id, class or path; a longer one is refused before it is copied for each row."""
LISTED_ROWS = 100
"""Rows in which names of images are searched for."""


@contextmanager
def _refuse_corrupt(path: Path) -> Iterator[None]:
    """Raise if the content of a file cannot be read.

    Raises:
        UserError: `metadata.not_parquet`.
    """
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None):
            raise
        raise UserError(
            f"{path.name} is not a Parquet file, or is corrupt",
            "download or export it again",
            "metadata.not_parquet",
            file=path.name,
        ) from error


@contextmanager
def _open(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a file, whose name may have bytes that are not text; see `_refuse_corrupt`."""
    with _refuse_corrupt(path), path.open("rb") as handle, pq.ParquetFile(handle) as file:
        yield file


def _schema(path: Path) -> pa.Schema:
    with _open(path) as file:
        return file.schema_arrow


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _holds_images(field: pa.Field) -> bool:
    """Return whether a column has bytes, or is a struct that has a field `bytes`."""
    return _is_binary(field.type) or (pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0)


def _is_text(field: pa.Field) -> bool:
    """Return whether a column of bytes has the name of a class or an id, which some writers store as bytes."""
    return _is_binary(field.type) and normalise(field.name) in (*CLASS_COLUMNS, *IDS)


def _image_column(schema: pa.Schema) -> str | None:
    """Return the column of images; None if there is none.

    Raises:
        UserError: `metadata.several_images`: there are several, such as masks, and none has a usual name.
    """
    columns = [str(field.name) for field in schema if _holds_images(field) and not _is_text(field)]
    usual = [name for name in columns if normalise(name) in IMAGE_COLUMNS]
    if len(columns) > 1 and len(usual) != 1:
        raise UserError(
            f"there are several columns of images ({join_some(columns)})",
            "name the one that is meant image, and remove the others",
            "metadata.several_images",
            columns=columns,
        )
    return next(iter(usual if len(columns) > 1 else columns), None)


def _columns(schema: pa.Schema, named: dict[str, str]) -> dict[str, str] | None:
    """Return field → column; that of `image_id` is the column of images unless the user or the data name another."""
    image = _image_column(schema)
    if image is None:
        return None
    header = [name for name in schema.names if name != image]
    classes = usual_classes(header)
    ids = [name for name in IDS if name in map(normalise, header)]
    aliases = {"image_id": ids or ("image_id",), "dx": classes}
    # Without an id, an image is named after its path or row, so the image column serves as both.
    columns = match_columns(header if ids else [*header, "image_id"], aliases, named)
    if columns is None:
        return None
    return columns | ({} if columns["image_id"] in header else {"image_id": image})


def recognise(inventory: Inventory, named: dict[str, str]) -> list[Found]:
    """Recognise Parquet files that hold images and a class; parts of equal columns and names are one data set."""
    parts: dict[tuple[object, ...], list[Path]] = {}
    columns_of: dict[Path, dict[str, str]] = {}
    for path in inventory.parquet:
        schema = _schema(path)
        columns = _columns(schema, named)
        if columns is not None:
            refuse_repeated(path, schema.names, columns.values())
            columns_of[path] = columns
            key = (_image_column(schema), tuple(sorted(columns.items())), _name_of_parts(inventory.name(path)))
            parts.setdefault(key, []).append(path)
    found = []
    for paths in parts.values():
        image, columns = _image_column(_schema(paths[0])) or "", columns_of[paths[0]]
        certain = "image_id" in named or columns["image_id"] == image or normalise(columns["image_id"]) == "image_id"
        if not certain and not _are_ids(paths, columns["image_id"], image):
            columns = columns | {"image_id": image}
        found.append(Found(NAME, tuple(paths), columns, frozenset(named)))
    return found


def _name_of_parts(name: str) -> str:
    """Return the path of a file without numbers and splits, which is the same for all parts of a data set.

    Example:
        >>> _name_of_parts("data/train-00000-of-00002.parquet"), _name_of_parts("clean_v2.parquet")
        ('data/*-#-of-#.parquet', 'clean_v2.parquet')
    """
    words = re.sub(r"[A-Za-z]+", lambda word: "*" if split_of(word[0]) else word[0], name)
    return re.sub(r"(?<!\bv)(?<!_v)\d+", "#", words)


def _are_ids(paths: list[Path], column: str, image: str) -> bool:
    """Return whether a column identifies each image, and better than its path if it has numbers only."""
    ids, stems = list[str](), list[str]()
    for path in paths:
        for fields, _, name in _iter_rows(path, {"image_id": column}, image, with_images=False):
            ids.append(_text(fields.get("image_id")))
            stems.append(name)
    if len(set(ids)) < len(ids) or not all(ids) or any(value.startswith(FORMULA_STARTS) for value in ids):
        return False
    return not (all(map(str.isdecimal, ids)) and all(stems) and len(set(stems)) == len(stems))


def _class_names(schema: pa.Schema, column: str) -> list[str] | None:
    """Return the names of a class column of numbers, from the metadata that Hugging Face writes."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[column].get("names")
        return [printable(str(name)) for name in names] if isinstance(names, list) else None
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return None


def _iter_batches(source: BinaryIO, columns: list[str], max_rows: int) -> Iterator[pa.RecordBatch]:
    """Yield some columns, a few rows at a time.

    A file of a few kB can hold gigabytes of values that are equal. Texts and bytes are therefore dictionaries, in which
    a value is in memory once; of other encodings and of long values, fewer rows are read at a time.
    """
    with pq.ParquetFile(source) as file:
        metadata = file.metadata
    leaves = [metadata.schema.column(number) for number in range(metadata.num_columns)]
    wanted = [
        number for number, leaf in enumerate(leaves) if any(f"{leaf.path}.".startswith(f"{name}.") for name in columns)
    ]
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    encoded = [number for number in wanted if leaves[number].physical_type == "BYTE_ARRAY"]
    dictionaries = [
        leaves[number].path
        for number in encoded
        if not leaves[number].max_repetition_level  # lists are no texts or images
        and not any("BYTE_ARRAY" in code for group in groups for code in group.column(number).encodings)
    ]
    if len(dictionaries) < len(encoded):
        max_rows = min(max_rows, BATCH_ROWS)
    with pq.ParquetFile(source, metadata=metadata, read_dictionary=dictionaries) as file:
        for position, group in enumerate(groups):
            row_bytes = sum(_row_bytes(group, number, leaves[number].length) for number in wanted)
            rows = max(1, min(max_rows, int(BATCH_BYTES / max(1, row_bytes))))
            yield from file.iter_batches(rows, row_groups=[position], columns=columns)


def _row_bytes(group: pq.RowGroupMetaData, number: int, fixed_length: int) -> float:
    """Return how long a column's values may be: in DELTA_BYTE_ARRAY, each can repeat the others' bytes."""
    chunk = group.column(number)
    mean = chunk.total_uncompressed_size / (1 if "DELTA_BYTE_ARRAY" in chunk.encodings else max(1, group.num_rows))
    return max(mean, fixed_length, MAX_TEXT_BYTES)


def _is_longer(values: pa.Array, limit: int) -> bool:
    """Return whether a text, or bytes, of a column or of its dictionary has more bytes."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        return _is_longer(values.dictionary, limit)
    if pa.types.is_fixed_size_binary(kind):
        return kind.byte_width > limit
    if not (_is_binary(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return False
    return (pc.max(pc.binary_length(values)).as_py() or 0) > limit


def _refuse_long(path: Path, column: str, values: pa.Array, limit: int = MAX_TEXT_BYTES) -> None:
    """Raise if a text or an image is too long.

    Raises:
        UserError: `metadata.value_too_long`.
    """
    if _is_longer(values, limit):
        raise UserError(
            f"{path.name} has a value of more than {limit:,} bytes in the column {column}",
            "shorten the value, or remove its row",
            "metadata.value_too_long",
            column=column,
            limit=limit,
        )


def _iter_rows(
    path: Path, columns: dict[str, str], image: str, with_images: bool
) -> Iterator[tuple[dict[str, Any], bytes | None, str]]:
    """Yield the fields, the bytes, unless only the other columns are read, and the path of each image of a file.

    Raises:
        UserError: `metadata.value_too_long`.
    """
    kind = _schema(path).field(image).type
    plain = not pa.types.is_struct(kind)
    has_path = not plain and kind.get_field_index("path") >= 0
    names = [image if plain else f"{image}.bytes"] * with_images + [f"{image}.path"] * has_path
    fields = [name for name in dict.fromkeys(columns.values()) if name != image]
    rows = BATCH_ROWS if with_images else ROWS_WITHOUT_IMAGES
    with _refuse_corrupt(path), path.open("rb") as handle:
        for batch in _iter_batches(handle, [*names, *fields], rows):
            contents: pa.Array | None = None
            paths: list[Any] = [None] * batch.num_rows
            if with_images:
                contents = batch.column(image) if plain else batch.column(image).field("bytes")
                _refuse_long(path, image, contents, MAX_BYTES)
            if has_path:
                stored = batch.column(image).field("path")
                _refuse_long(path, f"{image}.path", stored)
                paths = stored.to_pylist()
            for name in fields:
                _refuse_long(path, name, batch.column(name))
            values = {name: batch.column(name).to_pylist() for name in fields}
            for row, name in enumerate(paths):
                data = None if contents is None else contents[row].as_py()  # of a repeated image, one is in memory
                yield (
                    {field: values[column][row] for field, column in columns.items() if column in fields},
                    data,
                    str(name or ""),
                )


def read(inventory: Inventory, found: Found, scratch: Path) -> Raw:
    """Copy the images into one file in the scratch folder, a few at a time, and read the other columns."""
    with (scratch / "parquet-images").open("wb") as spool:
        return _read(inventory, found, spool)


def read_table(inventory: Inventory, found: Found) -> Raw:
    """Read all columns but that of the images."""
    return _read(inventory, found, None)


def _read(inventory: Inventory, found: Found, spool: BinaryIO | None) -> Raw:
    """Read the tables, and copy the images to a file if there is one."""
    index, spooled = ImageIndex(inventory), Path(spool.name if spool is not None else "")
    columns: defaultdict[str, Texts] = defaultdict(Texts)
    files: list[ImageFile | None] = []
    metadata, places, position, last = [], array("q"), 0, b""
    positions = Texts()
    image = _image_column(_schema(found.files[0])) or ""
    own_ids = found.columns["image_id"] != image
    splits = {split_of_path(inventory.name(path)) for path in found.files}
    for path in found.files:
        names, split = _class_names(_schema(path), found.columns["dx"]), split_of_path(inventory.name(path))
        number, file_name, file_stem = 0, printable(strip_suffixes(path.name)), printable(path.stem)
        for fields, data, name in _iter_rows(path, found.columns, image, spool is not None):
            row = {field: _text(value) for field, value in fields.items()}
            row["dx"] = _class_name(fields["dx"], names)
            if not own_ids:
                # Paths repeat in other files, and a part's number must not change an id.
                part = split or file_name
                stem = strip_suffixes(PurePosixPath(name).as_posix()) if name else ""
                row["image_id"] = f"{part}/{stem}" if stem else f"{part}/{file_stem}/{number:07}"
                positions.append(f"{file_stem}/{number:07}")
            if "split" not in row and len(splits) > 1 and None not in splits:
                row["split"] = split or ""
            if spool is None:
                files.append(Stored(path, number, 0))
            elif data:
                if data != last:  # a small file can repeat one image until the disk is full
                    position += spool.write(data)
                    last = data
                files.append(Stored(spooled, position - len(data), len(data)))
            else:
                files.append(index.find(name, path.parent) if name else None)
            for field, text in row.items():
                columns[field].append(text)
            number += 1
            places.append(number)
        digest = file_sha256(path) if spool is not None else NOT_HASHED
        metadata.append(MetadataFile(name=inventory.name(path), rows=number, sha256=digest))
    name = ", ".join(path.name for path in found.files[:3])
    if not places:
        raise UserError(f"{name} has no rows", "add one row per image", "metadata.no_rows")
    table = pd.DataFrame({field: texts.series() for field, texts in columns.items()})
    if not own_ids and not is_unique(table["image_id"]):  # some writers give all images the same path
        table["image_id"] = positions.series()
    if "split" in table:
        table["split"] = map_different(table["split"], lambda name: split_of(name) or name)
    ignored = [name for name in _schema(found.files[0]).names if name not in (image, *found.columns.values())]
    notes = _note_unread(inventory, found) + note_other_classes(found, ignored)
    return Raw(NAME, name, table, files, name_lines(places, metadata), metadata, found.columns, ignored, notes)


def copy_table(source: BinaryIO, path: Path) -> None:
    """Copy a file without the bytes of its images, of which only the other columns are read.

    Of a text that is longer than MAX_TEXT_BYTES, the copy has only so much that `read_table` refuses it too.

    Raises:
        UserError: as in `recognise`.
    """
    with _refuse_corrupt(path):
        with pq.ParquetFile(source) as file:
            schema = file.schema_arrow
        wanted = list(dict.fromkeys(name for field in schema for name in _names_without_bytes(field)))
        with pq.ParquetWriter(path, schema) as out:
            for batch in _iter_batches(source, wanted, ROWS_WITHOUT_IMAGES):
                columns = iter(batch.columns)  # names may be repeated
                arrays = [
                    _without_bytes(next(columns) if _names_without_bytes(field) else None, field, batch.num_rows)
                    for field in schema
                ]
                out.write_table(pa.Table.from_arrays(arrays, schema=schema))


def _names_without_bytes(field: pa.Field) -> list[str]:
    """Return the names of what a column holds besides bytes."""
    if pa.types.is_struct(field.type):
        return [f"{field.name}.{part.name}" for part in field.type if not _is_binary(part.type)]
    return [] if _is_binary(field.type) and not _is_text(field) else [field.name]


def _without_bytes(column: pa.Array | None, field: pa.Field, rows: int) -> pa.Array:
    """Return a column that was read without bytes, which are null; None if it has bytes only."""
    if not pa.types.is_struct(field.type):
        return pa.nulls(rows, field.type) if column is None else _cut(column, field.type)
    parts = [
        pa.nulls(rows, part.type)
        if _is_binary(part.type) or column is None
        else _cut(pc.struct_field(column, part.name), part.type)
        for part in field.type
    ]
    return pa.StructArray.from_arrays(parts, fields=list(field.type))


def _cut(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return values in the type of the file, without what exceeds the limit of a text by more than a character."""
    is_dictionary = pa.types.is_dictionary(values.type)
    texts = values.dictionary if is_dictionary else values
    if _is_binary(texts.type):
        texts = pc.binary_slice(texts, 0, MAX_TEXT_BYTES + 1)
    elif pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type):
        texts = pc.utf8_slice_codeunits(texts, 0, MAX_TEXT_BYTES + 1)
    if is_dictionary:
        texts = pa.DictionaryArray.from_arrays(values.indices, texts)
        texts = texts if pa.types.is_dictionary(kind) else texts.dictionary_decode()
    return texts if texts.type == kind else texts.cast(kind)


def first_texts(path: Path) -> list[str]:
    """Return the texts in the first rows of a file without images, but for long ones."""
    schema = _schema(path)
    columns = [field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)]
    if any(map(_holds_images, schema)) or not columns:
        return []
    with _refuse_corrupt(path), path.open("rb") as handle:
        batch = next(_iter_batches(handle, columns, LISTED_ROWS), None)
    return [
        text
        for column in (batch or ())
        if not _is_longer(column, MAX_TEXT_BYTES)
        for text in column.to_pylist()
        if text
    ]


def explain_columns(inventory: Inventory, path: Path) -> UserError:
    """Return the error for a file in which no column of images and of classes was recognised."""
    schema = _schema(path)
    columns = join_some([f"{field.name}: {field.type}"[:60] for field in schema], 12)
    if _image_column(schema) is None:
        return UserError(
            f"{inventory.name(path)} has no column of images, as bytes or a struct with bytes (it has {columns})",
            "save it as CSV if the images are files, or write their bytes into a column named image",
            "metadata.no_images",
            file=inventory.name(path),
            columns=schema.names[:50],
        )
    return UserError(
        f"{inventory.name(path)} does not have a column of images, as bytes or a struct with bytes, and exactly one "
        f"that is usually the class (it has {columns})",
        "name the column of the class, as in data_columns=dx:COLUMN, and write nested columns as separate ones",
        "metadata.missing_column",
        file=inventory.name(path),
        columns=schema.names[:50],
    )


def _note_unread(inventory: Inventory, found: Found) -> list[str]:
    """Return a note that names the other files with images, such as a test set without classes."""
    unread = [path for path in inventory.parquet if path not in found.files and _image_column(_schema(path))]
    if not unread:
        return []
    names = join_some([inventory.name(path) for path in unread])
    return [f"{len(unread):,} Parquet files with images but without a column of classes are not read: {names}"]


def _text(value: object) -> str:
    """Return a value as text; a missing one is empty."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return "" if value is None else str(value)


def _class_name(value: object, names: list[str] | None) -> str:
    """Return the name of a class.

    Raises:
        UserError: `metadata.unnamed_class`: it is a number without a name.
    """
    if value is None or not names or not isinstance(value, int | float):
        return _text(value)
    if value == -1:  # of a test set whose classes are not published
        return ""
    if value not in range(len(names)):
        raise UserError(
            f"the class {value} has no name, since the file names {len(names)} classes ({join_some(names)})",
            "correct the number, or the names in the metadata of the file",
            "metadata.unnamed_class",
            value=value,
        )
    return names[int(value)]
