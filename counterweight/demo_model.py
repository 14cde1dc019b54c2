"""What the page of `make demo` shows: the arms' probabilities for one image, and synthetic images beside real ones."""

import functools
import itertools
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.evaluate.predict.grad_cam import build_inspected, explain
from components.evaluate.predict.neighbours import find_nearest
from components.evaluate.predict.published import Run, load_training_images
from components.evaluate.predict.reference import TrainingImages
from components.evaluate.report.gallery import overlay
from components.prepare_data import image_reader
from components.shared.arms import parse_synthetic_key
from components.shared.errors import UserError
from components.shared.image_set import decode_png, pixel_sha256
from components.shared.patient_metadata import describe, table_of
from components.shared.records import MetadataEncoding
from counterweight import published
from counterweight.published import Arm

NEAREST = 6
"""Training images that are shown beside an image."""
SYNTHETIC_IMAGES = 256
"""Maximum number of synthetic images of a class that are compared."""
SYNTHETIC_SHOWN = 12
MAX_UPLOAD_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Example:
    """A test image of the run.

    Attributes:
        name, dx: its id and class.
        pixels: (S, S, 3) uint8.
        metadata: its age, sex and localization; null if they are missing.
    """

    name: str
    dx: str
    pixels: np.ndarray
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Neighbour:
    """A training image near a shown one.

    Attributes:
        pixels: its stored copy, (h, w, 3) uint8.
        name, dx: its id and class.
        distance: in units of the limit.
    """

    pixels: np.ndarray
    name: str
    dx: str
    distance: float


@dataclass(frozen=True)
class Answer:
    """The result for one image.

    Attributes:
        pixels: the image as the models get it, (S, S, 3) uint8.
        probabilities: arm → (classes,) calibrated, the mean over seeds.
        positive: arm → whether it is positive; None without a threshold.
        heat: Grad-CAM of the shown arm's first model for its class, over the image; None if it cannot be computed.
        explained: the class that the heat map explains.
        neighbours: the nearest training images.
        unlike: whether the image is unlike the training data.
        seen: whether a model was trained or selected on it.
        metadata: what models get of its metadata; empty if no model gets any.
    """

    pixels: np.ndarray
    probabilities: dict[str, np.ndarray]
    positive: dict[str, bool | None]
    heat: np.ndarray | None
    explained: str
    neighbours: list[Neighbour]
    unlike: bool
    seen: bool
    metadata: list[str]


@dataclass(frozen=True)
class SyntheticPair:
    """A synthetic image and the training image nearest to it."""

    pixels: np.ndarray
    number: int
    neighbour: Neighbour


class Demo:
    """The models and images of a published run.

    Args:
        run: from `reevaluate.open_published`.

    Raises:
        UserError: a file of the run is missing or damaged.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.arms: dict[str, Arm] = {name: published.load_arm(run, name) for name in run.arms}
        self.advice = run.results.advice
        self.training: TrainingImages = load_training_images(run)
        self.examples = [Example(*each) for each in published.read_examples(run)]
        self.synthetic_keys = published.synthetic_keys(run)
        self._lock = threading.Lock()  # requests come from threads
        self._compared = functools.lru_cache(maxsize=8)(self._compare)
        # A copy of a network for each image would take memory that Keras does not return.
        self._inspected = functools.lru_cache(maxsize=1)(lambda arm: build_inspected(self.arms[arm].models[0]))

    def read_upload(self, path: str | Path) -> np.ndarray:
        """Return an uploaded image as the models get it, (S, S, 3) uint8, with the checks of prepare_data.

        Raises:
            UserError: `demo.unusable_image`.
        """
        file = Path(path)
        reason = f"larger than {MAX_UPLOAD_BYTES:,} bytes" if file.stat().st_size > MAX_UPLOAD_BYTES else ""
        found = reason or image_reader.read(file, self.run.record.image_size)
        if isinstance(found, str):
            raise UserError(
                f"the image cannot be used: {found}", "upload another image", "demo.unusable_image", reason=found
            )
        return decode_png(found.png)

    @property
    def encoding(self) -> MetadataEncoding | None:
        """How metadata become a second input of models; None if no arm has one."""
        return next((arm.encoding for arm in self.arms.values() if arm.encoding is not None), None)

    def classify(self, pixels: np.ndarray, shown: str, metadata: Mapping[str, Any] | None = None) -> Answer:
        """Return the result of all arms for an image.

        Args:
            pixels: (S, S, 3) uint8.
            shown: the arm whose decision is explained.
            metadata: age, sex and localization, as far as they are known.
        """
        table = table_of([metadata or {}])
        with self._lock:
            probabilities = {name: arm.predict(pixels[None], table)[0] for name, arm in self.arms.items()}
            label = int(probabilities[shown].argmax())
            inspected, codes = self._inspected(shown), self.arms[shown].encode(table)
            maps = None if inspected is None else explain(inspected, pixels[None], np.array([label]), codes)
            nearest = self.training.nearest(pixels, NEAREST)
            neighbours = self._neighbours(nearest)
        digest = pixel_sha256(pixels)[:16]
        return Answer(
            pixels=pixels,
            probabilities=probabilities,
            positive={name: self._is_positive(name, each) for name, each in probabilities.items()},
            heat=None if maps is None else overlay(pixels, maps[0]),
            explained=self.run.classes[label],
            neighbours=neighbours,
            unlike=nearest[0][1] > 1,
            seen=any(digest in arm.seen for arm in self.arms.values()),
            metadata=describe(self.encoding, table) if self.encoding else [],
        )

    def _is_positive(self, name: str, probabilities: np.ndarray) -> bool | None:
        arm = self.arms[name]
        return None if arm.threshold is None else bool(arm.positive_score(probabilities[None])[0] > arm.threshold)

    def _neighbours(self, nearest: Sequence[tuple[int, float]]) -> list[Neighbour]:
        training = self.training
        pixels = training.thumbnails([row for row, _ in nearest])
        return [
            Neighbour(image, training.names[row], training.classes[row], distance)
            for image, (row, distance) in zip(pixels, nearest, strict=True)
        ]

    def _compare(self, key: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return synthetic images, the row of the nearest training image of their class, and the distance to it."""
        _, dx = parse_synthetic_key(key)
        images = np.stack(list(itertools.islice(published.iter_synthetic(self.run, key), SYNTHETIC_IMAGES)))
        classes = np.array(self.training.classes)
        rows = np.flatnonzero(classes == dx) if dx in classes else np.arange(len(classes))
        nearest, distances = find_nearest(self.training.extractor(images), self.training.features[rows])
        return images, rows[nearest], distances / self.training.limit

    def synthetic(self, key: str, farthest_first: bool) -> tuple[list[SyntheticPair], int]:
        """Return synthetic images of a class beside the nearest training images of the class.

        Args:
            key: one of `synthetic_keys`.
            farthest_first: whether to begin with the images that resemble no training image.

        Returns:
            At most `SYNTHETIC_SHOWN` pairs, and the number of images that were compared.
        """
        with self._lock:
            images, rows, distances = self._compared(key)
            order = np.argsort(-distances if farthest_first else distances, kind="stable")[:SYNTHETIC_SHOWN]
            shown = self._neighbours([(int(rows[number]), float(distances[number])) for number in order])
        pairs = [SyntheticPair(images[number], int(number), each) for number, each in zip(order, shown, strict=True)]
        return pairs, len(images)
