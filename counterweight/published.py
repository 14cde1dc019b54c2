"""The models of a published run, ready for new images: options of the commands that use them, and an arm's classifiers.

A run may come from anyone; `reevaluate` validates its records and compares its files with the manifest. Keras
loads models in its safe mode, in which they contain no code.
"""

import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pandas as pd
import pyarrow as pa
from PIL import Image

from components.evaluate.predict.models import load_classifier
from components.evaluate.predict.probabilities import is_distribution
from components.evaluate.predict.published import Run
from components.evaluate.results import labels_of
from components.evaluate.statistics import calibration
from components.shared import keras_setup, patient_metadata
from components.shared.arms import parse_synthetic_key
from components.shared.errors import UserError
from components.shared.image_set import METADATA, iter_tables, pixel_sha256, read_header
from components.shared.records import MetadataEncoding

NOTICE = "This is a research model and not a medical device: do not use it for diagnosis or treatment."
MAX_EXAMPLES = 400


@dataclass(frozen=True)
class Arm:
    """The classifiers of an arm, one per seed, whose calibrated probabilities are averaged.

    Attributes:
        name: the arm.
        models: from (N, S, S, 3) in [0, 255] to (N, classes) probabilities.
        seeds: their seeds.
        temperatures: their temperatures, fitted on validation.
        classes: names of the last axis.
        positive: the positive classes.
        threshold: 90 % of the validation images of other classes have at most this mean calibrated probability of the
            positive classes; None without positive classes or such images.
        image_size: height and width in pixels.
        model_sha256: hashes of the models' files.
        seen: first 16 digits of the pixel hashes of the images that a model was trained or selected on.
        encoding: how metadata become the second input of the models; None for models of images alone.
    """

    name: str
    models: tuple[keras.Model, ...]
    seeds: tuple[int, ...]
    temperatures: tuple[float, ...]
    classes: tuple[str, ...]
    positive: tuple[str, ...]
    threshold: float | None
    image_size: int
    model_sha256: tuple[str, ...]
    seen: frozenset[str]
    encoding: MetadataEncoding | None

    def encode(self, metadata: pd.DataFrame) -> np.ndarray | None:
        """Return (N, D) float32, the second input of the models for `METADATA` of N images; None if they have none."""
        return patient_metadata.encode_optional(self.encoding, metadata)

    def predict(self, images: np.ndarray, metadata: pd.DataFrame | None = None) -> np.ndarray:
        """Return (N, classes) float64 calibrated probabilities, the mean over seeds.

        Args:
            images: (N, S, S, 3) uint8.
            metadata: the `METADATA` of the images, which models of images alone ignore; None if they are missing.

        Raises:
            UserError: `model.invalid`: a model does not return probabilities.
        """
        codes = self.encode(patient_metadata.table_of([{}] * len(images)) if metadata is None else metadata)
        by_seed = [keras_setup.predict_probabilities(model, images, codes) for model in self.models]
        for seed, of_seed in zip(self.seeds, by_seed, strict=True):
            if not is_distribution(of_seed):
                raise UserError(
                    f"the model of the arm {self.name} and seed {seed} does not return probabilities",
                    "choose another ARM, or use the unchanged files of one run",
                    "model.invalid",
                    arm=self.name,
                    seed=seed,
                )
        return average(by_seed, self.temperatures)

    def positive_score(self, probabilities: np.ndarray) -> np.ndarray:
        """Return (N,) the summed probability of the positive classes of (N, classes) probabilities."""
        return np.asarray(probabilities[:, np.isin(self.classes, self.positive)].sum(1))


def average(by_seed: Sequence[np.ndarray], temperatures: Sequence[float]) -> np.ndarray:
    """Return (N, classes) float64, the mean of (N, classes) probabilities after temperature scaling."""
    scaled = [calibration.scale(of_seed, value) for of_seed, value in zip(by_seed, temperatures, strict=True)]
    return np.mean(scaled, axis=0)


def choose_arm(run: Run, name: str) -> str:
    """Return an arm of a run by its name; without one, the arm of the report's advice.

    Raises:
        UserError: `option.invalid`: the run does not have it.
    """
    chosen = name or run.results.advice.arm
    if chosen not in run.arms:
        raise UserError(
            f"ARM is {chosen!r}, which the run does not have",
            f"choose from {', '.join(run.arms)}",
            "option.invalid",
            option="ARM",
        )
    return chosen


def load_arm(run: Run, name: str, first_only: bool = False) -> Arm:
    """Load the classifiers of an arm, and fit temperatures and threshold on the published validation predictions.

    Args:
        run: from `reevaluate.open_published`.
        name: an arm of the run.
        first_only: whether to use the classifier of the first seed alone.

    Raises:
        UserError: a model is not the run's, or cannot be used.
    """
    seeds = run.record.seeds[:1] if first_only else run.record.seeds
    classifiers = run.classifiers(name, seeds)
    records = [classifier.record for classifier in classifiers]
    models = tuple(
        load_classifier(it.model, run.record.image_size, len(run.classes), it.record.metadata) for it in classifiers
    )
    encoding = records[0].metadata
    if any(record.metadata != encoding for record in records):
        raise UserError(
            f"the classifiers of the arm {name} encode metadata in different ways",
            "use the unchanged files of one run",
            "evaluate.different_settings",
            arms=[name],
        )
    rows, probabilities = run.load("validation")
    truth, group = labels_of(rows, run.classes), np.isin(run.classes, run.record.malignant)
    by_seed = probabilities[name][: len(seeds)]
    temperatures = tuple(calibration.fit_temperature(truth, of_seed) for of_seed in by_seed)
    benign = average(list(by_seed), temperatures)[~group[truth]][:, group].sum(1)
    threshold = calibration.fit_threshold(benign) if group.any() and len(benign) else None
    return Arm(
        name=name,
        models=models,
        seeds=tuple(seeds),
        temperatures=temperatures,
        classes=run.classes,
        positive=tuple(run.record.malignant),
        threshold=threshold,
        image_size=run.record.image_size,
        model_sha256=tuple(record.model_sha256 for record in records),
        seen=frozenset(digest for record in records for digest in record.seen),
        encoding=encoding,
    )


def synthetic_keys(run: Run) -> list[str]:
    """Return the `synthetic_key` of each class and source of which the run has images."""
    return [key for key, details in run.results.synthetic.items() if details.images]


def _iter_images(
    run: Run, name: str, what: str, *classes: str
) -> Iterator[tuple[str, str, np.ndarray, dict[str, Any]]]:
    """Yield id, class, (S, S, 3) uint8 pixels and `METADATA` of an image set; a row group is in memory at a time.

    Raises:
        UserError: `image_set.invalid` or `image_set.corrupt`.
    """
    path, size = run.file(name), run.record.image_size
    header = read_header(path)
    try:
        for table in iter_tables(path, *classes):
            columns = [table.column(name).to_pylist() for name in ("image_id", "dx", "image", "pixel_sha256")]
            metadata = table.select(METADATA).to_pylist()
            for image_id, dx, image, expected, patient in zip(*columns, metadata, strict=True):
                with Image.open(io.BytesIO(image["bytes"]), formats=("PNG",)) as opened:
                    if opened.size != (size, size) or header.image_size != size:  # before it is decoded
                        raise ValueError("another size")
                    pixels = np.asarray(opened.convert("RGB"))
                if pixel_sha256(pixels) != expected or dx not in run.classes:
                    raise ValueError("another hash or class")
                yield str(image_id), dx, pixels, patient
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise _corrupt(name, what) from error


def iter_synthetic(run: Run, key: str) -> Iterator[np.ndarray]:
    """Yield the synthetic images of a class, (S, S, 3) uint8.

    Raises:
        UserError: as in `image_set`; `image_set.corrupt`: images are missing, which is detected after the last one.
    """
    _, dx = parse_synthetic_key(key)
    name, what = f"synthetic/{key}.parquet", f"the synthetic images of {key}"
    count = 0
    for _, _, pixels, _ in _iter_images(run, name, what, dx):
        count += 1
        yield pixels
    if count != run.results.synthetic[key].images:
        raise _corrupt(name, what)


def _corrupt(name: str, what: str) -> UserError:
    return UserError(
        f"{name} does not hold {what}", "use the unchanged files of one run", "image_set.corrupt", path=name
    )


def read_examples(run: Run) -> list[tuple[str, str, np.ndarray, dict[str, Any]]]:
    """Return id, class, pixels and `METADATA` of at most `MAX_EXAMPLES` test images; errors as in `image_set`."""
    images = _iter_images(run, "examples.parquet", "test images of the run")
    return list(itertools.islice(images, MAX_EXAMPLES))


def describe_metadata(encoding: MetadataEncoding | None) -> dict[str, object] | None:
    """Return how metadata become the second input of a model, as JSON values; None for a model of images alone."""
    if encoding is None:
        return None
    return {
        "numbers": patient_metadata.inputs(encoding),
        "age": "(years - age_mean) / age_deviation, 0 if it is missing",
        "others": "1 if it applies, else 0; sex and localization in lower case; an unlisted value is missing",
        "missing": patient_metadata.encode_missing(encoding, 1)[0].tolist(),
        **encoding.model_dump(),
    }


def describe(run: Run, arm: Arm) -> Mapping[str, object]:
    """Return what a user of an arm's probabilities must know, as JSON values."""
    return {
        "notice": NOTICE,
        "arm": arm.name,
        "classes": list(arm.classes),
        "image_size": arm.image_size,
        "seeds": list(arm.seeds),
        "temperatures": list(arm.temperatures),
        "positive_classes": list(arm.positive),
        "threshold": arm.threshold,
        "metadata": describe_metadata(arm.encoding),
        "run": {"data": run.record.data, "data_sha256": run.record.data_sha256, "split": run.record.split}
        | {"split_sha256": run.record.split_sha256, "versions": run.record.versions},
    }
