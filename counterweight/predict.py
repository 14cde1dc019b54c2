"""Score new images, which need no labels, with the models of a published run.

Images are read in chunks, each of which is saved: memory does not grow with their pixels, and a command that was killed
resumes from the last chunk with the same result. Names and sizes of all images are in memory. The results of a run in
object storage need OUT.
"""

import hashlib
import itertools
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from components.prepare_data import layouts, sources
from components.prepare_data.decode_pool import Findings, open_pool, read_in_order
from components.prepare_data.image_reader import RawImage
from components.prepare_data.layouts.checks import FORMULA_STARTS
from components.prepare_data.layouts.inventory import take_inventory
from components.prepare_data.layouts.patients import read_patients
from components.shared.data_identity import data_identity
from components.shared.errors import UserError, printable
from components.shared.files import TEMPORARY_PREFIX, atomic_write, atomic_writes, file_sha256, write_text
from components.shared.image_set import METADATA, decode_png
from components.shared.log import Progress, log_line
from components.shared.patient_metadata import encode, encode_missing, table_of
from counterweight.keras_start import start_keras
from counterweight.output_lock import lock_output
from counterweight.run import check_writable
from counterweight.run_options import choose_output, read_number, read_options

OPTIONS = ("RUN", "DATA", "ARM", "OUT", "max_bad_images")
CHUNK_BYTES = 128 * 2**20
"""Maximum size of the decoded images of a chunk."""
CHUNK_IMAGES = 1_024
FORMAT = 1
"""Changes when the content of a saved chunk changes."""
WORK = f"{TEMPORARY_PREFIX}predict"
"""Folder of the saved chunks, in that of the results."""


@dataclass(frozen=True)
class Images:
    """The images to score, in their order.

    Attributes:
        names: path below the folder, or id within a file of many images.
        files: the images.
        metadata: age, sex and localization of each, as far as a table beside the images has them.
    """

    names: list[str]
    files: list[RawImage]
    metadata: pd.DataFrame


def list_images(data: str, scratch: Path, with_metadata: bool = False) -> Images:
    """List the images of a source, without opening them.

    Args:
        data: a folder, or what `prepare_data.sources` accepts.
        scratch: an empty folder for downloads.
        with_metadata: whether to read the metadata; otherwise, all are missing.

    Raises:
        UserError: no image exists, or the source or a table with metadata cannot be read.
    """
    for name in ("data", "images"):
        (scratch / name).mkdir()
    folder = sources.fetch(data, scratch / "data")
    inventory = take_inventory(folder)
    if inventory.masks:
        log_line("predict", f"not read, because they seem to be masks of other images: {len(inventory.masks):,}")
    if inventory.images:
        patients = read_patients(inventory) if with_metadata else {}
        metadata = table_of([patients.get(path, {}) for path in inventory.images])
        files: list[RawImage] = [Path(path) for path in inventory.images]
        return Images([_cell(inventory.name(path)) for path in inventory.images], files, metadata)
    if inventory.parquet or inventory.arrays:
        dataset = layouts.read(folder, scratch=scratch / "images", min_classes=1)
        names = [name for name in dataset.table["image_id"] if name in dataset.files]
        if names:
            metadata = dataset.table.set_index("image_id").loc[names, list(METADATA)]
            return Images([printable(name) for name in names], [dataset.files[name] for name in names], metadata)
    raise UserError(
        f"{printable(data)} has no images",
        "give a folder with JPEG, PNG, BMP, TIFF, WebP or GIF files; unpack packed files first",
        "predict.no_images",
        data=data,
    )


def _cell(path: str) -> str:
    """Return a path or an id that spreadsheets do not take for a formula, which can send data away."""
    return f"./{path}" if path.startswith(FORMULA_STARTS) else path


def _columns(classes: Sequence[str]) -> pa.Schema:
    return pa.schema(
        [
            ("image", pa.string()),
            *((f"p_{dx}", pa.float32()) for dx in classes),
            ("predicted", pa.string()),
            ("positive", pa.bool_()),  # null without positive classes
            ("unlike", pa.bool_()),
            ("distance", pa.float32()),  # to the nearest training image; the limit of `unlike` is 1
            ("nearest", pa.string()),
            ("seen", pa.bool_()),  # a model was trained or selected on the image
        ]
    )


class Scorer:
    """Scores a chunk of images with an arm.

    Args:
        arm: a `published.Arm`.
        training: a `reference.TrainingImages`.
    """

    def __init__(self, arm: Any, training: Any) -> None:
        self.arm, self.training, self.schema = arm, training, _columns(arm.classes)

    def __call__(
        self, names: Sequence[str], images: np.ndarray, hashes: Sequence[str], metadata: pd.DataFrame
    ) -> pa.Table:
        """Return a row for each image.

        Args:
            names: names of the N images.
            images: (N, S, S, 3) uint8.
            hashes: their pixel hashes.
            metadata: their age, sex and localization.
        """
        arm = self.arm
        probabilities = arm.predict(images, metadata)
        nearest, distances = self.training.compare(images)
        positive = [None] * len(names) if arm.threshold is None else arm.positive_score(probabilities) > arm.threshold
        columns = {
            "image": list(names),
            **{f"p_{dx}": column for dx, column in zip(arm.classes, probabilities.T, strict=True)},
            "predicted": [arm.classes[label] for label in probabilities.argmax(1)],
            "positive": positive,
            "unlike": distances > 1,
            "distance": distances,
            "nearest": [_cell(printable(self.training.names[row])) for row in nearest],
            "seen": [digest[:16] in arm.seen for digest in hashes],
        }
        arrays = [pa.array(columns[field.name], from_pandas=True).cast(field.type) for field in self.schema]
        return pa.Table.from_arrays(arrays, schema=self.schema)


def chunk_images(image_size: int) -> int:
    """Return the number of images in a chunk."""
    return max(32, min(CHUNK_IMAGES, CHUNK_BYTES // (3 * image_size**2)))


def score(
    images: Images, score_chunk: Scorer, image_size: int, findings: Findings, max_bad_images: int, work: Path
) -> int:
    """Score all images, and save each chunk in `work`; chunks that exist there are not computed again.

    Args:
        images: the images.
        score_chunk: returns the rows of a chunk.
        image_size: height and width to scale to, in pixels.
        findings: its `skipped` is extended by the unusable images.
        max_bad_images: maximum number of them.
        work: an existing folder, of the same images and models.

    Returns:
        The number of chunks.

    Raises:
        UserError: too many images are unusable.
    """
    size, total = chunk_images(image_size), len(images.names)
    chunks = -(-total // size)
    finished = 0
    while finished < chunks and (work / f"{finished}.json").exists():
        findings.skipped += map(tuple, json.loads((work / f"{finished}.json").read_text(encoding="utf-8")))
        finished += 1
    if finished:
        log_line("predict", f"resuming after {min(total, finished * size):,} images")
    findings.refuse_more_than(max_bad_images)
    progress = Progress("predict", total, "images", before=min(total, finished * size))
    with open_pool() as pool:
        results = read_in_order(pool, images.files[finished * size :], image_size)
        for number in range(finished, chunks):
            names = images.names[number * size : (number + 1) * size]
            read = list(zip(names, itertools.islice(results, len(names)), strict=True))
            skipped = [(name, result) for name, result in read if isinstance(result, str)]
            findings.skipped += skipped
            findings.refuse_more_than(max_bad_images)
            usable = [(name, result) for name, result in read if not isinstance(result, str)]
            is_usable = [not isinstance(result, str) for _, result in read]
            if usable:
                pixels = np.stack([decode_png(result.png) for _, result in usable])
                hashes = [result.pixel_sha256 for _, result in usable]
                metadata = images.metadata.iloc[number * size : (number + 1) * size][is_usable]
                with atomic_write(work / f"{number}.parquet") as part:
                    pq.write_table(score_chunk([name for name, _ in usable], pixels, hashes, metadata), part)
            write_text(work / f"{number}.json", json.dumps(skipped))  # written last: the chunk is finished
            progress.update(min(total, (number + 1) * size))
    return chunks


def _saved(work: Path, chunks: int) -> Iterator[pa.Table]:
    for number in range(chunks):
        if (work / f"{number}.parquet").exists():
            yield pq.read_table(work / f"{number}.parquet")


def write_predictions(folder: Path, work: Path, chunks: int, findings: Findings, details: Mapping[str, Any]) -> Any:
    """Join the saved chunks to `predictions.csv` and `predictions.parquet`, and write the other files.

    Returns:
        Number of images by class, and the number of those unlike the training images.
    """
    names = ("predictions.csv", "predictions.parquet", "skipped.csv", "predictions.json")
    counts: Counter[str] = Counter()
    unlike = 0
    with atomic_writes(*(folder / name for name in names)) as (table_part, parquet_part, skipped_part, details_part):
        writer = None
        with table_part.open("w", encoding="utf-8", newline="") as file:
            for table in _saved(work, chunks):
                first = writer is None
                writer = writer or pq.ParquetWriter(parquet_part, table.schema)
                writer.write_table(table)
                frame = table.to_pandas()
                frame.to_csv(file, index=False, header=first, float_format="%.6g", lineterminator="\n")
                counts.update(frame["predicted"].tolist())
                unlike += int(frame["unlike"].sum())
        if writer is not None:
            writer.close()
        skipped = pd.DataFrame(findings.skipped, columns=pd.Index(["image", "reason"]))
        skipped.to_csv(skipped_part, index=False, lineterminator="\n")
        summary = {"images": counts.total(), "predicted": dict(sorted(counts.items())), "unlike": unlike}
        text = json.dumps({**details, **summary, "skipped": len(findings.skipped)}, indent=1, allow_nan=False)
        details_part.write_text(text, encoding="utf-8")
    return counts, unlike


@contextmanager
def _work_folder(folder: Path, key: str) -> Iterator[Path]:
    """Yield the folder of saved chunks; those of other images, models or versions are deleted.

    Afterwards the folder remains only if a later command can resume from it.
    """
    work, name = folder / WORK, folder / WORK / "key"
    if not name.is_file() or name.read_text(encoding="utf-8") != key:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        write_text(name, key)
    try:
        yield work
    finally:
        if not any(work.glob("*.parquet")):
            shutil.rmtree(work, ignore_errors=True)


def run(words: list[str], out: TextIO) -> None:
    """Run the command; `out` receives its last lines."""
    options = read_options(words, OPTIONS, DATA="give a folder or address of images")
    max_bad_images, folder = read_number(options, "max_bad_images", 10), choose_output(options, "predictions")
    check_writable(folder, "OUT")
    start_keras()
    from components.evaluate.predict.published import load_training_images
    from components.shared import keras_setup
    from counterweight import published, reevaluate

    data = options["DATA"]
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="counterweight-")))
        opened = reevaluate.open_published(options["RUN"], scratch / "run")
        name = published.choose_arm(opened, options["ARM"])
        training, arm = load_training_images(opened), published.load_arm(opened, name)
        (scratch / "source").mkdir()
        identity = data_identity(data)
        images = list_images(data, scratch / "source", arm.encoding is not None)
        log_line("predict", f"images: {len(images.names):,}; arm: {name}; models: {len(arm.models)}")
        if arm.encoding is not None:
            missing = encode_missing(arm.encoding, 1)
            known = (encode(arm.encoding, images.metadata) != missing).any(axis=1).sum()
            log_line("predict", f"images with age, sex or site: {known:,}; those of the others count as missing")
        stack.enter_context(lock_output(folder))
        details = {"data": printable(data), **published.describe(opened, arm), "limit": training.limit}
        used = [
            file_sha256(opened.file(file)) for file in ("predictions.parquet", "reference.json", "reference.parquet")
        ]
        versions = keras_setup.library_versions()
        key = hashlib.sha256(
            json.dumps([FORMAT, identity, details, used, arm.model_sha256, versions]).encode()
        ).hexdigest()
        work, findings = stack.enter_context(_work_folder(folder, key)), Findings()
        chunks = score(images, Scorer(arm, training), arm.image_size, findings, max_bad_images, work)
        _refuse_unusable(data, images, findings)
        if data_identity(data) != identity:
            raise UserError(
                "the data changed while it was read",
                "rerun the command when nothing writes to the data",
                "input.changed",
                data=data,
            )
        counts, unlike = write_predictions(folder, work, chunks, findings, details)
        shutil.rmtree(work, ignore_errors=True)
    for image, reason in findings.skipped:
        log_line("predict", f"skipped {image}: {reason}")
    listed = ", ".join(f"{dx} {count:,}" for dx, count in counts.most_common())
    log_line("predict", f"predicted {listed}; unlike the training images: {unlike:,}")
    print(f"{published.NOTICE}\npredictions: {os.path.relpath(folder / 'predictions.csv')}", file=out)


def _refuse_unusable(data: str, images: Images, findings: Findings) -> None:
    """Raise if no image is usable."""
    if len(findings.skipped) == len(images.names):
        first, reason = findings.skipped[0]
        raise UserError(
            f"no image of {printable(data)} is usable ({first}: {reason})",
            "give images that can be opened",
            "predict.none_usable",
            data=data,
        )
