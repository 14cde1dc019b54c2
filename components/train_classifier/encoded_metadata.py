"""The metadata of the patients as the second input of a network in training."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from components.shared import patient_metadata
from components.shared.image_set import Pixels
from components.shared.records import MetadataEncoding
from components.shared.seeds import derive_seed

HIDDEN_SHARE = 0.15
"""Share of the training images whose metadata are shown as missing, so that the network also learns to do without."""


@dataclass(frozen=True)
class EncodedMetadata:
    """The encoded metadata of the training and validation images.

    Attributes:
        encoding: fitted on the real training images.
        training: (N, D) float32.
        validation: (M, D) float32.
    """

    encoding: MetadataEncoding
    training: np.ndarray
    validation: np.ndarray

    def shower(self, seed: int, skipped: int) -> Callable[[np.ndarray], np.ndarray]:
        """Return a function from (B,) numbers of training rows to their (B, D) float32 input in one batch.

        A random share of the rows is shown as missing. The results of a sequence of calls depend only on `seed`.

        Args:
            seed: seed of the random numbers.
            skipped: number of rows that are skipped before the first call.
        """
        rng = np.random.Generator(np.random.PCG64(derive_seed(seed, "metadata")).advance(skipped))
        missing = patient_metadata.encode_missing(self.encoding, 1)

        def show(rows: np.ndarray) -> np.ndarray:
            is_hidden = rng.random(len(rows)) < HIDDEN_SHARE
            return np.where(is_hidden[:, None], missing, self.training[rows])

        return show


def encode_sets(pixels: Pixels, validation_pixels: Pixels, seed: int) -> EncodedMetadata:
    """Return the encoded metadata of a training set, which may have synthetic images, and of a validation set.

    Args:
        pixels, validation_pixels: the sets.
        seed: seed of the run; decides which metadata a synthetic image gets.

    Raises:
        UserError: `metadata.no_patients`.
    """
    encoding = patient_metadata.fit(pixels.metadata[pixels.real])
    filled = patient_metadata.fill_synthetic(pixels.metadata, pixels.labels, pixels.real, derive_seed(seed, "metadata"))
    return EncodedMetadata(
        encoding,
        training=patient_metadata.encode(encoding, filled),
        validation=patient_metadata.encode(encoding, validation_pixels.metadata),
    )
