"""The image set: the form in which images are passed between phases. One Parquet file with lossless PNG bytes per row.

It opens with pandas, pyarrow and Hugging Face `datasets` (its `Image` type: a struct of bytes and path). The rows of a
class are adjacent, so that a reader of one class skips the other row groups. Files are written and read one row group
at a time: memory does not grow with the number of images.

A row counts `repeat` times in training, so a repeated image is stored once.
"""

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from components.shared.errors import UserError
from components.shared.files import atomic_write

REAL = "real"
ROW_GROUP = 256
"""Maximum number of rows in a row group: at 128 px about 8 MB."""
HASHED_ROWS = 65_536
"""Rows that are hashed at a time, as text of a few MB."""

SCHEMA = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("image_id", pa.string()),
        ("lesion_id", pa.string()),  # null for a synthetic image
        ("dx", pa.string()),  # the class
        ("source", pa.string()),  # `real`, `gan` for the GANs of the run, or the name of another source
        ("split", pa.string()),
        ("repeat", pa.int32()),
        ("pixel_sha256", pa.string()),
        ("perceptual_hash", pa.string()),  # null for a synthetic image
        ("dx_type", pa.string()),
        ("age", pa.float32()),
        ("sex", pa.string()),
        ("localization", pa.string()),
        # Origin of a synthetic image; null for a real one.
        ("model_sha256", pa.string()),  # null if it is not from a GAN of the run, like the seed
        ("seed", pa.int64()),
        ("index", pa.int64()),
    ]
)

METADATA = ("age", "sex", "localization")
"""The columns that can be a second input of a classifier; never `dx_type`, how the diagnosis was confirmed."""

_HEADER_KEY = b"counterweight"
_HUGGING_FACE = {
    field.name: {"_type": "Image"}
    if field.name == "image"
    else {"_type": "Value", "dtype": "float32" if field.type == pa.float32() else str(field.type)}
    for field in SCHEMA
}


@dataclass(frozen=True)
class Header:
    """Properties of a whole image set.

    Attributes:
        classes: all classes of the data, sorted; a label is an index into it. They are the same in every split.
        image_size: height and width of every image, in pixels.
        split: `train`, `validation`, `test` or `external`.
        data_sha256: hash of all accepted rows and their pixels, over all splits; of an image under several lesion ids,
            those that are not used count, too.
        split_sha256: hash of the assignment of images to splits.
    """

    classes: tuple[str, ...]
    image_size: int
    split: str
    data_sha256: str = ""
    split_sha256: str = ""


def encode_png(pixels: np.ndarray | Image.Image) -> bytes:
    """Return the PNG bytes of one image, (H, W, 3) uint8 in [0, 255] or a Pillow image."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    # Level 1 encodes three times as fast as the default; files are about 15 % larger.
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def decode_png(data: bytes) -> np.ndarray:
    """Return the pixels of one image, (H, W, 3) uint8 in [0, 255]."""
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        return np.asarray(image.convert("RGB"))


def hash_rows(table: pd.DataFrame, columns: Sequence[str]) -> str:
    """Return the SHA-256 of some columns of a table with image_id; the order of the rows does not matter."""
    rows, digest = table[list(columns)], hashlib.sha256()
    parts = range(0, len(rows), HASHED_ROWS)  # pandas converts what it compares to Python strings
    if not all(rows["image_id"].iloc[at : at + HASHED_ROWS + 1].is_monotonic_increasing for at in parts):
        rows = rows.sort_values("image_id")
    for start in range(0, max(1, len(rows)), HASHED_ROWS):
        text = rows.iloc[start : start + HASHED_ROWS].to_csv(index=False, header=not start, lineterminator="\n")
        digest.update(text.encode())
    return digest.hexdigest()


def pixel_sha256(pixels: np.ndarray) -> str:
    """Return the hash of an image's pixels, (H, W, 3) uint8; it does not depend on name or encoding."""
    return hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()


class ImageSetWriter:
    """Write the row groups of an image set; see `write_image_set`."""

    def __init__(self, part: Path, header: Header) -> None:
        self.header = header
        self._schema = SCHEMA.with_metadata({b"huggingface": json.dumps({"info": {"features": _HUGGING_FACE}})})
        # PNG bytes do not compress further, and no two are equal.
        names = [field.name for field in SCHEMA if field.name != "image"]
        # Opened here, because Arrow does not close its own file if the end cannot be written.
        self._file = part.open("wb")
        self._parquet = pq.ParquetWriter(
            self._file, self._schema, compression=dict.fromkeys(names, "zstd"), use_dictionary=names
        )

    def write(self, rows: pd.DataFrame, png: Sequence[bytes]) -> None:
        """Write images as one row group.

        Args:
            rows: columns of the schema except `image` and `split`. A missing column becomes null, `repeat` becomes 1.
            png: the PNG bytes of each row.
        """
        if rows.empty:
            return
        rows = rows.assign(split=self.header.split)
        if "repeat" not in rows:
            rows = rows.assign(repeat=1)
        paths = pa.array([f"{name}.png" for name in rows["image_id"]])
        arrays = [pa.StructArray.from_arrays([pa.array(png, pa.binary()), paths], fields=list(SCHEMA.field(0).type))]
        for field in list(self._schema)[1:]:
            values = rows[field.name] if field.name in rows else [None] * len(rows)
            arrays.append(pa.array(values, field.type, from_pandas=True))
        self.write_table(pa.Table.from_arrays(arrays, schema=self._schema))

    def write_table(self, table: pa.Table) -> None:
        """Write a table with the columns of the schema, such as one of `iter_tables`.

        Raises:
            ValueError: a row is of another split, or a synthetic image would be in a held-out split.
        """
        sources = set(table.column("source").unique().to_pylist())
        splits = set(table.column("split").unique().to_pylist())
        if splits != {self.header.split}:
            raise ValueError(f"rows of {sorted(splits)} in the split {self.header.split!r}")
        if self.header.split != "train" and sources != {REAL}:
            raise ValueError(f"synthetic images in the split {self.header.split!r}")
        self._parquet.write_table(table.replace_schema_metadata(self._schema.metadata), row_group_size=ROW_GROUP)

    def close(self) -> None:
        """Write the header and the end of the file."""
        with self._file:
            self._parquet.add_key_value_metadata({_HEADER_KEY: json.dumps(asdict(self.header))})
            self._parquet.close()


@contextmanager
def write_image_set(path: str | Path, header: Header) -> Iterator[ImageSetWriter]:
    """Yield a writer; the file gets its name when the block ends without an error.

    The writer's header may be replaced in the block, since its hashes may be known only at the end.
    """
    with atomic_write(path) as part:
        writer = ImageSetWriter(part, header)
        try:
            yield writer
        finally:
            writer.close()


def read_header(path: str | Path) -> Header:
    """Return the header of an image set.

    Raises:
        UserError: `image_set.invalid` or `image_set.corrupt`: the file is not an image set.
    """
    try:
        values = json.loads(pq.read_metadata(path).metadata[_HEADER_KEY])
        header = Header(**{**values, "classes": tuple(values["classes"])})
        texts = (*header.classes, header.split, header.data_sha256, header.split_sha256)
        if not all(isinstance(text, str) for text in texts) or type(header.image_size) is not int:
            raise TypeError("a field of the header has another type")
        return header
    except OSError as error:
        if error.errno is not None:  # without a number it is Arrow's, for a corrupt file
            raise
        raise UserError(
            f"{path} is corrupt", "re-create it with prepare_data", "image_set.corrupt", path=str(path)
        ) from error
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is not an image set", "use a file that prepare_data wrote", "image_set.invalid", path=str(path)
        ) from error


def read_rows(path: str | Path, split: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Return the rows of an image set without their images.

    Args:
        path: the image set.
        split: the split that the caller expects.
        columns: names of columns; by default all except `image`.

    Raises:
        UserError: `image_set.wrong_split`, `image_set.mixed_splits`, `image_set.synthetic_in_held_out`.
    """
    header = read_header(path)
    if header.split != split:
        raise UserError(
            f"{path} contains the split {header.split!r}, not {split!r}",
            f"use the split {split!r}",
            "image_set.wrong_split",
            path=str(path),
        )
    wanted = list(columns or [field.name for field in SCHEMA if field.name != "image"])
    table = pq.read_table(path, columns=list(dict.fromkeys([*wanted, "source", "split"])))
    if split != "train" and set(table.column("source").unique().to_pylist()) - {REAL}:
        raise UserError(
            f"{path} has synthetic images in {split}",
            "re-create the split with prepare_data",
            "image_set.synthetic_in_held_out",
            path=str(path),
        )
    if set(table.column("split").unique().to_pylist()) - {split}:
        raise UserError(
            f"{path} has rows of another split",
            "re-create the split with prepare_data",
            "image_set.mixed_splits",
            path=str(path),
        )
    return table.select(wanted).to_pandas()


def _list_some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + ", …" * (len(names) > 3)


def refuse_overlap(path: str | Path, split: str, others: Sequence[str | Path]) -> None:
    """Check that a held-out set shares no image and no lesion with the sets that a model is trained on.

    Images are compared by the pixel hashes in their rows, independent of name and source; `open_pixels` verifies these
    hashes.

    Args:
        path: the held-out set.
        split: split of the held-out set.
        others: sets of the split `train` with real images, synthetic images or both.

    Raises:
        UserError: `leakage.training_image`, `leakage.synthetic_image`, `leakage.lesion`.
    """
    held_out = read_rows(path, split, ["image_id", "lesion_id", "pixel_sha256"])
    for other in others:
        rows = read_rows(other, "train", ["source", "lesion_id", "pixel_sha256"])
        for kind, of_kind in (("synthetic", rows[rows["source"] != REAL]), ("training", rows[rows["source"] == REAL])):
            shared = held_out.loc[held_out["pixel_sha256"].isin(of_kind["pixel_sha256"]), "image_id"].tolist()
            if shared:
                raise UserError(
                    f"{path}: {split} contains {kind} images ({len(shared):,}): {_list_some(shared)}",
                    "re-create the split with prepare_data",
                    f"leakage.{kind}_image",
                    path=str(path),
                    count=len(shared),
                )
        lesions = sorted(set(held_out["lesion_id"].dropna()) & set(rows["lesion_id"].dropna()))
        if lesions:
            raise UserError(
                f"{path}: {split} contains lesions of the training set ({len(lesions):,}): {_list_some(lesions)}",
                "re-create the split with prepare_data",
                "leakage.lesion",
                path=str(path),
                count=len(lesions),
            )


def iter_tables(path: str | Path, *classes: str) -> Iterator[pa.Table]:
    """Yield the row groups of an image set, limited to the rows of `classes` if any are given."""
    with pq.ParquetFile(path) as file:
        column = file.schema_arrow.names.index("dx") + 1  # `image` is two columns on disk
        for group in range(file.num_row_groups):
            extent = file.metadata.row_group(group).column(column).statistics
            if classes and extent is not None and not any(extent.min <= dx <= extent.max for dx in classes):
                continue
            table = file.read_row_group(group)
            if classes:
                table = table.filter(pc.is_in(table.column("dx"), pa.array(classes)))
            if table.num_rows:
                yield table


@dataclass(frozen=True)
class Pixels:
    """The decoded images of a set, in a memory-mapped file, so that they need not fit in memory.

    Attributes:
        images: (N, H, W, 3) uint8 in [0, 255].
        labels: (N,) int64 index into the header's classes.
        repeat: (N,) int64, occurrences of each image in one pass of training.
        source: (N,) `real`, or the source of a synthetic image.
        pixel_sha256: (N,) hash of each image, verified.
        header: header of the set.
        metadata: the `METADATA` of each image, as read.
    """

    images: np.ndarray
    labels: np.ndarray
    repeat: np.ndarray
    source: np.ndarray
    pixel_sha256: np.ndarray
    header: Header
    metadata: pd.DataFrame

    @property
    def real(self) -> np.ndarray:
        """(N,) bool, False for a synthetic image."""
        return self.source == REAL


def seen_hashes(*sets: Pixels) -> list[str]:
    """Return 16 digits of each real image's hash, sorted, for the record of a model trained or selected on them."""
    return sorted({digest[:16] for pixels in sets for digest in pixels.pixel_sha256[pixels.real]})


def _reserve(path: Path) -> None:
    """Allocate the disk space of a sparse file.

    Otherwise, a write through the mapping to a full disk would kill the process (SIGBUS); this raises an OSError.
    """
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _decode_and_hash(png: bytes) -> tuple[np.ndarray, str]:
    pixels = decode_png(png)
    return pixels, pixel_sha256(pixels)


@contextmanager
def open_pixels(paths: str | Path | Sequence[str | Path], split: str, *classes: str) -> Iterator[Pixels]:
    """Decode image sets once, on all cores, so that an epoch does not decode files.

    Args:
        paths: one image set, or several of the same split and data, which become one in this order.
        split: the split that the caller intends to read.
        classes: only these; all if none is given.

    Raises:
        UserError: as in `read_rows`; the sets have different headers; or an image differs from the hash in its row.
    """
    files = [paths] if isinstance(paths, str | Path) else list(paths)
    header = read_header(files[0])
    tables = []
    for path in files:
        if read_header(path) != header:
            raise UserError(
                f"{path} was not made from the data and split of {files[0]}",
                "use image sets of one run",
                "image_set.mixed",
                path=str(path),
            )
        tables.append(read_rows(path, split, ["dx", "repeat", "source", "pixel_sha256", *METADATA]))
    rows = pd.concat(tables, ignore_index=True)
    if classes:
        rows = rows[rows["dx"].isin(classes)]
    size = header.image_size
    index = {name: label for label, name in enumerate(header.classes)}
    with tempfile.TemporaryDirectory(prefix="counterweight-") as scratch, ThreadPoolExecutor() as threads:
        shape = (len(rows), size, size, 3)
        images = np.lib.format.open_memmap(Path(scratch) / "pixels.npy", "w+", np.uint8, shape)
        _reserve(Path(scratch) / "pixels.npy")
        position, expected = 0, rows["pixel_sha256"].tolist()
        for path in files:
            for table in iter_tables(path, *classes):
                first = position
                png = pc.struct_field(table.column("image"), "bytes").to_pylist()
                for pixels, digest in threads.map(_decode_and_hash, png):
                    if digest != expected[position]:
                        name = table.column("image_id")[position - first].as_py()
                        raise UserError(
                            f"{path}: the pixels of {name} differ from the hash in its row",
                            "re-create the image set",
                            "image_set.pixel_mismatch",
                            path=str(path),
                            image=name,
                        )
                    images[position] = pixels
                    position += 1
        yield Pixels(
            images=images,
            labels=rows["dx"].map(index).to_numpy(np.int64),
            repeat=rows["repeat"].to_numpy(np.int64),
            source=rows["source"].to_numpy(),
            pixel_sha256=rows["pixel_sha256"].to_numpy(),
            header=header,
            metadata=rows[list(METADATA)].reset_index(drop=True),
        )
