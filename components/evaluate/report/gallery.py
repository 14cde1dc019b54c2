"""Images of the report: samples, training progress of the GANs, nearest neighbours, and selected decisions."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from components.evaluate.predict.inputs import Classifier, Inputs
from components.evaluate.predict.neighbours import decode_table, search_neighbours
from components.shared.arms import BASELINE, parse_synthetic_key
from components.shared.image_set import METADATA, iter_tables, read_rows
from components.shared.patient_metadata import encode_optional
from components.shared.records import FailedGan, TrainedGan

SAMPLES_PER_CLASS = 8
PAIRS_PER_CLASS = 4
"""Synthetic images of a class that are shown beside their nearest training image."""
MAX_ERRORS = 8
MAX_SIDE_PX = 192


@dataclass(frozen=True, eq=False)
class ShownImage:
    """An image of the page, (H, W, 3) uint8 in [0, 255]; compared by identity."""

    pixels: np.ndarray


@dataclass(frozen=True)
class Neighbour:
    """A synthetic image beside the training image that is nearest to it.

    Attributes:
        synthetic, real: the images.
        image_id: id of the real one.
        distance: see `NearestImages`; None if unknown.
    """

    synthetic: ShownImage
    real: ShownImage
    image_id: str
    distance: float | None


@dataclass(frozen=True)
class Decision:
    """An arm's decision for a test image.

    Attributes:
        image: the test image.
        heat: Grad-CAM overlay; None if it cannot be computed.
        image_id, lesion_id, dx: metadata of the image.
        predicted, confidence: the class with the largest probability, and that probability.
        others: the other arms: name → (predicted, confidence).
        is_blank: whether no region of the image supports the prediction, so that the overlay shows nothing.
    """

    image: ShownImage
    heat: ShownImage | None
    image_id: str
    lesion_id: str
    dx: str
    predicted: str
    confidence: float
    others: dict[str, tuple[str, float]] = field(default_factory=dict)
    is_blank: bool = False


@dataclass(frozen=True)
class Gallery:
    """All images of the page; mappings are by class, those of synthetic images by `synthetic_key`.

    Attributes:
        real, synthetic: samples of the training split.
        neighbours: the synthetic images nearest to a training image, the nearest first.
        searched: number of synthetic images that were compared.
        pairs: the pairs that the copy check of generate_images found nearest, the training image below.
        progress: kimg and a row of samples of the same noise.
        right, wrong: the decision with the highest confidence of each class, with Grad-CAM.
        malignant_errors: lesions of a malignant class that were called benign, highest confidence first.
        arm: the arm whose decisions these are.
    """

    real: dict[str, list[ShownImage]] = field(default_factory=dict)
    synthetic: dict[str, list[ShownImage]] = field(default_factory=dict)
    neighbours: dict[str, list[Neighbour]] = field(default_factory=dict)
    searched: dict[str, int] = field(default_factory=dict)
    pairs: dict[str, ShownImage] = field(default_factory=dict)
    progress: dict[str, list[tuple[float, ShownImage]]] = field(default_factory=dict)
    right: list[Decision] = field(default_factory=list)
    wrong: list[Decision] = field(default_factory=list)
    malignant_errors: list[Decision] = field(default_factory=list)
    arm: str = ""


def list_images(value: Any) -> list[ShownImage]:
    """Return every image in a gallery or a part of it."""
    if isinstance(value, ShownImage):
        return [value]
    if isinstance(value, dict):
        return list_images(list(value.values()))
    if isinstance(value, list | tuple):
        return [image for item in value for image in list_images(item)]
    if isinstance(value, Gallery | Neighbour | Decision):
        return [image for part in fields(value) for image in list_images(getattr(value, part.name))]
    return []


def _shrink(pixels: np.ndarray) -> ShownImage:
    """Return an image of at most `MAX_SIDE_PX` per side."""
    image = Image.fromarray(pixels)
    image.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX), Image.Resampling.LANCZOS)
    return ShownImage(np.asarray(image))


def _sample_class(path: str | Path, dx: str) -> list[ShownImage]:
    """Return the first images of a class, from as many different lesions as possible."""
    for table in iter_tables(path, dx):
        lesions = table.column("lesion_id").to_pylist()
        repeated = [lesion is not None and lesions.index(lesion) < row for row, lesion in enumerate(lesions)]
        rows = sorted(range(len(lesions)), key=lambda row: (repeated[row], row))[:SAMPLES_PER_CLASS]
        return [_shrink(decode_table(table.slice(row, 1))[0]) for row in rows]
    return []


def _read_images(path: str | Path, rows: Sequence[int], *classes: str) -> list[np.ndarray]:
    """Return (H, W, 3) uint8 images of an image set by their number in it, or among those of some classes."""
    images: dict[int, np.ndarray] = {}
    begin = 0
    for table in iter_tables(path, *classes):
        for row in {row for row in rows if begin <= row < begin + table.num_rows}:
            images[row] = decode_table(table.slice(row - begin, 1))[0]
        begin += table.num_rows
    return [images[row] for row in rows]


def _neighbours(
    extractor: Any, train_set: str | Path, synthetic_set: str | Path, dx: str
) -> tuple[list[Neighbour], int]:
    """Return the synthetic images of a class nearest to a training image, and the number of searched images."""
    nearest, searched = search_neighbours(extractor, train_set, synthetic_set, dx)
    if nearest is None:
        return [], 0
    synthetic = _read_images(synthetic_set, nearest.rows[:PAIRS_PER_CLASS].tolist(), dx)
    real = _read_images(train_set, nearest.partners[:PAIRS_PER_CLASS].tolist(), dx)
    pairs = zip(synthetic, real, nearest.names, nearest.distances.tolist(), strict=False)
    return [
        Neighbour(_shrink(synthetic), _shrink(real), name, None if np.isnan(distance) else distance)
        for synthetic, real, name, distance in pairs
    ], searched


def _decode_jpeg(text: str) -> ShownImage:
    """Return the image that a record holds as a JPEG in base64."""
    with Image.open(io.BytesIO(base64.b64decode(text)), formats=("JPEG",)) as image:
        return ShownImage(np.asarray(image.convert("RGB")))


def _progress(record: TrainedGan | FailedGan) -> list[tuple[float, ShownImage]]:
    if isinstance(record, FailedGan):
        return []
    return [(snapshot.kimg, _decode_jpeg(snapshot.jpeg)) for snapshot in record.snapshots]


def overlay(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Overlay a heat map on a grey version of its image.

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


def _most_confident(truth: np.ndarray, probabilities: np.ndarray) -> tuple[list[int], list[int]]:
    """Return for each class the right and the wrong decision with the highest confidence.

    Args:
        truth: (N,) label.
        probabilities: (N, classes).
    """
    predicted, confidence = probabilities.argmax(1), probabilities.max(1)
    picked: tuple[list[int], list[int]] = ([], [])
    for label in range(probabilities.shape[1]):
        for rows, right in zip(picked, (True, False), strict=True):
            among = np.flatnonzero((truth == label) & ((predicted == truth) == right))
            if len(among):
                rows.append(int(among[confidence[among].argmax()]))
    return picked


def find_malignant_errors(
    truth: np.ndarray, lesion: np.ndarray, probabilities: np.ndarray, malignant: np.ndarray
) -> list[tuple[int, np.ndarray]]:
    """Return lesions of a malignant class that were called benign, highest confidence first.

    A lesion's prediction is the mean over its images and the seeds.

    Args:
        truth, lesion: (N,) label and lesion id.
        probabilities: (S, N, classes).
        malignant: (classes,) bool.

    Returns:
        At most `MAX_ERRORS` pairs: the lesion's image with the highest probability of the predicted class, and the rows
        of the lesion.
    """
    mean = probabilities.mean(0)
    errors = []
    for name in np.unique(lesion[malignant[truth]]):
        rows = np.flatnonzero(lesion == name)
        of_lesion = mean[rows].mean(0)
        predicted = int(of_lesion.argmax())
        if not malignant[predicted]:
            errors.append((float(of_lesion[predicted]), int(rows[mean[rows, predicted].argmax()]), rows))
    errors.sort(key=lambda it: (-it[0], it[1]))
    return [(row, rows) for _, row, rows in errors[:MAX_ERRORS]]


class _Decisions:
    """Decisions of the shown arm on the test set.

    Args:
        test_set: image set of the split `test`.
        classes: all classes.
        probabilities: arm → (S, N, classes).
        arms: the shown arm comes last; the decisions of the others are beside its own.
    """

    def __init__(
        self, test_set: str | Path, classes: Sequence[str], probabilities: Mapping[str, np.ndarray], arms: Sequence[str]
    ) -> None:
        self.test_set, self.classes, self.arm = test_set, classes, arms[-1]
        self.probabilities = {name: probabilities[name] for name in arms}
        self.rows = read_rows(test_set, "test", ["image_id", "lesion_id", "dx", *METADATA])
        self.truth = self.rows["dx"].map({name: label for label, name in enumerate(classes)}).to_numpy(np.int64)

    def _decide(self, image: np.ndarray, heat: np.ndarray | None, row: int, rows: Any, seeds: slice) -> Decision:
        means = {name: values[seeds][:, rows].mean((0, 1)) for name, values in self.probabilities.items()}
        predicted = {name: (self.classes[int(mean.argmax())], float(mean.max())) for name, mean in means.items()}
        details = self.rows.iloc[row]
        return Decision(
            image=_shrink(image),
            heat=None if heat is None else _shrink(overlay(image, heat)),
            image_id=str(details["image_id"]),
            lesion_id=str(details["lesion_id"]),
            dx=str(details["dx"]),
            predicted=predicted[self.arm][0],
            confidence=predicted[self.arm][1],
            others={name: other for name, other in predicted.items() if name != self.arm},
            is_blank=heat is not None and not heat.any(),
        )

    def most_confident(self, first: Classifier) -> list[list[Decision]]:
        """Return right and wrong decisions of the first seed's classifier, with Grad-CAM."""
        import keras

        from components.evaluate.predict import grad_cam

        classifier = keras.saving.load_model(first.model, compile=False)
        of_first = self.probabilities[self.arm][0]
        decisions = []
        for chosen in _most_confident(self.truth, of_first):
            images = _read_images(self.test_set, chosen)
            codes = encode_optional(first.record.metadata, self.rows.iloc[chosen])
            labels = of_first[chosen].argmax(1)
            maps = grad_cam.heatmaps(classifier, np.stack(images), labels, codes) if images else None
            heats = [None] * len(images) if maps is None else list(maps)
            shown = zip(images, heats, chosen, strict=True)
            decisions.append([self._decide(image, heat, row, [row], slice(0, 1)) for image, heat, row in shown])
        return decisions

    def malignant_errors(self, malignant: Sequence[str]) -> list[Decision]:
        """Return lesions of a malignant class that were called benign, by the mean over seeds."""
        lesion, group = self.rows["lesion_id"].to_numpy(str), np.isin(self.classes, malignant)
        worst = find_malignant_errors(self.truth, lesion, self.probabilities[self.arm], group)
        images = _read_images(self.test_set, [row for row, _ in worst])
        shown = zip(images, worst, strict=True)
        return [self._decide(image, None, row, rows.tolist(), slice(None)) for image, (row, rows) in shown]


def collect(
    inputs: Inputs,
    classes: Sequence[str],
    malignant: Sequence[str],
    probabilities: Mapping[str, np.ndarray],
    arms: Sequence[str],
) -> Gallery:
    """Collect the images of a run.

    Nearest training images are searched for within the class, in the input of the last layer of the first
    baseline classifier; memory per image is the width of that layer.

    Args:
        inputs: inputs of the run.
        classes: all classes, in the order of the image sets' header.
        malignant: malignant classes, whose errors are shown.
        probabilities: arm → (S, N, classes) probabilities of each seed for each row of the test set.
        arms: the arms whose decisions are shown, those of the last one with Grad-CAM.
    """
    import keras

    from components.evaluate.predict import grad_cam

    decisions = _Decisions(inputs.sets["test"], classes, probabilities, arms)
    right, wrong = decisions.most_confident(inputs.classifiers[arms[-1]][0])
    baseline = keras.saving.load_model(inputs.classifiers[BASELINE][0].model, compile=False)
    extractor = grad_cam.extractor(baseline)
    neighbours = {
        key: _neighbours(extractor, inputs.train_set, inputs.synthetic_sets[key], parse_synthetic_key(key)[1])
        for key in inputs.synthetic_keys
    }
    return Gallery(
        real={dx: _sample_class(inputs.train_set, dx) for dx in classes},
        synthetic={
            key: _sample_class(inputs.synthetic_sets[key], parse_synthetic_key(key)[1]) for key in inputs.synthetic_keys
        },
        neighbours={dx: pairs for dx, (pairs, _) in neighbours.items()},
        searched={dx: searched for dx, (_, searched) in neighbours.items()},
        pairs={dx: _decode_jpeg(it.pairs_jpeg) for dx, it in inputs.qualities.items() if it.pairs_jpeg},
        progress={dx: _progress(record) for dx, record in inputs.gan_records.items()},
        right=right,
        wrong=wrong,
        malignant_errors=decisions.malignant_errors(malignant),
        arm=arms[-1],
    )
