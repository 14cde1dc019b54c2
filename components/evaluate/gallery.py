"""The pictures of the report: what the classifiers saw, what the GANs drew and how they learnt it, and which decisions
deserve a look."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from components.shared.image_set import decode_png, iter_tables, read_rows

SAMPLES = 8
"""Real and synthetic pictures of a class."""
PAIRS = 4
"""Synthetic pictures of a class that are shown beside their nearest training image."""
LOOKED_UP = 256
"""Synthetic images of a class whose nearest training image is looked for."""
ERRORS = 8
BATCH = 32
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
        pairs: the synthetic images that generate_images found nearest to a training image, above that image.
        progress: kimg and a strip of samples of the same noise.
        right, wrong: the surest decisions of each class, with Grad-CAM.
        malignant_errors: lesions of a malignant class that were called benign, the surest first.
        arm: whose decisions those are.
    """

    real: dict[str, list[Picture]] = field(default_factory=dict)
    synthetic: dict[str, list[Picture]] = field(default_factory=dict)
    neighbours: dict[str, list[Neighbour]] = field(default_factory=dict)
    looked_up: dict[str, int] = field(default_factory=dict)
    pairs: dict[str, Picture] = field(default_factory=dict)
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


def _kept(pixels: np.ndarray) -> Picture:
    """A picture of at most `SIDE` pixels on a side."""
    image = Image.fromarray(pixels)
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return Picture(np.asarray(image))


def _decode(table: pa.Table) -> list[np.ndarray]:
    return [decode_png(png) for png in pc.struct_field(table.column("image"), "bytes").to_pylist()]


def _samples(path: str | Path, dx: str) -> list[Picture]:
    """The first images of a class, of as many lesions as there are among them."""
    for table in iter_tables(path, dx):
        lesions = table.column("lesion_id").to_pylist()
        again = [lesion is not None and lesions.index(lesion) < row for row, lesion in enumerate(lesions)]
        rows = sorted(range(len(lesions)), key=lambda row: (again[row], row))[:SAMPLES]
        return [_kept(_decode(table.slice(row, 1))[0]) for row in rows]
    return []


def _at(path: str | Path, rows: Sequence[int], *classes: str) -> list[np.ndarray]:
    """(H, W, 3) uint8 images of an image set by their number in it, or among those of a class."""
    found: dict[int, np.ndarray] = {}
    begin = 0
    for table in iter_tables(path, *classes):
        for row in {row for row in rows if begin <= row < begin + table.num_rows}:
            found[row] = _decode(table.slice(row - begin, 1))[0]
        begin += table.num_rows
    return [found[row] for row in rows]


def _embedded(
    extractor: Any, path: str | Path, dx: str, limit: int | None = None
) -> tuple[np.ndarray, list[Any], list[str]]:
    """What a classifier makes of a class's images, a few decoded at a time: (N, D) float32, lesion and image ids."""
    features, lesions, names, left = [], [], [], limit
    for table in iter_tables(path, dx):
        table = table.slice(0, left)
        for start in range(0, table.num_rows, BATCH):
            images = np.stack(_decode(table.slice(start, BATCH))).astype(np.float32)
            features.append(np.asarray(extractor(images, training=False)))
        lesions += table.column("lesion_id").to_pylist()
        names += table.column("image_id").to_pylist()
        left = None if left is None else left - table.num_rows
        if left == 0:
            break
    return np.concatenate(features) if features else np.empty((0, 0), np.float32), lesions, names


def nearest(
    features: np.ndarray, others: np.ndarray, forbidden: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest of `others` to each row by Euclidean distance, some rows at a time.

    Args:
        features, others: (N, D) and (M, D) float.
        forbidden: (N, M) bool, pairs that do not count; none where not given.

    Returns:
        (N,) int64 row of `others`, and (N,) float64 distance, infinite where all pairs are forbidden.
    """
    rows, distances = [np.empty(0, np.int64)], [np.empty(0)]
    for start in range(0, len(features), 64):
        part = slice(start, start + 64)
        squares = (
            (features[part].astype(np.float64) ** 2).sum(1)[:, None]
            - 2 * features[part].astype(np.float64) @ others.T.astype(np.float64)
            + (others.astype(np.float64) ** 2).sum(1)
        )
        if forbidden is not None:
            squares[forbidden[part]] = np.inf
        rows.append(squares.argmin(1))
        distances.append(np.sqrt(np.maximum(squares.min(1), 0)))
    return np.concatenate(rows), np.concatenate(distances)


def _neighbours(
    extractor: Any, train_set: str | Path, synthetic_set: str | Path, dx: str
) -> tuple[list[Neighbour], int]:
    """The synthetic images of a class that come nearest to a training image, and how many were looked up."""
    real, lesions, names = _embedded(extractor, train_set, dx)
    made, _, _ = _embedded(extractor, synthetic_set, dx, LOOKED_UP)
    if not len(real) or not len(made):
        return [], 0
    _, number = np.unique(np.array(lesions, str), return_inverse=True)
    _, usual = nearest(real, real, number[:, None] == number[None, :])
    unit = float(np.median(usual[np.isfinite(usual)])) if np.isfinite(usual).any() else 0.0
    partner, distance = nearest(made, real)
    first = np.argsort(distance, kind="stable")[:PAIRS]
    pairs = zip(_at(synthetic_set, first.tolist(), dx), _at(train_set, partner[first].tolist(), dx), first, strict=True)
    return [
        Neighbour(_kept(one), _kept(other), names[partner[row]], float(distance[row]) / unit if unit else None)
        for one, other, row in pairs
    ], len(made)


def _jpeg(text: str) -> Picture:
    """A picture that a record holds as a JPEG in base64."""
    with Image.open(io.BytesIO(base64.b64decode(text)), formats=("JPEG",)) as image:
        return Picture(np.asarray(image.convert("RGB")))


def _progress(record: Mapping[str, Any]) -> list[tuple[float, Picture]]:
    """The strips of samples that train_gan keeps in its record."""
    return [(float(snapshot["kimg"]), _jpeg(snapshot["jpeg"])) for snapshot in record.get("snapshots") or []]


def overlay(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A heat map over its image made grey.

    Args:
        pixels: (H, W, 3) uint8.
        heat: (h, w) float32 in [0, 1].

    Returns:
        (H, W, 3) uint8.
    """
    from matplotlib import colormaps

    height, width = pixels.shape[:2]
    wide = np.asarray(Image.fromarray(heat).resize((width, height), Image.Resampling.BICUBIC)).clip(0, 1)[..., None]
    grey = pixels @ np.array([0.299, 0.587, 0.114])
    colour = colormaps["inferno"](wide[..., 0])[..., :3] * 255
    share = 0.15 + 0.55 * wide
    return np.rint(grey[..., None] * (1 - share) + colour * share).clip(0, 255).astype(np.uint8)


def _surest(truth: np.ndarray, chances: np.ndarray) -> tuple[list[int], list[int]]:
    """For each class the image that was named right, and the one that was named wrong, with the largest probability.

    Args:
        truth: (N,) label.
        chances: (N, classes).
    """
    said, confidence = chances.argmax(1), chances.max(1)
    picked: tuple[list[int], list[int]] = ([], [])
    for label in range(chances.shape[1]):
        for rows, right in zip(picked, (True, False), strict=True):
            among = np.flatnonzero((truth == label) & ((said == truth) == right))
            if len(among):
                rows.append(int(among[confidence[among].argmax()]))
    return picked


def malignant_errors(
    truth: np.ndarray, lesion: np.ndarray, chances: np.ndarray, malignant: np.ndarray
) -> list[tuple[int, np.ndarray]]:
    """Lesions of a malignant class that were called benign, the surest first; a lesion's prediction is the mean over
    its images and the seeds.

    Args:
        truth, lesion: (N,) label and lesion id.
        chances: (S, N, classes).
        malignant: (classes,) bool.

    Returns:
        At most `ERRORS` times: the lesion's image that looks most like what was said, and the rows of the lesion.
    """
    mean = chances.mean(0)
    found = []
    for name in np.unique(lesion[malignant[truth]]):
        rows = np.flatnonzero(lesion == name)
        together = mean[rows].mean(0)
        said = int(together.argmax())
        if not malignant[said]:
            found.append((float(together[said]), int(rows[mean[rows, said].argmax()]), rows))
    found.sort(key=lambda it: (-it[0], it[1]))
    return [(row, rows) for _, row, rows in found[:ERRORS]]


def collect(
    classes: Sequence[str],
    malignant: Sequence[str],
    train_set: str | Path,
    test_set: str | Path,
    synthetic_sets: Sequence[str | Path],
    gans: Mapping[str, Mapping[str, Any]],
    drawn: Mapping[str, Mapping[str, Any]],
    models: Mapping[str, str | Path],
    chances: Mapping[str, np.ndarray],
) -> Pictures:
    """Gathers the pictures of a run.

    Nearest training images are looked for among the training images of the synthetic image's class, in what the last
    layer of the first baseline model sees; memory grows with their number by that layer's width alone.

    Args:
        classes: all of them, as in the image sets' header.
        malignant: those that a person must not miss.
        train_set, test_set: image sets of the splits `train` and `test`.
        synthetic_sets: of some rare classes each; a class without rows is passed over.
        gans, drawn: class → what train_gan and generate_images wrote of it.
        models: arm → `.keras` model of the first seed; `baseline` and `augmented` are read.
        chances: arm → (S, N, classes) probabilities of each seed for each row of the test set.
    """
    import keras

    from components.evaluate import grad_cam

    arm = "augmented"
    rows = read_rows(test_set, "test", ["image_id", "lesion_id", "dx"])
    truth = rows["dx"].map({name: label for label, name in enumerate(classes)}).to_numpy(np.int64)
    lesion = rows["lesion_id"].to_numpy(str)

    def decision(
        image: np.ndarray, heat: np.ndarray | None, row: int, together: Sequence[int], seeds: slice
    ) -> Decision:
        means = {name: values[seeds][:, together].mean((0, 1)) for name, values in chances.items()}
        said = {name: (classes[int(mean.argmax())], float(mean.max())) for name, mean in means.items()}
        return Decision(
            image=_kept(image),
            heat=None if heat is None else _kept(overlay(image, heat)),
            image_id=str(rows["image_id"].iloc[row]),
            lesion_id=str(rows["lesion_id"].iloc[row]),
            dx=str(rows["dx"].iloc[row]),
            said=said[arm][0],
            confidence=said[arm][1],
            others={name: words for name, words in said.items() if name != arm},
        )

    judge = keras.saving.load_model(models[arm], compile=False)
    sure: list[list[Decision]] = []
    for chosen in _surest(truth, chances[arm][0]):
        images = _at(test_set, chosen)
        labels = chances[arm][0][chosen].argmax(1)
        heat = grad_cam.heatmaps(judge, np.stack(images), labels) if images else None
        heats = [None] * len(images) if heat is None else list(heat)
        shown = zip(images, heats, chosen, strict=True)
        sure.append([decision(image, seen, row, [row], slice(0, 1)) for image, seen, row in shown])

    worst = malignant_errors(truth, lesion, chances[arm], np.isin(classes, malignant))
    pictures = _at(test_set, [row for row, _ in worst])
    errors = [
        decision(image, None, row, together.tolist(), slice(None))
        for image, (row, together) in zip(pictures, worst, strict=True)
    ]

    extractor = grad_cam.extractor(keras.saving.load_model(models["baseline"], compile=False))
    synthetic, neighbours, looked_up = {}, {}, {}
    for path in synthetic_sets:
        for dx in read_rows(path, "train", ["dx"])["dx"].unique():
            synthetic[dx] = _samples(path, dx)
            neighbours[dx], looked_up[dx] = _neighbours(extractor, train_set, path, dx)
    return Pictures(
        real={dx: _samples(train_set, dx) for dx in classes},
        synthetic=synthetic,
        neighbours=neighbours,
        looked_up=looked_up,
        pairs={dx: _jpeg(one["pairs_jpeg"]) for dx, one in drawn.items() if one.get("pairs_jpeg")},
        progress={dx: _progress(record) for dx, record in gans.items()},
        right=sure[0],
        wrong=sure[1],
        malignant_errors=errors,
        arm=arm,
    )
