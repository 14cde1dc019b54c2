"""Phase 1: turn raw data into a lesion-disjoint split of validated and resized images.

It reads a source (see `sources`) and writes one image set per split, one for the external source, the split as a CSV
and a data profile. The image codecs dominate the time: 8,499 images of 200×150 px take about 6 s on two cores. Each
image needs 1 kB of memory; its pixels wait in a scratch file until all images have been compared.
"""

import hashlib
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import pandas as pd

from components.prepare_data import image_reader, leakage, metadata, profile, scan, sources
from components.prepare_data import split as splitting
from components.prepare_data.decode_pool import Decoded, Findings, decode
from components.shared.data_identity import check_unchanged
from components.shared.errors import UserError, printable
from components.shared.files import atomic_folder, atomic_write, atomic_writes
from components.shared.image_set import REAL, ROW_GROUP, Header, ImageSetWriter
from components.shared.log import log_line
from components.shared.records import DataClasses, write_record

NO_EXTERNAL = "none"
SPLIT_COLUMNS = ["image_id", "lesion_id", "dx", "split", "pixel_sha256", "perceptual_hash"]


def rare_classes(table: pd.DataFrame, selection: str) -> list[str]:
    """Return the classes to rebalance, sorted.

    Args:
        table: dx of each image.
        selection: `auto` for all but the largest class, or comma-separated names.

    Raises:
        UserError: a class is unknown, or the selection is empty.
    """
    counts = table["dx"].value_counts()
    if selection.strip() == "auto":
        return sorted(set(counts.index) - {counts.index[0]})
    names = sorted({name.strip() for name in selection.split(",") if name.strip()})
    unknown = [name for name in names if name not in counts.index]
    if unknown:
        raise UserError(
            f"synthetic_classes lists {', '.join(unknown)}, which the data does not have",
            f"choose from {', '.join(sorted(counts.index))}, or auto",
            "parameter.unknown_class",
            name="synthetic_classes",
            classes=unknown,
        )
    if not names:
        raise UserError(
            "synthetic_classes is empty",
            "list at least one class, or use auto",
            "parameter.empty",
            name="synthetic_classes",
        )
    return names


def _explain_missing(folder: Path) -> str:
    """Return why image files may be missing; mention a folder that was not entered."""
    closed = scan.scan(folder).closed
    if not closed:
        return "no image file"
    return f"no image file; {printable(closed[0].name)} is a link or unreadable, and was not entered"


def _check(image_size: int, max_bad_images: int, duplicates: str) -> None:
    if image_size % 16 or not 32 <= image_size <= 512:
        raise UserError(
            f"data_image_size is {image_size}",
            "choose a multiple of 16 from 32 to 512",
            "parameter.out_of_range",
            name="data_image_size",
        )
    if max_bad_images < 0:
        raise UserError(
            f"max_bad_images is {max_bad_images}", "choose 0 or more", "parameter.out_of_range", name="max_bad_images"
        )
    if duplicates not in leakage.POLICIES:
        raise UserError(
            f"data_duplicates is {duplicates!r}",
            f"choose from {', '.join(leakage.POLICIES)}",
            "parameter.unknown_choice",
            name="data_duplicates",
        )


def _skip(table: pd.DataFrame, rows: pd.Series, reason: str, findings: Findings) -> pd.DataFrame:
    """Return the table without some rows, and list them in `findings`."""
    findings.skipped += [(name, reason) for name in table.loc[rows, "image_id"]]
    return table[~rows]


def _keep_rows_with_files(
    folder: Path, table: pd.DataFrame, findings: Findings
) -> tuple[pd.DataFrame, dict[str, Path]]:
    """Return the rows that have an image file, and the files."""
    files = image_reader.index(folder)
    findings.without_row = len(set(files) - set(table["image_id"]))
    # Not by `isin`: a file name may contain bytes that are not valid text, which pandas rejects.
    missing = ~table["image_id"].map(lambda name: name in files).astype(bool)
    return _skip(table, missing, _explain_missing(folder) if missing.any() else "", findings), files


def write_rows(part: Path, header: Header, decoded: Decoded, rows: pd.DataFrame) -> None:
    """Write some of the decoded images as an image set, sorted by class."""
    with closing(ImageSetWriter(part, header)) as out:
        for _, of_class in rows.groupby("dx"):
            for start in range(0, len(of_class), ROW_GROUP):
                some = of_class.iloc[start : start + ROW_GROUP]
                out.write(some, decoded.png(some.index))


def _header(classes: Sequence[str], image_size: int, rows: pd.DataFrame, split: str) -> Header:
    return Header(
        classes=tuple(classes),
        image_size=image_size,
        split=split,
        data_sha256=_hash(rows, ["image_id", "lesion_id", "dx", "pixel_sha256"]),
        split_sha256=_hash(rows, ["image_id", "split"]),
    )


def _external(
    part: Path,
    external: str,
    classes: Sequence[str],
    image_size: int,
    duplicates: str,
    max_bad_images: int,
    known: pd.DataFrame,
    known_thumbnails: np.ndarray | None,
) -> pd.DataFrame:
    """Write the image set of an external source, without images of the run, and return its rows."""
    log_line("prepare_data", f"reading {printable(external)}, the external set")
    with tempfile.TemporaryDirectory(prefix="counterweight-") as scratch:
        folder, findings = sources.fetch(external, Path(scratch)), Findings()
        table = metadata.read(folder, min_classes=1).assign(split="external", source=REAL)
        unknown = sorted(set(table["dx"]) - set(classes))
        if unknown:
            raise UserError(
                f"the external set has the class {unknown[0]}, which the data does not have",
                f"remove it, or rename it to one of {', '.join(classes)}",
                "external.unknown_class",
                dx=unknown[0],
            )
        table, files = _keep_rows_with_files(folder, table, findings)
        findings.refuse_more_than(max_bad_images)
        with decode(table, files, image_size, findings, max_bad_images, "prepare_data external") as decoded:
            rows = decoded.rows[
                leakage.external_only(decoded.rows, decoded.thumbnails, known, known_thumbnails, duplicates)
            ]
            once = leakage.keep_one_lesion(rows)
            rows = rows[once]
            if rows.empty:
                raise UserError(
                    "no usable image remains in the external set", "add images of other lesions", "external.no_images"
                )
            write_rows(part, _header(classes, image_size, rows, "external"), decoded, rows)
    for name, reason in findings.skipped:
        log_line("prepare_data", f"skipped {name} of the external set: {reason}")
    if not once.all():
        log_line(
            "prepare_data", f"excluded {(~once).sum():,} images of the external set: another lesion's has their pixels"
        )
    log_line("prepare_data", f"external set: {len(rows):,} images of {rows['lesion_id'].nunique():,} lesions")
    return rows


def prepare_external(
    external: str,
    classes: Sequence[str],
    image_size: int,
    duplicates: str,
    max_bad_images: int,
    known: str | Path,
    out: str | Path,
) -> None:
    """Create the external image set for a finished run.

    The run's pixels no longer exist, so near-duplicates are detected by their perceptual hash alone. It detects images
    that were re-encoded, scaled, brightened, flipped or rotated, but rarely cropped ones.

    Args:
        external: a source of images; its classes must be a subset of the run's.
        classes: the run's classes.
        image_size: the run's image size, in pixels.
        duplicates: `refuse` images of the run, or `move_to_train`: exclude their lesions.
        max_bad_images: maximum number of unusable images, which are listed and skipped.
        known: the run's `splits.csv`.
        out: the image set to write.

    Raises:
        UserError: the images are unusable, or belong to lesions of the run; then nothing is written.
    """
    _check(image_size, max_bad_images, duplicates)
    path = Path(known)
    header, lines, _ = metadata.csv_rows(path)
    table = pd.DataFrame(lines, columns=pd.Index(header), dtype=str)
    if set(SPLIT_COLUMNS) - set(table) or not table["perceptual_hash"].str.fullmatch("[0-9a-f]{64}").all():
        raise UserError(
            f"{path} does not list the images of a run",
            "use the splits.csv of a finished run",
            "external.no_splits",
            path=str(path),
        )
    with warnings.catch_warnings(), atomic_write(out) as part:
        warnings.simplefilter("ignore")
        _external(part, external, sorted(classes), image_size, duplicates, max_bad_images, table, None)


def prepare(
    data: str,
    split: str,
    external: str,
    duplicates: str,
    image_size: int,
    rare: str,
    max_bad_images: int,
    seed: int,
    training_data: str | Path,
    test_data: str | Path,
    data_profile: str | Path,
    data_identity: str = "",
) -> list[str]:
    """Check, resize and split the images of a source.

    Args:
        data: `demo`, `kaggle`, an address of object storage, or a folder.
        split: `random`, `k/n` for fold k of n, or a CSV file, also in object storage, with image_id and split.
        external: `none`, or a source of images from elsewhere; its classes must be a subset of the data's.
        duplicates: `refuse` lesions and near-duplicates in two splits, or `move_to_train`: move their lesions to train.
        image_size: height and width to scale to, in pixels; a multiple of 16 from 32 to 512.
        rare: `auto` (all classes but the largest) or comma-separated class names.
        max_bad_images: maximum number of unusable images, which are listed and skipped; the same for the external set.
        seed: seed of the split.
        training_data: folder to write: `train.parquet`, `validation.parquet` and `classes.json`.
        test_data: folder to write: `test.parquet`, `external.parquet` (without rows if there is no external set) and
            `splits.csv`, which can be used as `split` of another run. There, an image that also exists under another
            lesion id is excluded (`none`).
        data_profile: the HTML page to write.
        data_identity: the inputs' identity before they are read; see `shared.data_identity`. Empty for no check.

    Returns:
        The rare classes, sorted.

    Raises:
        UserError: the data or a parameter is invalid, or images that must stay together are in different splits,
            or the inputs changed while they were read. Nothing is written then.
        OSError: the disk is full or a folder is not writable. Nothing is written then either.
    """
    _check(image_size, max_bad_images, duplicates)
    if seed < 0:
        raise UserError(f"random_seed is {seed}", "choose 0 or more", "parameter.out_of_range", name="random_seed")
    log_line("prepare_data", f"reading {printable(data)}")
    with tempfile.TemporaryDirectory(prefix="counterweight-") as folder_name, ExitStack() as stack:
        scratch = Path(folder_name)
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # Pillow warns about images that are rejected below
        (scratch / "data").mkdir()
        folder, findings = sources.fetch(data, scratch / "data"), Findings()
        table = metadata.read(folder)
        rare_names, classes = rare_classes(table, rare), sorted(table["dx"].unique())
        table, files = _keep_rows_with_files(folder, table, findings)
        table = table.assign(split=splitting.assign(table, split, seed, scratch), source=REAL)
        unnamed = table["split"].isna()
        table = _skip(table, unnamed, "not in the split file; list it, with split none to exclude it", findings)
        findings.refuse_more_than(max_bad_images)
        findings.unused = int((table["split"] == splitting.UNUSED).sum())
        table = table[table["split"] != splitting.UNUSED]

        # All outputs are renamed together at the end.
        training_part, test_part = (stack.enter_context(atomic_folder(folder)) for folder in (training_data, test_data))
        (page,) = stack.enter_context(atomic_writes(data_profile))
        sets = (training_part / "train.parquet", training_part / "validation.parquet", test_part / "test.parquet")
        outside_part, splits_part = test_part / "external.parquet", test_part / "splits.csv"
        write_record(training_part / "classes.json", DataClasses(rare=rare_names))
        decoded = stack.enter_context(decode(table, files, image_size, findings, max_bad_images, "prepare_data"))
        used, findings.moved = leakage.resolve(decoded.rows, decoded.thumbnails, duplicates)
        listed = used.assign(split=used["split"].where(leakage.keep_one_lesion(used), splitting.UNUSED))
        used = listed[listed["split"] != splitting.UNUSED]
        findings.excluded = len(listed) - len(used)
        findings.repeated = int((decoded.rows.groupby("pixel_sha256")["lesion_id"].transform("nunique") > 1).sum())
        for dx in classes:
            for name in splitting.SHARES:
                if not ((used["dx"] == dx) & (used["split"] == name)).any():
                    raise UserError(
                        f"no usable image of the class {dx} remains in {name}",
                        "fix the skipped images, add lesions, or remove the class",
                        "split.empty_class",
                        dx=dx,
                        split=name,
                    )
        outside = used.iloc[:0].assign(split="external")
        if external.strip() == NO_EXTERNAL:
            write_rows(outside_part, _header(classes, image_size, outside, "external"), decoded, outside)
        else:
            outside = _external(
                outside_part, external, classes, image_size, duplicates, max_bad_images, listed, decoded.thumbnails
            )
        for name, part in zip(splitting.SHARES, sets, strict=True):
            write_rows(part, _header(classes, image_size, used, name), decoded, used[used["split"] == name])
        listed[SPLIT_COLUMNS].to_csv(splits_part, index=False, lineterminator="\n")
        for dx, rows in used[used["split"] == "train"].groupby("dx"):
            findings.samples[str(dx)] = decoded.png(rows.index[:6])
        if data_identity:
            check_unchanged(data_identity, data, split, external)
        header = _header(classes, image_size, used, "")
        text = profile.render(printable(data), printable(split), used, header, rare_names, findings, outside)
        page.write_text(text, encoding="utf-8")
    for name, reason in findings.skipped:
        log_line("prepare_data", f"skipped {name}: {reason}")
    if findings.repeated:
        log_line(
            "prepare_data",
            f"{findings.repeated:,} images are pixel-identical to another lesion's image in the same split; check "
            f"their lesion_id; {findings.excluded:,} of them are excluded from validation and test",
        )
    if findings.unused:
        log_line("prepare_data", f"{findings.unused:,} images are excluded by the split")
    if len(findings.moved):
        lesions = findings.moved["lesion_id"].nunique()
        log_line("prepare_data", f"{len(findings.moved):,} images of {lesions:,} lesions were moved to train")
    counts = ", ".join(f"{name} {n:,}" for name, n in used["split"].value_counts().items())
    log_line("prepare_data", f"{len(used):,} images ({counts}); to rebalance: {', '.join(rare_names)}")
    return rare_names


def _hash(table: pd.DataFrame, columns: list[str]) -> str:
    """Return the SHA-256 of some columns; the order of the rows does not matter."""
    rows = table.sort_values("image_id")[columns].to_csv(index=False, lineterminator="\n")
    return hashlib.sha256(rows.encode()).hexdigest()
