"""Read the external set: images from elsewhere, on which all arms are evaluated as well.

They are compared with all images of the run, and those that show the same lesion or patient are refused or excluded.
"""

import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from PIL import Image

from components.prepare_data import layouts, leakage, sources
from components.prepare_data.decode_pool import Findings, decode, map_thumbnails
from components.prepare_data.layouts.tables import read_table
from components.prepare_data.near_duplicates import thumbnail
from components.prepare_data.prepare import (
    SPLIT_COLUMNS,
    describe_source,
    hash_tables,
    inspect_external,
    keep_rows_with_files,
    name_place,
    read_with_columns,
    refuse_unknown_classes,
    write_rows,
)
from components.shared.errors import UserError, printable
from components.shared.files import atomic_write
from components.shared.image_set import REAL, Header, decode_png, iter_tables
from components.shared.log import log_line
from components.shared.parameters import Options, check
from components.shared.stores.addresses import is_address

LABEL = "read_other_data"
_EXTERNAL = f"{LABEL} external"


def prepare_external(
    external: str,
    classes: Sequence[str],
    image_size: int,
    duplicates: str,
    max_bad_images: int,
    splits: str | Path,
    out: str | Path,
    columns: Sequence[str] = ("auto",),
    sets: Sequence[str | Path] = (),
) -> None:
    """Create the external image set of a run.

    Without the run's image sets, near-duplicates are detected by their perceptual hashes alone. These detect images
    that were re-encoded, scaled, brightened, flipped or rotated, but rarely cropped ones.

    Args:
        external: a source of images; its classes must be a subset of the run's.
        classes: the run's classes.
        image_size: the run's image size, in pixels.
        duplicates: `refuse` images of the run, or `move_to_train`: exclude their lesions.
        max_bad_images: maximum number of unusable images, which are listed and skipped.
        splits: the run's `splits.csv`.
        out: the image set to write.
        columns: values of the parameter `data_columns`; the first whose columns the external table has is used.
        sets: the run's image sets `train`, `validation` and `test`; empty for a finished run, which has none.

    Raises:
        UserError: the images are unusable, or belong to lesions of the run; then nothing is written.
    """
    check({"data_image_size": image_size, "data_duplicates": duplicates})
    check({"max_bad_images": max_bad_images}, Options)
    known = _read_splits(Path(splits))
    if is_address(external):  # a download may take an hour
        inspect_external(external, columns, sorted(classes), max_bad_images)
    log_line(_EXTERNAL, f"reading {printable(external)}")
    with (
        tempfile.TemporaryDirectory(prefix="counterweight-") as scratch,
        warnings.catch_warnings(),
        atomic_write(out) as part,
        _map_run(known, sets) as (known, known_thumbnails),
    ):
        warnings.simplefilter("ignore")  # Pillow warns about images that are rejected
        places = [Path(scratch) / name for name in ("data", "images")]
        for place in places:
            place.mkdir()
        folder, findings = sources.fetch(external, places[0]), Findings()
        with name_place(folder, external):
            dataset = read_with_columns(partial(layouts.read, folder, scratch=places[1], min_classes=1), columns)
        for line in describe_source("", dataset.source):
            log_line(_EXTERNAL, line)
        refuse_unknown_classes(dataset.table, classes)
        table = keep_rows_with_files(dataset, findings, max_bad_images).assign(split="external", source=REAL)
        findings.refuse_more_than(max_bad_images)
        with decode(table, dataset.files, image_size, findings, max_bad_images, _EXTERNAL) as decoded:
            new = leakage.external_only(
                decoded.rows,
                decoded.thumbnails,
                known,
                known_thumbnails,
                duplicates,
                compare_ids=dataset.source.unit != "image",
            )
            rows = decoded.rows[new]
            once = leakage.keep_one_lesion(rows)
            rows = rows[once]
            if rows.empty:
                raise UserError(
                    "no usable image remains in the external set", "add images of other lesions", "external.no_images"
                )
            header = Header(tuple(sorted(classes)), image_size, "external", *hash_tables(rows, rows))
            write_rows(part, header, decoded, rows)
    for name, reason in findings.skipped:
        log_line(_EXTERNAL, f"skipped {name}: {reason}")
    if not once.all():
        log_line(_EXTERNAL, f"excluded {(~once).sum():,} images: another lesion's has their pixels")
    log_line(_EXTERNAL, f"{len(rows):,} images of {rows['lesion_id'].nunique():,} lesions")


def _read_splits(path: Path) -> pd.DataFrame:
    """Return the rows of a run's `splits.csv`.

    Raises:
        UserError: `external.no_splits`, or as in `read_table`.
    """
    listed = read_table(path)
    table = pd.DataFrame({name: listed.column(name).series() for name in listed.header})
    if "patient_id" in table:
        table["patient_id"] = table["patient_id"].where(table["patient_id"] != "", None)
    if set(SPLIT_COLUMNS) - set(table) or not table["perceptual_hash"].str.fullmatch("[0-9a-f]{64}").all():
        raise UserError(
            f"{path} does not list the images of a run",
            "use the splits.csv of a finished run",
            "external.no_splits",
            path=str(path),
        )
    return table


@contextmanager
def _map_run(known: pd.DataFrame, sets: Sequence[str | Path]) -> Iterator[tuple[pd.DataFrame, np.ndarray | None]]:
    """Yield the run's images with the column file, and (F, 32, 32) uint8 with the thumbnail of each file.

    Without image sets, yield the table unchanged, and no thumbnails.
    """
    if not sets:
        yield known, None
        return
    with tempfile.TemporaryFile(prefix="counterweight-") as mapped:
        row_of: dict[str, int] = {}
        for path in sets:
            for table, thumbnails in iter_thumbnails(path):
                for digest, pixels in zip(table.column("pixel_sha256").to_pylist(), thumbnails, strict=True):
                    if digest not in row_of:
                        row_of[digest] = len(row_of)
                        mapped.write(pixels)
        # An image that the split excludes has the pixels of one in a set.
        files = known["pixel_sha256"].map(row_of).astype(np.int64)
        yield known.assign(file=files), map_thumbnails(mapped, len(row_of))


def iter_thumbnails(path: str | Path) -> Iterator[tuple[pa.Table, list[bytes]]]:
    """Yield the row groups of an image set, each with the thumbnails of its images; see `near_duplicates.thumbnail`."""
    for table in iter_tables(path):
        images = table.column("image").to_pylist()
        yield table, [thumbnail(Image.fromarray(decode_png(image["bytes"]))) for image in images]
