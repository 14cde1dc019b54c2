"""Where the synthetic images of a class come from: a GAN of the run, or images that another generator made."""

from dataclasses import dataclass
from typing import Protocol

import keras
import numpy as np
import pandas as pd

from components.shared import keras_setup
from components.shared.arms import GAN, synthetic_key
from components.shared.image_set import Pixels
from components.shared.records import TrainedGan
from components.shared.seeds import derive_seed

BLOCK_SIZE = keras_setup.SAMPLING_BATCH
MAX_SAMPLES_RATIO = 4
"""Maximum number of sampled images, as a multiple of the required number."""


class Origin(Protocol):
    """The images of a class, in a fixed order."""

    @property
    def dx(self) -> str:
        """The class."""

    @property
    def source(self) -> str:
        """Name of the source."""

    @property
    def key(self) -> str:
        """What identifies the images; see `synthetic_key`."""

    def limit(self, required: int) -> int:
        """Return how many images may be taken to get the required number."""

    def block(self, number: int) -> np.ndarray:
        """Return images `BLOCK_SIZE · number` and the following, at most `BLOCK_SIZE`: (N, S, S, 3) uint8."""

    def describe_rows(self, indices: np.ndarray) -> pd.DataFrame:
        """Return the columns of the image set that state the origin of some images."""

    def describe(self) -> str:
        """Return how the images were made, for the contact sheet."""


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


@dataclass(frozen=True)
class GanOrigin:
    """An `Origin`: the generator of a class.

    Attributes:
        record, model: record and model of the generator.
        seed: seed of the run.
    """

    record: TrainedGan
    model: keras.Model
    seed: int
    source: str = GAN

    @property
    def dx(self) -> str:
        """See `Origin`."""
        return self.record.dx

    @property
    def key(self) -> str:
        """See `Origin`."""
        return synthetic_key(self.source, self.dx)

    def limit(self, required: int) -> int:
        """See `Origin`."""
        return MAX_SAMPLES_RATIO * required

    def block(self, number: int) -> np.ndarray:
        """See `Origin`."""
        return sample_block(self.model, self.dx, self.record.latent, self.seed, number)

    def describe_rows(self, indices: np.ndarray) -> pd.DataFrame:
        """See `Origin`."""
        model = self.record.model_sha256
        names = [f"{self.dx}-{self.record.architecture}-{model[:8]}-{index:06d}" for index in indices]
        return pd.DataFrame({"image_id": names, "model_sha256": model, "seed": self.seed, "index": indices})

    def describe(self) -> str:
        """See `Origin`."""
        record = self.record
        return (
            f"by {record.architecture} after {record.best_kimg:g} of {record.kimg:g} kimg, trained on "
            f"{record.real_images:,} real ones"
        )


@dataclass(frozen=True)
class GivenOrigin:
    """An `Origin`: images of another generator.

    Attributes:
        source: name of the source.
        dx: the class.
        pixels: its images of the class.
        names: their image ids.
    """

    source: str
    dx: str
    pixels: Pixels
    names: list[str]

    @property
    def key(self) -> str:
        """See `Origin`."""
        return synthetic_key(self.source, self.dx)

    def limit(self, required: int) -> int:
        """See `Origin`."""
        return min(MAX_SAMPLES_RATIO * required, len(self.names))

    def block(self, number: int) -> np.ndarray:
        """See `Origin`."""
        return np.array(self.pixels.images[BLOCK_SIZE * number : BLOCK_SIZE * (number + 1)])

    def describe_rows(self, indices: np.ndarray) -> pd.DataFrame:
        """See `Origin`."""
        return pd.DataFrame({"image_id": [self.names[index] for index in indices], "index": indices})

    def describe(self) -> str:
        """See `Origin`."""
        return f"of {len(self.names):,} from {self.source}"
