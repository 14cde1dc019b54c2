"""Training images that new images are compared with: what a published run needs to name images unlike them.

`evaluate` writes them, and the limit: 99 % of the validation images are nearer to a training image. Features are those
of the run's feature extractor; see `components.shared.features`.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from components.evaluate.predict.neighbours import decode_table, find_nearest
from components.shared.errors import UserError
from components.shared.features import Features, load_features
from components.shared.files import atomic_write, file_sha256
from components.shared.image_set import iter_tables, read_header, read_rows, write_image_set
from components.shared.records import Reference, write_record

MAX_IMAGES = 20_000
"""Maximum number of training images that are stored; of more, as many of each class as possible."""
QUANTILE = 0.99
THUMBNAIL_PX = 64
EXAMPLES_PER_CLASS = 4
MAX_FEATURES = 4_096
MIN_LIMIT = 1e-9


def _encode_jpeg(pixels: np.ndarray) -> bytes:
    """Return an image, (H, W, 3) uint8, as a JPEG of at most `THUMBNAIL_PX` per side."""
    image = Image.fromarray(pixels)
    image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def choose_rows(labels: np.ndarray, maximum: int) -> np.ndarray:
    """Return (N,) bool, the rows to keep: all, or an equal number of each class, and more of those that have more.

    Args:
        labels: (N,) class of each row.
        maximum: maximum number of rows.
    """
    if len(labels) <= maximum:
        return np.ones(len(labels), bool)
    order, rank = np.random.default_rng(0).permutation(len(labels)), np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        of_class = order[labels[order] == label]
        rank[of_class] = np.arange(len(of_class))
    kept = np.zeros(len(labels), bool)
    kept[np.argsort(rank, kind="stable")[:maximum]] = True
    return kept


def _embed(extractor: Features, path: Path, split: str) -> np.ndarray:
    """Return (N, D) float64 features of an image set; one row group is decoded at a time."""
    read_rows(path, split, ["dx"])
    return np.concatenate([extractor(np.stack(decode_table(table))) for table in iter_tables(path)])


def write_reference(features: Path, train_set: Path, validation_set: Path, folder: Path) -> None:
    """Write `reference.parquet` and `reference.json`.

    Args:
        features: the feature extractor of the run.
        train_set, validation_set: image sets of these splits.
        folder: where to write.
    """
    extractor = load_features(features)
    kept = choose_rows(read_rows(train_set, "train", ["dx"])["dx"].to_numpy(str), MAX_IMAGES)
    stored, begin, path = [], 0, folder / "reference.parquet"
    with atomic_write(path) as part:
        writer = None
        for whole in iter_tables(train_set):
            table = whole.filter(pa.array(kept[begin : begin + whole.num_rows]))
            begin += whole.num_rows
            if not table.num_rows:
                continue
            images = decode_table(table)
            stored.append(extractor(np.stack(images)).astype(np.float32))
            columns = {
                "image_id": table.column("image_id"),
                "dx": table.column("dx"),
                "features": pa.FixedSizeListArray.from_arrays(pa.array(stored[-1].ravel()), stored[-1].shape[1]),
                "thumbnail": pa.array([_encode_jpeg(image) for image in images], pa.binary()),
            }
            written = pa.table(columns)
            writer = writer or pq.ParquetWriter(part, written.schema, compression="zstd")
            writer.write_table(written)
        if writer is not None:
            writer.close()
    others = np.concatenate(stored).astype(np.float64)
    validation = _embed(extractor, validation_set, "validation")
    _, distances = find_nearest(validation, others)
    record = Reference(
        images=len(others),
        train_images=len(kept),
        validation_images=len(validation),
        quantile=QUANTILE,
        limit=max(MIN_LIMIT, float(np.quantile(distances, QUANTILE, method="higher"))),
        features_sha256=file_sha256(features),
    )
    write_record(folder / "reference.json", record)


def write_examples(test_set: Path, path: Path) -> None:
    """Write some test images of each class, of as many different lesions as possible, as an image set."""
    header = read_header(test_set)
    read_rows(test_set, "test", ["dx"])
    with write_image_set(path, header) as out:
        for dx in header.classes:
            for table in iter_tables(test_set, dx):
                lesions = table.column("lesion_id").to_pylist()
                again = [lesion in lesions[:row] for row, lesion in enumerate(lesions)]
                rows = sorted(range(len(lesions)), key=lambda row: (again[row], row))[:EXAMPLES_PER_CLASS]
                out.write_table(table.take(rows))
                break


@dataclass(frozen=True)
class TrainingImages:
    """The stored training images of a run.

    Attributes:
        path: the Parquet file.
        extractor: the feature extractor.
        features: (M, D) float64.
        names, classes: id and class of each image.
        limit: distance above which an image is unlike them.
    """

    path: Path
    extractor: Features
    features: np.ndarray
    names: tuple[str, ...]
    classes: tuple[str, ...]
    limit: float

    def extract(self, images: np.ndarray) -> np.ndarray:
        """Return (N, D) float64 features of (N, S, S, 3) uint8 images.

        Raises:
            UserError: `features.invalid`: without finite distances, no image would be unlike the training images.
        """
        features = self.extractor(images)
        if not np.isfinite(features).all():
            raise UserError(
                "the feature extractor returns features that are not finite numbers",
                "use the unchanged files of one run",
                "features.invalid",
            )
        return features

    def compare(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the nearest training image of each image.

        Args:
            images: (N, S, S, 3) uint8.

        Returns:
            (N,) int64 row of `names`, and (N,) float64 distance in units of the limit: above 1, it is unlike them.
        """
        nearest, distances = find_nearest(self.extract(images), self.features)
        return nearest, distances / self.limit

    def nearest(self, image: np.ndarray, count: int) -> list[tuple[int, float]]:
        """Return rows and distances of the nearest training images of one image, (S, S, 3) uint8; see `compare`."""
        apart = np.linalg.norm(self.features - self.extract(image[None]), axis=1) / self.limit
        return [(int(row), float(apart[row])) for row in np.argsort(apart, kind="stable")[:count]]

    def thumbnails(self, rows: list[int]) -> list[np.ndarray]:
        """Return the stored copies of some images, (h, w, 3) uint8, at most `THUMBNAIL_PX` per side.

        Raises:
            UserError: `reference.invalid`.
        """
        pixels = []
        try:
            column = pq.read_table(self.path, columns=["thumbnail"]).column("thumbnail")
            for row in rows:
                with Image.open(io.BytesIO(column[row].as_py()), formats=("JPEG",)) as image:
                    if max(image.size) > THUMBNAIL_PX:
                        raise ValueError("too large")
                    pixels.append(np.asarray(image.convert("RGB")))
        except (OSError, ValueError, TypeError, pa.ArrowException) as error:
            raise _invalid(self.path) from error
        return pixels


def _invalid(path: Path) -> UserError:
    return UserError(
        f"{path.name} does not hold the training images of a run",
        "use the unchanged files of one run",
        "reference.invalid",
        file=path.name,
    )


def load_reference(record: Reference, parquet: Path, features: Path) -> TrainingImages:
    """Load the training images of a run, which may come from anyone.

    Args:
        record: the content of `reference.json`.
        parquet: `reference.parquet`.
        features: the feature extractor.

    Raises:
        UserError: `reference.invalid`, `features.invalid`: a file is damaged, or they are of different runs.
    """
    try:
        metadata = pq.read_metadata(parquet)
        width = pq.read_schema(parquet).field("features").type.list_size
        if metadata.num_rows != record.images or not 1 <= record.images <= MAX_IMAGES or not 1 <= width <= MAX_FEATURES:
            raise ValueError("another number of images or features")
        table = pq.read_table(parquet, columns=["image_id", "dx", "features"])
        stored = pc.list_flatten(table.column("features")).to_numpy().reshape(-1, width).astype(np.float64)
        names, classes = (tuple(map(str, table.column(name).to_pylist())) for name in ("image_id", "dx"))
        if len(stored) != len(names) or not np.isfinite(stored).all():
            raise ValueError("features are missing")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno is not None:  # without a number it is Arrow's, of a damaged file
            raise
        raise _invalid(parquet) from error
    extractor = load_features(features)
    if file_sha256(features) != record.features_sha256 or extractor.model.outputs[0].shape[1:] != (width,):
        raise _invalid(parquet)
    return TrainingImages(parquet, extractor, stored, names, classes, record.limit)
