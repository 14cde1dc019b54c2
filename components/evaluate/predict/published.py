"""The results, predictions, classifiers and training images of a published run, which may come from anyone.

Records are validated when they are read, and each file is compared with the manifest.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from components.evaluate.predict.guards import check_classifier
from components.evaluate.predict.inputs import Classifier
from components.evaluate.predict.probabilities import load_probabilities
from components.evaluate.predict.reference import TrainingImages, load_reference
from components.evaluate.results import calibrate_arms
from components.evaluate.statistics.calibration import ArmCalibration
from components.shared.errors import UserError
from components.shared.image_set import Header
from components.shared.published import classifier_stem, open_files
from components.shared.records import ClassifierRecord, Reference, Results, RunRecord, load_record

MAX_ROWS = 20_000_000
"""Rows of predictions, of about 0.1 kB in memory, even if the results of a run state more."""


@dataclass(frozen=True)
class Run:
    """A published run.

    Attributes:
        name: its location, for messages.
        file: returns the local path of one of its files, after comparing it with the manifest.
        files: names of all files.
        results: its `metrics.json`.
        record: `run` of the results, validated.
        classes: all classes of its data.
        predictions: its `predictions.parquet`.
    """

    name: str
    file: Callable[[str], Path]
    files: tuple[str, ...]
    results: Results
    record: RunRecord
    classes: tuple[str, ...]
    predictions: pd.DataFrame

    @property
    def header(self) -> Header:
        """What its image sets have in common."""
        return Header(
            self.classes, self.record.image_size, "external", self.record.data_sha256, self.record.split_sha256
        )

    def load(self, split: str) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
        """Return rows and probabilities of a set, by arm; see `load_probabilities`."""
        return load_probabilities(self.predictions, split, self.arms, self.record.seeds, self.classes)

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of its arms."""
        return tuple(self.results.arms)

    def classifiers(self, arm: str, seeds: Sequence[int] | None = None) -> list[Classifier]:
        """Return the classifiers of an arm, of some of the run's seeds or of all.

        Raises:
            UserError: a file is not that of the run, or is damaged; see `check_classifier`.
        """
        found = []
        for seed in seeds or self.record.seeds:
            stem = f"models/{classifier_stem(arm, seed, self.record.seeds[0])}"
            record = load_record(self.file(f"{stem}.json"), ClassifierRecord)
            found.append(Classifier(self.file(f"{stem}.keras"), record))
            check_classifier(arm, found[-1], self.header)
        return found

    def calibrate(self, *arms: str) -> dict[str, ArmCalibration]:
        """Return what was fitted on validation, by arm; of all arms if none is given."""
        images = {dx: counts.images for dx, counts in self.results.splits["train"].items()}
        rows, probabilities = self.load("validation")
        chosen = {arm: probabilities[arm] for arm in arms or self.arms}
        return calibrate_arms(rows, chosen, self.classes, self.record.malignant, images)


def open_run(name: str, fetch: Callable[[str], Path]) -> Run:
    """Open a published run.

    Args:
        name: its location, for messages.
        fetch: returns the local path of one of its files; raises a UserError if it does not exist.

    Raises:
        UserError: it is not a finished run of this pipeline, or a file differs from the published one.
    """
    manifest, file = open_files(name, fetch)
    results = load_record(file("metrics.json"), Results)
    try:
        predictions = _read_predictions(name, file("predictions.parquet"), results)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # without a number it is Arrow's, of a damaged file
            raise
        raise UserError(
            f"{name}: predictions.parquet is not a Parquet file",
            "use the unchanged files of one run",
            "predictions.invalid",
        ) from error
    return Run(name, file, tuple(manifest.files), results, results.run, tuple(results.classes), predictions)


def _read_predictions(name: str, path: Path, results: Results) -> pd.DataFrame:
    """Read the columns that `predictions_table` writes.

    Raises:
        UserError: `predictions.invalid`: there are more rows than images, arms and seeds give; constant ones take no
            bytes in the file.
    """
    metadata = pq.read_metadata(path)
    tested = [results.splits["validation"], results.splits["test"], results.external.counts if results.external else {}]
    images = sum(of_class.images for counts in tested for of_class in counts.values())
    most = min(images * len(results.arms) * len(results.run.seeds), MAX_ROWS)
    if metadata.num_rows > most:
        raise UserError(
            f"{name}: predictions.parquet has {metadata.num_rows:,} rows, more than {most:,}",
            "use the unchanged files of one run",
            "predictions.invalid",
            rows=metadata.num_rows,
        )
    columns = ["image_id", "lesion_id", "dx", "arm", "seed", "set", *(f"p_{dx}" for dx in results.classes)]
    return pd.read_parquet(path, columns=[column for column in columns if column in metadata.schema.names])


def load_training_images(run: Run) -> TrainingImages:
    """Load the training images that new images are compared with.

    Raises:
        UserError: the run has none, because an earlier version wrote it, or they are damaged.
    """
    if "reference.json" not in run.files:
        raise UserError(
            f"{run.name} has no reference.json, because an earlier version wrote it",
            "run the pipeline again with this version, with the same data and parameters",
            "run.earlier_version",
            run=run.name,
        )
    record = load_record(run.file("reference.json"), Reference)
    found = load_reference(record, run.file("reference.parquet"), run.file("models/features.keras"))
    size = run.record.image_size
    if found.extractor.model.input_shape != (None, size, size, 3):
        raise UserError(
            f"the feature extractor does not take images of {size} px",
            "use the unchanged files of one run",
            "features.invalid",
        )
    return found
