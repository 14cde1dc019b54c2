"""Sample images from a generator, and drop copies of training images."""

import io
import tempfile
from dataclasses import dataclass

import keras
import numpy as np
import pandas as pd

from components.generate_images.real_images import RealImages
from components.shared import keras_setup
from components.shared.dihedral import to_position
from components.shared.features import Features
from components.shared.log import Progress
from components.shared.records import TrainedGan
from components.shared.sample_metrics import NEIGHBOURS, distances, neighbour_radii
from components.shared.seeds import derive_seed

BLOCK_SIZE = keras_setup.SAMPLING_BATCH
MAX_SAMPLES_RATIO = 4
"""Maximum number of sampled images, as a multiple of the required number."""
SHOWN_COPIES = 8
COLUMNS = ("index", "distance", "nearest", "position", "probability", "strangeness")


def sample_block(model: keras.Model, dx: str, latent: int, seed: int, block: int) -> np.ndarray:
    """Return images `BLOCK_SIZE · block` to `BLOCK_SIZE · (block + 1) - 1` of a class's endless sequence.

    The noise of an image depends on seed, class and index alone. A network may round differently in a batch of another
    size, so images are always sampled in these batches: an image of a set is
    `sample_block(…, index // BLOCK_SIZE)[index % BLOCK_SIZE]`.

    Args:
        model: from (N, latent) standard normal to (N, S, S, 3) in [-1, 1].
        dx: the class.
        latent: length of the noise vector.
        seed: seed in the image's row.
        block: 0 or more.

    Returns:
        (BLOCK_SIZE, S, S, 3) uint8.
    """
    class_seed = derive_seed(seed, "generate_images", dx)
    indices = range(BLOCK_SIZE * block, BLOCK_SIZE * (block + 1))
    noise = [np.random.default_rng([class_seed, index]).standard_normal(latent, np.float32) for index in indices]
    return keras_setup.sample_images(model, np.stack(noise))


class ImageFile:
    """Images in a temporary file, so that memory does not grow with their number."""

    def __init__(self, size: int) -> None:
        self._file = tempfile.TemporaryFile(prefix="counterweight-")  # noqa: SIM115 (closed by `close`)
        self._shape = (size, size, 3)
        self.length = 0

    def append(self, images: np.ndarray) -> None:
        """Append (N, S, S, 3) uint8 images."""
        self._file.seek(0, io.SEEK_END)
        self._file.write(images.tobytes())
        self.length += len(images)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Return the (N, S, S, 3) uint8 images of (N,) rows."""
        images = np.empty((len(rows), *self._shape), np.uint8)
        for image, row in zip(images, rows.tolist(), strict=True):
            self._file.seek(row * image.nbytes)
            image[:] = np.frombuffer(self._file.read(image.nbytes), np.uint8).reshape(self._shape)
        return images

    def close(self) -> None:
        """Delete the file."""
        self._file.close()


@dataclass(frozen=True)
class Samples:
    """The N samples that passed the copy check.

    Attributes:
        rows: for each sample its index in the class's sequence, the distance to the nearest training image, that
            image's row, the position in which the two agree best, the probability of the intended class, and
            `strangeness`: the distance to the nearest training image in features, over the distance of that image to
            its fifth neighbour.
        features: (N, 224).
        copies: number of samples that failed the check.
        shown_copies: the first of them, as pairs of (synthetic, real) in the same position.
        count: number of images sampled.
    """

    rows: pd.DataFrame
    features: np.ndarray
    copies: int
    shown_copies: list[tuple[np.ndarray, np.ndarray]]
    count: int


def sample(
    record: TrainedGan,
    model: keras.Model,
    features: Features,
    real: RealImages,
    required: int,
    seed: int,
    file: ImageFile,
) -> Samples:
    """Sample until the required number of images are not copies, or `MAX_SAMPLES_RATIO` times as many were sampled.

    Args:
        record, model: record and model of the generator.
        features: the feature extractor.
        real: the real images of the class.
        required: number of images.
        seed: seed of the run.
        file: receives the images that pass, in the order of `Samples.rows`.
    """
    dx, label = record.dx, record.classes.index(record.dx)
    radii = np.maximum(neighbour_radii(real.features, NEIGHBOURS), 1e-6)
    progress = Progress(f"generate_images {dx}", required, "images")
    tables: list[pd.DataFrame] = []
    passed_features: list[np.ndarray] = []
    shown_copies: list[tuple[np.ndarray, np.ndarray]] = []
    copies = count = 0
    while file.length < required and count < MAX_SAMPLES_RATIO * required:
        images = sample_block(model, dx, record.latent, seed, count // BLOCK_SIZE)
        copy_distance, nearest, position = real.check.nearest(images)
        block_features, probabilities = features.both(images)
        to_real = distances(block_features, real.features)
        strangeness = to_real.min(axis=1) / radii[to_real.argmin(axis=1)]
        # The rest of the block is not used once there are enough images.
        is_new = copy_distance >= real.check.threshold
        enough = int(np.searchsorted(np.cumsum(is_new), required - file.length)) + 1
        end = min(enough, BLOCK_SIZE, MAX_SAMPLES_RATIO * required - count)
        new_rows, copy_rows = np.flatnonzero(is_new[:end]), np.flatnonzero(~is_new[:end])
        copies += len(copy_rows)
        for i in copy_rows[: SHOWN_COPIES - len(shown_copies)]:
            shown_copies.append((to_position(images[i], position[i]), real.training[nearest[i]]))
        file.append(images[new_rows])
        passed_features.append(block_features[new_rows])
        values = (
            count + np.arange(BLOCK_SIZE),
            copy_distance,
            nearest,
            position,
            probabilities[:, label],
            strangeness,
        )
        tables.append(pd.DataFrame({name: value[new_rows] for name, value in zip(COLUMNS, values, strict=True)}))
        count += end
        progress.update(file.length)
    return Samples(pd.concat(tables, ignore_index=True), np.concatenate(passed_features), copies, shown_copies, count)
