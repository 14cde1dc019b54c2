"""The pictures of the report: what the classifiers saw, what the GANs drew and how they learnt it, and which decisions
deserve a look."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from PIL import Image

from components.shared.image_set import decode_png, decoded, iter_tables, read_header, read_rows

SAMPLES = 8
"""Real and synthetic pictures of a class."""
PAIRS = 4
"""Synthetic pictures of a class that are shown beside their nearest training image."""
LOOKED_UP = 256
"""Synthetic images of a class whose nearest training image is looked for."""
ERRORS = 8
SIDE = 192
"""Pixels on a side that a picture keeps at the most."""


@dataclass(frozen=True, eq=False)
class Picture:
    """(H, W, 3) uint8 in [0, 255]."""

    pixels: np.ndarray


@dataclass(frozen=True)
class Neighbour:
    """A synthetic picture beside the training image that is nearest to it.

    Attributes:
        synthetic, real: the two.
        image_id: of the real one.
        distance: in units of the median distance from a real training image to the nearest of another lesion; None
            where the class has one lesion.
    """

    synthetic: Picture
    real: Picture
    image_id: str
    distance: float | None


@dataclass(frozen=True)
class Decision:
    """An arm's decision on a test image.

    Attributes:
        image: what it saw.
        heat: where it looked; None where that can't be known.
        image_id, lesion_id, dx: of the image.
        said, confidence: the class with the largest probability, and that probability.
        others: the other arms: name → (said, confidence).
    """

    image: Picture
    heat: Picture | None
    image_id: str
    lesion_id: str
    dx: str
    said: str
    confidence: float
    others: dict[str, tuple[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Pictures:
    """Everything that the page shows; by class where it is a mapping.

    Attributes:
        real, synthetic: samples, of the training split.
        neighbours: the synthetic images that come nearest to a training image, the nearest first.
        looked_up: how many synthetic images were compared for that.
        progress: kimg and a strip of samples of the same noise.
        right, wrong: the surest decisions of each class, with Grad-CAM.
        malignant_errors: lesions of a malignant class that were called benign, the surest first.
        arm: whose decisions those are.
    """

    real: dict[str, list[Picture]] = field(default_factory=dict)
    synthetic: dict[str, list[Picture]] = field(default_factory=dict)
    neighbours: dict[str, list[Neighbour]] = field(default_factory=dict)
    looked_up: dict[str, int] = field(default_factory=dict)
    progress: dict[str, list[tuple[float, Picture]]] = field(default_factory=dict)
    right: list[Decision] = field(default_factory=list)
    wrong: list[Decision] = field(default_factory=list)
    malignant_errors: list[Decision] = field(default_factory=list)
    arm: str = "augmented"


def all_of(value: Any) -> list[Picture]:
    """Every picture somewhere in it."""
    if isinstance(value, Picture):
        return [value]
    if isinstance(value, dict):
        return all_of(list(value.values()))
    if isinstance(value, list | tuple):
        return [picture for item in value for picture in all_of(item)]
    if isinstance(value, Pictures | Neighbour | Decision):
        return [picture for part in fields(value) for picture in all_of(getattr(value, part.name))]
    return []
