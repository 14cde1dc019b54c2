"""Finished runs judged again: their models on outside data, or the folds of a k-fold run pooled.

Reads what `publish` wrote, each file checked against the manifest. Thresholds and temperatures come from the published
predictions for validation, so that nothing but the models and the new images is needed.
"""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from components.evaluate import calibration
from components.evaluate.compare import ARMS, compare, counts
from components.evaluate.evaluate import (
    ask,
    chances_of,
    check_models,
    decide,
    judged,
    predictions_table,
    read_records,
    refuse_seen,
)
from components.evaluate.metrics import Predictions, Sample
from components.shared import keras_setup
from components.shared.errors import UserError
from components.shared.files import file_sha256
from components.shared.image_set import Header, open_pixels, read_rows
from components.shared.seeds import derive_seed

SAME = ("data", "data_sha256", "seed", "seeds", "image_size", "rare_classes", "malignant", "settings")


@dataclass(frozen=True)
class Run:
    """A published run.

    Attributes:
        name: where it is, for messages.
        file: gives the local path of one of its files, once it has been checked.
        files: the names of all.
        results: its metrics.json.
        predictions: its predictions.parquet.
    """

    name: str
    file: Callable[[str], Path]
    files: tuple[str, ...]
    results: dict[str, Any]
    predictions: pd.DataFrame

    @property
    def classes(self) -> tuple[str, ...]:
        """All classes of its data."""
        return tuple(self.results["classes"])

    @property
    def header(self) -> Header:
        """What its image sets had in common."""
        facts = self.results["run"]
        return Header(self.classes, facts["image_size"], "external", facts["data_sha256"], facts["split_sha256"])


def open_run(name: str, bring: Callable[[str], Path]) -> Run:
    """Opens a published run.

    Args:
        name: where it is, for messages.
        bring: gives the local path of one of its files; raises a UserError where there is none.

    Raises:
        UserError: it is not a finished run of this pipeline, or a file is not the one that was published.
    """
    try:
        manifest = json.loads(bring("manifest.json").read_text(encoding="utf-8"))["files"]
        hashes = {str(key): str(entry["sha256"]) for key, entry in manifest.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{name}: manifest.json is not of this pipeline; give the folder of a finished run.") from error

    def file(member: str) -> Path:
        if member not in hashes:
            raise UserError(f"{name} holds no {member}; give the folder of a finished run of this version.")
        path = bring(member)
        if file_sha256(path) != hashes[member]:
            raise UserError(f"{name}: {member} is not the file that was published; publish the run again.")
        return path

    results = json.loads(file("metrics.json").read_text(encoding="utf-8"))
    predictions = pd.read_parquet(file("predictions.parquet"))
    if "seeds" not in results["run"] or "set" not in predictions:
        raise UserError(f"{name} was made by an earlier version; run it again.")
    return Run(name, file, tuple(hashes), results, predictions)


def _rows_and_chances(run: Run, name: str) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    return chances_of(run.predictions, name, run.results["run"]["seeds"], run.classes)


def outside(run: Run, external_data: str, external_set: str | Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """A finished run's models on images from elsewhere.

    Args:
        run: opened.
        external_data: where the images came from.
        external_set: image set of the split `external`, with the run's classes and image size.

    Returns:
        The run's results with `external` filled, and its predictions with those for the external images.

    Raises:
        UserError: a model was trained on one of the images, or is not the run's.
    """
    facts = run.results["run"]
    seeds, seed = facts["seeds"], facts["seed"]
    stems = {arm: [arm, *(f"{arm}-seed{number}" for number in seeds[1:])] for arm in ARMS}
    models = {arm: [run.file(f"models/{stem}.keras") for stem in stems[arm]] for arm in ARMS}
    records = {arm: read_records([run.file(f"models/{stem}.json") for stem in stems[arm]]) for arm in ARMS}
    if check_models(models, records, run.header) != seeds:
        raise UserError(f"{run.name}: the models' seeds are not those of metrics.json; publish the run again.")
    gans = read_records([run.file(name) for name in run.files if re.fullmatch(r"models/gan-[^/]+\.json", name)])
    seen = {f"the arm {arm}": records[arm] for arm in ARMS} | {f"the GAN of {gan['dx']}": [gan] for gan in gans}
    refuse_seen(seen, external_set, "external")
    rows = read_rows(external_set, "external", ["image_id", "lesion_id", "dx"])
    keras_setup.seed_everything(derive_seed(seed, "evaluate"))
    with open_pixels(external_set, "external") as pixels:
        said = ask(models, {"external": pixels.images})["external"]
    fixed = decide(*_rows_and_chances(run, "validation"), run.classes, facts["malignant"])
    found = judged(rows, said, fixed, run.classes, facts["malignant"], facts["rare_classes"], seeds, seed)
    external = {"data": external_data, "counts": counts(rows, run.classes), **found}
    kept = run.predictions[run.predictions["set"] != "external"]
    table = pd.concat([kept, predictions_table(rows, "external", said, seeds, run.classes)])
    return run.results | {"external": external}, table


def _check_folds(runs: Sequence[Run]) -> None:
    first = runs[0].results["run"]
    splits = [str(run.results["run"]["split"]) for run in runs]
    of = splits[0].partition("/")[2]
    if not of.isdigit() or sorted(splits) != sorted(f"{fold}/{of}" for fold in range(1, int(of) + 1)):
        raise UserError(
            f"the runs have the splits {', '.join(splits)}; give one run of each fold, split=1/{of or 'n'} to "
            f"split={of or 'n'}/{of or 'n'}."
        )
    for run in runs[1:]:
        facts = run.results["run"]
        for key in SAME:
            if facts[key] != first[key] or run.classes != runs[0].classes:
                raise UserError(
                    f"{runs[0].name} and {run.name} differ in {key if facts[key] != first[key] else 'classes'}; pool "
                    "runs that differ in nothing but the fold."
                )
    owner: dict[str, str] = {}
    for run in runs:
        for lesion in _rows_and_chances(run, "test")[0]["lesion_id"].unique():
            if owner.setdefault(lesion, run.name) != run.name:
                raise UserError(f"the lesion {lesion} is in the test split of {owner[lesion]} and of {run.name}.")


def pooled(runs: Sequence[Run]) -> tuple[dict[str, Any], pd.DataFrame]:
    """The folds of a k-fold run as one: every lesion was a test lesion once, of models that had not seen it.

    Each fold's temperature and threshold come from its own validation split; the calibrated probabilities and the
    alarms are pooled, not the thresholds. A seed's figure is over all folds' models of that seed.

    Args:
        runs: opened, one of each fold, alike in everything else.

    Returns:
        Results in the form of metrics.json, and the test predictions of all folds. Training, validation and what is
        said of GANs are the first fold's; `run.folds` has each fold's split and verdict; a temperature is the mean over
        folds.

    Raises:
        UserError: a fold is missing or twice there, or the runs differ in more than the fold.
    """
    _check_folds(runs)
    runs = sorted(runs, key=lambda run: int(run.results["run"]["split"].partition("/")[0]))
    first, classes = runs[0].results, runs[0].classes
    facts = first["run"]
    group = np.isin(classes, facts["malignant"])
    tests, parts, temperatures = [], [], []
    for run in runs:
        fixed = decide(*_rows_and_chances(run, "validation"), classes, facts["malignant"])
        rows, said = _rows_and_chances(run, "test")
        tests.append(rows)
        parts.append({arm: calibration.apply(said[arm], fixed[arm], group) for arm in ARMS})
        temperatures.append({arm: [model.temperature for model in fixed[arm]] for arm in ARMS})
    rows = pd.concat(tests, ignore_index=True)
    truth = pd.Categorical(rows["dx"], categories=list(classes)).codes.astype(int)
    sample = Sample(truth, rows["lesion_id"].to_numpy(str), classes, tuple(facts["malignant"]))
    together = {arm: _joined([part[arm] for part in parts]) for arm in ARMS}
    arms, effect, verdict = compare(sample, together, facts["rare_classes"], facts["seeds"], facts["seed"])
    for arm in ARMS:
        means = np.mean([of_fold[arm] for of_fold in temperatures], axis=0)
        arms[arm] |= {
            "temperature": np.round(means, 6).tolist(),
            "train_rows": first["arms"][arm]["train_rows"],
            "models": {
                f"{seed}, fold {run.results['run']['split']}": model
                for run in runs
                for seed, model in run.results["arms"][arm]["models"].items()
            },
        }
    folds = [
        {key: run.results["run"][key] for key in ("split", "split_sha256")}
        | {"verdict": run.results["verdict"], "value": run.results["effect"]["value"]}
        for run in runs
    ]
    digest = hashlib.sha256("".join(fold["split_sha256"] for fold in folds).encode()).hexdigest()
    results = {
        "run": facts | {"split": f"{len(runs)} folds, pooled", "split_sha256": digest, "folds": folds},
        "classes": list(classes),
        "splits": first["splits"] | {"test": counts(rows, classes)},
        "arms": arms,
        "effect": effect,
        "verdict": verdict,
        "synthetic": first["synthetic"],
        "external": None,
    }
    tables = [
        run.predictions[run.predictions["set"] == "test"].assign(fold=run.results["run"]["split"]) for run in runs
    ]
    return results, pd.concat(tables)


def _joined(parts: Sequence[Predictions]) -> Predictions:
    """Predictions for one set of images after another."""
    alarms = [part.alarmed for part in parts]
    return Predictions(
        np.concatenate([part.chances for part in parts], axis=1),
        np.concatenate([part.scaled for part in parts], axis=1),
        None if any(alarm is None for alarm in alarms) else np.concatenate(alarms, axis=1),  # type: ignore[arg-type]
    )
