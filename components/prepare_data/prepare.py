"""Phase 1: turn raw data into a lesion-disjoint split of validated and resized images.

It reads a source (see `sources`) and writes one image set per split, the split as a CSV and a data profile. The image
codecs dominate the time: 8,499 images of 200×150 px take about 6 s on two cores. Time and memory grow with the number
of images, the latter by .26 kB of metadata for each (`python -m benchmarks.scale`); pixels wait in a scratch file until
all images have been compared.
"""

import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa

from components.prepare_data import layouts, leakage, profile, sources
from components.prepare_data import split as splitting
from components.prepare_data.decode_pool import NOT_LISTED, Decoded, Findings, decode
from components.prepare_data.layouts.dataset import Dataset
from components.prepare_data.layouts.tables import join_some
from components.prepare_data.sources import bucket, demo
from components.prepare_data.texts import have_several, iterate, release_memory
from components.shared import patient_metadata
from components.shared.arms import GAN, Scope
from components.shared.data_identity import check_unchanged
from components.shared.errors import UserError, printable
from components.shared.files import atomic_folder, atomic_writes
from components.shared.image_set import REAL, ROW_GROUP, Header, ImageSetWriter, hash_rows
from components.shared.log import log_line
from components.shared.parameters import Options, check, positive_classes, synthetic_sources, takes_metadata
from components.shared.records import DataClasses, DataSource, write_record
from components.shared.stores.addresses import is_address

D = TypeVar("D")
NO_EXTERNAL = "none"
HASHES = ["pixel_sha256", "perceptual_hash"]
LISTED = ("storage.empty", "storage.bad_name")
"""Errors of a listing that was received: there is access from here."""
SPLIT_COLUMNS = ["image_id", "lesion_id", "dx", "split", *HASHES]


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


def check_listing(values: Mapping[str, Any], max_bad_images: int, metadata: str, scope: Scope = "rare") -> None:
    """Check what the listings of all images and their metadata reveal, without opening an image.

    Args:
        values: the parameters of a run; of data, data_external and synthetic, folders and addresses are checked.
        max_bad_images: maximum number of images without a file.
        metadata: the option of this name.
        scope: the option `synthetic_scope`.

    Raises:
        UserError: as in `prepare`, `takes_metadata` and `check_source_classes`, or a positive class is unknown.
    """
    with_metadata = takes_metadata(values, metadata)
    table = _inspect_data(
        values["data"],
        values["data_split"],
        values["data_columns"],
        values["synthetic_classes"],
        max_bad_images,
        values["data_duplicates"],
        values["random_seed"],
    )
    classes = None if table is None else sorted(table["dx"].unique())
    inspect_external(values["data_external"], (values["data_columns"], "auto"), classes, max_bad_images)
    _inspect_sources(values["synthetic"], table, values["synthetic_classes"], scope, max_bad_images)
    if table is not None:
        positive_classes(values["positive_classes"], sorted(table["dx"].unique()))
        if with_metadata and "age" in table:
            patient_metadata.require(table)


def check_listing_with_access(
    values: Mapping[str, Any], max_bad_images: int, metadata: str, scope: Scope = "rare"
) -> str | None:
    """Check as `check_listing`, where there is access to the places; prepare_data does most of it again.

    Returns:
        A warning if a store gives no access or does not respond, so that nothing is known of the data.

    Raises:
        UserError: as in `check_listing`, except for errors of a store that lists nothing.
    """
    try:
        check_listing(values, max_bad_images, metadata, scope)
    except UserError as error:
        if not error.code.startswith("storage.") or error.code in LISTED:
            raise
        return f"warning: the data was not checked from here: {error}"
    return None


def _inspect_data(
    data: str,
    split: str,
    columns: str,
    rare: str,
    max_bad_images: int,
    duplicates: str,
    seed: int,
) -> pd.DataFrame | None:
    """Check the listing and the metadata of the data, and the split.

    Returns:
        The rows of the data; of `demo` and `kaggle` only dx of each class. None if the classes cannot be known.

    Raises:
        UserError: as in `prepare`.
    """
    table: pd.DataFrame | None = None
    if data in ("demo", "kaggle"):
        table = pd.DataFrame({"dx": list(demo.COUNTS)})  # those of HAM10000
    with _open_listing(data) as folder:
        if folder is not None:
            dataset = layouts.inspect(folder, columns, ignore=split_file(split, data, folder))
            table = dataset.table
            _inspect_split(dataset, split, max_bad_images, duplicates, seed)
    if table is not None:
        rare_classes(table, rare)
    return table


def _inspect_split(dataset: Dataset, split: str, max_bad_images: int, duplicates: str, seed: int) -> None:
    """Assign the split without opening an image, and check it.

    Raises:
        UserError: as in `assign_splits`, `refuse_empty_classes` and `leakage.refuse_divided_groups`.
    """
    with tempfile.TemporaryDirectory(prefix="counterweight-") as scratch:
        rows = assign_splits(dataset, split, seed, Path(scratch), Findings(), max_bad_images)
    refuse_empty_classes(rows, sorted(dataset.table["dx"].unique()), dataset.source, split)
    leakage.refuse_divided_groups(rows, duplicates)


def inspect_external(external: str, columns: Sequence[str], classes: Sequence[str] | None, max_bad_images: int) -> None:
    """Check the listing and the metadata of an external set, against the classes of the data if they are known.

    Raises:
        UserError: as in `prepare`.
    """
    with _open_listing(external) as folder:
        if folder is not None:
            outside = read_with_columns(partial(layouts.inspect, folder, min_classes=1), columns)
            _refuse_missing(outside, max_bad_images)
            if classes is not None:
                refuse_unknown_classes(outside.table, classes)


def _inspect_sources(
    synthetic: str, table: pd.DataFrame | None, selection: str, scope: Scope, max_bad_images: int
) -> None:
    """Check the listings of the sources of synthetic images, against the classes of the data if they are known.

    Args:
        synthetic: the parameter of this name.
        table: dx of the images of the data; None if unknown.
        selection: the parameter `synthetic_classes`.
        scope: the option `synthetic_scope`.
        max_bad_images: maximum number of images without a file.

    Raises:
        UserError: as in `layouts.inspect` and `check_source_classes`.
    """
    for name, place in synthetic_sources(synthetic).items():
        with _open_listing(place) as folder:
            if folder is not None:
                dataset = layouts.inspect(folder, min_classes=1)
                _refuse_missing(dataset, max_bad_images)
                if table is not None:
                    classes = sorted(table["dx"].unique())
                    required = classes if scope == "all" else rare_classes(table, selection)
                    check_source_classes(name, set(dataset.table["dx"]), required, classes)


def check_source_classes(name: str, found: Set[str], required: Sequence[str], classes: Sequence[str]) -> None:
    """Check the classes of a source of synthetic images.

    Args:
        name: of the source.
        found: its classes.
        required: the classes that require images.
        classes: all classes of the data.

    Raises:
        UserError: `synthetic.unknown_class` or `synthetic.missing_class`.
    """
    if unknown := sorted(found - set(classes)):
        raise UserError(
            f"{name} has images of the class {unknown[0]}, which the data does not have",
            f"remove them, or rename the class to one of {', '.join(classes)}",
            "synthetic.unknown_class",
            name=name,
            dx=unknown[0],
        )
    if missing := [dx for dx in required if dx not in found]:
        raise UserError(
            f"{name} has no image of the class {', '.join(missing)}",
            "add images, or set synthetic_classes to the classes that have some",
            "synthetic.missing_class",
            name=name,
            classes=missing,
        )


@contextmanager
def _open_listing(place: str) -> Iterator[Path | None]:
    """Yield a folder with the names and tables of a place; None for a keyword, or if they do not reveal the classes.

    Raises:
        UserError: as in `bucket.copy_listing`; errors in the block name the place.
    """
    if place in ("demo", "kaggle", NO_EXTERNAL, GAN):
        yield None
    elif not is_address(place):
        yield Path(place) if "://" not in place else None
    else:
        with tempfile.TemporaryDirectory(prefix="counterweight-") as folder:
            copied = bucket.copy_listing(place, Path(folder))
            with name_place(folder, place):
                yield Path(folder) if copied else None


@contextmanager
def name_place(folder: str | Path, place: str) -> Iterator[None]:
    """Name an address instead of the folder that holds its copy in the errors of the block."""
    try:
        yield
    except UserError as error:
        if not is_address(place):
            raise
        fields = {
            name: value.replace(str(folder), place) if isinstance(value, str) else value
            for name, value in error.fields.items()
        }
        message, hint = (text.replace(str(folder), place) for text in (str(error), error.hint))
        raise UserError(message, hint, error.code, **fields) from error


def _refuse_missing(dataset: Dataset, max_bad_images: int) -> None:
    """Raise if more images have no file."""
    if len(dataset.table) - len(dataset.files) > max_bad_images and dataset.cause is not None:
        raise dataset.cause


def refuse_unknown_classes(external: pd.DataFrame, classes: Sequence[str]) -> None:
    """Raise if the external set has a class that the data does not have."""
    unknown = sorted(set(external["dx"]) - set(classes))
    if unknown:
        raise UserError(
            f"the external set has the class {unknown[0]}, which the data does not have",
            f"remove it, or rename it to one of {', '.join(classes)}",
            "external.unknown_class",
            dx=unknown[0],
        )


def split_file(split: str, data: str, folder: Path) -> Path | None:
    """Return the file of a given split, which may be in the data folder and is no metadata.

    Args:
        split: the parameter data_split.
        data: the parameter data.
        folder: where its files are on this machine.
    """
    prefix = data.rstrip("/") + "/"
    path = folder / split.removeprefix(prefix) if split.startswith(prefix) else Path(split)
    return path if path.suffix and path.is_file() else None


def complete_source(dataset: Dataset, split: str) -> DataSource:
    """Return the record of what was read, with a note on the split."""
    notes = list(dataset.source.notes)
    if dataset.source.own_split:
        used = split.strip() == "random"
        notes.append(
            "the data states a split, which is used; set data_split to a fold or a file for another one"
            if used
            else "the data states a split, which data_split replaces"
        )
    return dataset.source.model_copy(update={"notes": notes})


def _skip(table: pd.DataFrame, rows: pd.Series, reason: str, findings: Findings) -> pd.DataFrame:
    """Return the table without some rows, and list them in `findings`."""
    if not rows.any():
        return table  # a copy would double the memory
    findings.skipped += [(name, reason) for name in table.loc[rows, "image_id"]]
    return table[~rows]


def keep_rows_with_files(dataset: Dataset, findings: Findings, max_bad_images: int) -> pd.DataFrame:
    """Return the rows that have an image file.

    Raises:
        UserError: too many have none.
    """
    findings.without_row = dataset.unused
    missing = pd.Series(dataset.files.find(iterate(dataset.table["image_id"])) < 0, dataset.table.index)
    _refuse_missing(dataset, max_bad_images)
    return _skip(dataset.table, missing, "no image file", findings)


def assign_splits(
    dataset: Dataset, split: str, seed: int, scratch: Path, findings: Findings, max_bad_images: int
) -> pd.DataFrame:
    """Return the rows that have an image file and a split, before any image is opened.

    Args:
        dataset: the data set.
        split: the parameter `data_split`.
        seed: seed of the split.
        scratch: a folder for downloads.
        findings: receives what is skipped.
        max_bad_images: maximum number of images that are skipped.

    Raises:
        UserError: as in `keep_rows_with_files` and `split.assign`, or too many images are skipped.
    """
    table = keep_rows_with_files(dataset, findings, max_bad_images)
    table = table.assign(split=splitting.assign(table, split, seed, scratch, dataset.source.unit), source=REAL)
    unnamed = table["split"].isna()
    table = _skip(table, unnamed, NOT_LISTED, findings)
    findings.refuse_more_than(max_bad_images)
    unused = table["split"] == splitting.UNUSED
    findings.unused = int(unused.sum())
    return table[~unused] if findings.unused else table


def refuse_empty_classes(rows: pd.DataFrame, classes: Sequence[str], source: DataSource, split: str) -> None:
    """Raise if a class has no image in one of the splits.

    Args:
        rows: dx and split of the images that are used.
        classes: names.
        source: how the data was read, for the hint.
        split: the parameter `data_split`, for the hint.

    Raises:
        UserError: `split.empty_class`.
    """
    hint = f"fix the skipped images, add {source.unit}s, or remove the class"
    if source.own_split and split.strip() == "random":
        hint = "the split is that of the data: add images, or set data_split to a fold such as 1/5, or to a CSV"
    elif split.strip() != "random" and not splitting.FOLD.fullmatch(split):
        hint = (
            "assign images of each class to train, validation and test in the file of data_split, or set it to random"
        )
    for dx in classes:
        for name in splitting.SHARES:
            if not ((rows["dx"] == dx) & (rows["split"] == name)).any():
                raise UserError(
                    f"no usable image of the class {dx} remains in {name}",
                    hint,
                    "split.empty_class",
                    dx=dx,
                    split=name,
                )


def describe_source(name: str, source: DataSource) -> list[str]:
    """Return lines on how data was read.

    Args:
        name: starts each line: what the data is.
        source: the record.
    """
    lines = [f"layout: {source.layout}"]
    lines += [f"read {it.name}, {it.rows:,} rows, SHA-256 {it.sha256}" for it in source.metadata]
    if source.columns:
        named = [f"{name} from {column}" if column != name else name for name, column in source.columns.items()]
        lines.append(f"columns: {', '.join(named)}")
    if source.ignored:
        lines.append(f"ignored columns: {join_some(source.ignored, 20)}")
    if source.folders:
        lines.append("images: " + join_some([f"{name} {count:,}" for name, count in source.folders.items()], 20))
    return [printable(f"{name}{line}") for line in [*lines, *source.notes]]


def write_rows(
    part: Path, header: Header, decoded: Decoded, rows: pd.DataFrame, chosen: pd.Series | None = None
) -> None:
    """Write the decoded images of some rows, or of those that are `chosen`, as an image set, sorted by class."""
    at = np.arange(len(rows)) if chosen is None else np.flatnonzero(chosen)
    labels, classes = pd.factorize(rows["dx"].iloc[at], sort=True)
    with closing(ImageSetWriter(part, header)) as out:
        for label in range(len(classes)):
            of_class = at[labels == label]
            for start in range(0, len(of_class), ROW_GROUP):
                some = rows.iloc[of_class[start : start + ROW_GROUP]]
                # `astype` takes five times as long. Synthetic images have no perceptual hashes.
                found = [name for name in HASHES if isinstance(some[name].dtype, pd.CategoricalDtype)]
                hashes = {name: some[name].cat.categories.take(some[name].cat.codes.to_numpy()) for name in found}
                out.write(some.assign(**hashes), decoded.png(some.index))
        release_memory()  # the end of the file needs some


def hash_tables(rows: pd.DataFrame, used: pd.DataFrame) -> tuple[str, str]:
    """Return the hashes of all rows, and of the splits of those that are used, for the headers."""
    return hash_rows(rows, ["image_id", "lesion_id", "dx", "pixel_sha256"]), hash_rows(used, ["image_id", "split"])


def read_with_columns(read: Callable[[str], D], columns: Sequence[str]) -> D:
    """Read a set with the first of several values of `data_columns` whose columns it has, or the last."""
    *preferred, last = columns
    for some in preferred:
        try:
            return read(some)
        except UserError as error:
            if error.code not in ("metadata.unknown_column", "metadata.missing"):
                raise
    return read(last)


def prepare(
    data: str,
    split: str,
    duplicates: str,
    image_size: int,
    rare: str,
    max_bad_images: int,
    seed: int,
    training_data: str | Path,
    test_data: str | Path,
    data_profile: str | Path,
    data_identity: str = "",
    columns: str = "auto",
) -> list[str]:
    """Check, resize and split the images of a source.

    Args:
        data: `demo`, `kaggle`, an address of object storage, or a folder.
        split: `random`, `k/n` for fold k of n, or a CSV file, also in object storage, with image_id and split.
        duplicates: `refuse` lesions and near-duplicates in two splits, or `move_to_train`: move their lesions to train.
        image_size: height and width to scale to, in pixels; a multiple of 16 from 32 to 512.
        rare: `auto` (all classes but the largest) or comma-separated class names.
        max_bad_images: maximum number of unusable images, which are listed and skipped.
        seed: seed of the split.
        training_data: folder to write: `train.parquet`, `validation.parquet` and `classes.json`.
        test_data: folder to write: `test.parquet`, `data_source.json` (how the data was read) and `splits.csv`, which
            can be used as `split` of another run. There, an image that also exists under another lesion id is
            excluded (`none`). It has patient_id if the data does.
        data_profile: the HTML page to write.
        data_identity: the inputs' identity before they are read; see `shared.data_identity`. Empty for no check.
        columns: the parameter `data_columns`; see `layouts.read`.

    Returns:
        The rare classes, sorted.

    Raises:
        UserError: the data or a parameter is invalid, or images that must stay together are in different splits,
            or the inputs changed while they were read. Nothing is written then.
        OSError: the disk is full or a folder is not writable. Nothing is written then either.
    """
    check({"data_image_size": image_size, "data_duplicates": duplicates, "random_seed": seed})
    check({"max_bad_images": max_bad_images}, Options)
    log_line("prepare_data", f"reading {printable(data)}")
    pa.set_memory_pool(pa.system_memory_pool())  # Arrow's own keeps what was freed
    with tempfile.TemporaryDirectory(prefix="counterweight-") as folder_name, ExitStack() as stack:
        scratch = Path(folder_name)
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # Pillow warns about images that are rejected below
        for name in ("data", "images"):
            (scratch / name).mkdir()
        if is_address(data):  # a download may take an hour
            _inspect_data(data, split, columns, rare, max_bad_images, duplicates, seed)
        folder, findings = sources.fetch(data, scratch / "data"), Findings()
        ignore = split_file(split, data, folder)
        with name_place(folder, data):
            dataset = layouts.read(folder, columns, scratch=scratch / "images", ignore=ignore)
        rare_names, classes = rare_classes(dataset.table, rare), sorted(dataset.table["dx"].unique())
        source = complete_source(dataset, split)
        for line in describe_source("", source):
            log_line("prepare_data", line)
        table = assign_splits(dataset, split, seed, scratch, findings, max_bad_images)
        table["group_id"] = pd.factorize(table["group_id"])[0].astype(np.int32)  # they are only compared from here on
        table = table.astype({"split": splitting.SPLITS, "source": "category"})
        release_memory()

        # All outputs are renamed together at the end.
        training_part, test_part = (stack.enter_context(atomic_folder(folder)) for folder in (training_data, test_data))
        (page,) = stack.enter_context(atomic_writes(data_profile))
        sets = (training_part / "train.parquet", training_part / "validation.parquet", test_part / "test.parquet")
        write_record(training_part / "classes.json", DataClasses(rare=rare_names))
        write_record(test_part / "data_source.json", source)
        decoded = stack.enter_context(
            decode(table, dataset.files, image_size, findings, max_bad_images, "prepare_data")
        )
        del dataset, table
        release_memory()
        used, findings.moved = leakage.resolve(decoded.rows, decoded.thumbnails, duplicates)
        listed = used.assign(split=used["split"].where(leakage.keep_one_lesion(used), splitting.UNUSED))
        findings.excluded = int((listed["split"] == splitting.UNUSED).sum())
        used = listed[listed["split"] != splitting.UNUSED] if findings.excluded else listed
        pixels = decoded.rows["pixel_sha256"]
        findings.repeated = int(have_several(pixels, decoded.rows["lesion_id"]).sum())
        findings.contradictory = int(have_several(pixels, decoded.rows["dx"]).sum())
        refuse_empty_classes(used, classes, source, split)
        # The excluded images differ by fold, but all folds have the same data.
        header = Header(tuple(classes), image_size, "", *hash_tables(listed, used))
        for name, part in zip(splitting.SHARES, sets, strict=True):
            release_memory()
            write_rows(part, replace(header, split=name), decoded, used, used["split"] == name)
        release_memory()
        patients = ["patient_id"] if listed["patient_id"].notna().any() else []
        listed[[*SPLIT_COLUMNS, *patients]].to_csv(test_part / "splits.csv", index=False, lineterminator="\n")
        for dx, rows in used.loc[used["split"] == "train", "dx"].groupby(used["dx"]):
            findings.samples[str(dx)] = decoded.png(rows.index[:6])
        if data_identity:
            check_unchanged(data_identity, data, split)
        shown = used[["lesion_id", "dx", "split", "dx_type", "age", "sex", "localization"]]
        text = profile.render(printable(data), printable(split), shown, header, rare_names, findings, source)
        page.write_text(text, encoding="utf-8")
    for name, reason in findings.skipped:
        log_line("prepare_data", f"skipped {name}: {reason}")
    if findings.repeated:
        log_line(
            "prepare_data",
            f"{findings.repeated:,} images are pixel-identical to another lesion's image in the same split; check "
            f"their lesion_id; {findings.excluded:,} of them are excluded from validation and test",
        )
    if findings.contradictory:
        log_line(
            "prepare_data",
            f"{findings.contradictory:,} images are pixel-identical to an image of another class; check their labels",
        )
    if findings.unused:
        log_line("prepare_data", f"{findings.unused:,} images are excluded by the split")
    if len(findings.moved):
        lesions = findings.moved["lesion_id"].nunique()
        log_line("prepare_data", f"{len(findings.moved):,} images of {lesions:,} lesions were moved to train")
    counts = ", ".join(f"{name} {n:,}" for name, n in used["split"].value_counts().items() if n)
    log_line("prepare_data", f"{len(used):,} images ({counts}); to rebalance: {', '.join(rare_names)}")
    return rare_names
