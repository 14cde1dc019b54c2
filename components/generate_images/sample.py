"""Take synthetic images from their origin, and drop copies of training images."""

import io
import tempfile
from dataclasses import dataclass

import numpy as np
import pandas as pd

from components.generate_images.origins import BLOCK_SIZE, Origin
from components.generate_images.real_images import RealImages
from components.shared.dihedral import to_position
from components.shared.features import Features
from components.shared.log import Progress
from components.shared.sample_metrics import NEIGHBOURS, distances, neighbour_radii

SHOWN_COPIES = 8
COLUMNS = ("index", "distance", "nearest", "position", "probability", "is_first", "strangeness")


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
            image's row, the position in which the two agree best, the probability of the intended class, whether it
            is the largest one, and `strangeness`: the distance to the nearest training image in features, over the
            distance of that image to its fifth neighbour.
        features: (N, 224).
        copies: number of samples that failed the check.
        shown_copies: the first of them, as pairs of (synthetic, real) in the same position.
        count: number of images taken.
    """

    rows: pd.DataFrame
    features: np.ndarray
    copies: int
    shown_copies: list[tuple[np.ndarray, np.ndarray]]
    count: int


def sample(origin: Origin, label: int, features: Features, real: RealImages, required: int, file: ImageFile) -> Samples:
    """Take images until the required number of them are not copies, or the limit of the origin is reached.

    Args:
        origin: where the images come from.
        label: label of the class.
        features: the feature extractor.
        real: the real images of the class.
        required: number of images.
        file: receives the images that pass, in the order of `Samples.rows`.
    """
    limit = origin.limit(required)
    radii = np.maximum(neighbour_radii(real.features, NEIGHBOURS), 1e-6)
    progress = Progress(f"generate_images {origin.key}", required, "images")
    tables: list[pd.DataFrame] = []
    passed_features: list[np.ndarray] = []
    shown_copies: list[tuple[np.ndarray, np.ndarray]] = []
    copies = count = 0
    while file.length < required and count < limit:
        images = origin.block(count // BLOCK_SIZE)
        copy_distance, nearest, position = real.check.nearest(images)
        block_features, probabilities = features.both(images)
        to_real = distances(block_features, real.features)
        strangeness = to_real.min(axis=1) / radii[to_real.argmin(axis=1)]
        # The rest of the block is not used once there are enough images.
        is_new = copy_distance >= real.check.threshold
        enough = int(np.searchsorted(np.cumsum(is_new), required - file.length)) + 1
        end = min(enough, len(images), limit - count)
        new_rows, copy_rows = np.flatnonzero(is_new[:end]), np.flatnonzero(~is_new[:end])
        copies += len(copy_rows)
        for i in copy_rows[: SHOWN_COPIES - len(shown_copies)]:
            shown_copies.append((to_position(images[i], position[i]), real.training[nearest[i]]))
        file.append(images[new_rows])
        passed_features.append(block_features[new_rows])
        values = (
            count + np.arange(len(images)),
            copy_distance,
            nearest,
            position,
            probabilities[:, label],
            probabilities.argmax(axis=1) == label,
            strangeness,
        )
        tables.append(pd.DataFrame({name: value[new_rows] for name, value in zip(COLUMNS, values, strict=True)}))
        count += end
        progress.update(file.length)
    return Samples(pd.concat(tables, ignore_index=True), np.concatenate(passed_features), copies, shown_copies, count)
