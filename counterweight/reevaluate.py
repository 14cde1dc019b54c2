"""Evaluate published runs again: their models on external data, or the folds of a k-fold run pooled.

Reads what `publish` wrote. A run may come from anyone: records are validated when they are read, paths are resolved
below the run's folder, and each file is compared with the manifest. Thresholds and temperatures come from the published
predictions for validation, so nothing but the models and the new images is needed.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from components.evaluate.predict.guards import check_classifiers, refuse_seen, seen_by
from components.evaluate.predict.probabilities import predict, predictions_table
from components.evaluate.predict.published import Run, open_run
from components.evaluate.results import compare_on, labels_of
from components.evaluate.statistics import calibration
from components.evaluate.statistics.calibration import ArmCalibration
from components.evaluate.statistics.compare import Fitted, compare, count_images
from components.evaluate.statistics.metrics import Predictions, Sample
from components.shared import keras_setup
from components.shared.code_identity import code_sha256
from components.shared.errors import UserError
from components.shared.image_set import open_pixels, read_rows
from components.shared.records import (
    CitedPlan,
    ExternalOutcome,
    Fold,
    Results,
    RunRecord,
    load_gan_record,
)
from components.shared.seeds import derive_seed
from components.shared.storage import make_fetch

_FOLD_PARAMETERS = {"data_split", "output"}
"""Pipeline parameters in which the folds of a k-fold run may differ."""
_GAN_RECORD = re.compile(r"models/gan-[A-Za-z0-9_-]+\.json")


def open_published(place: str, scratch: Path) -> Run:
    """Open a published run.

    Args:
        place: folder or address.
        scratch: folder for downloaded files.

    Raises:
        UserError: as in `open_run`, or a file does not exist.
    """
    return open_run(place, make_fetch(place, scratch))


def evaluate_external(run: Run, external_data: str, external_set: str | Path) -> tuple[Results, pd.DataFrame]:
    """Evaluate the models of a published run on external images.

    Args:
        run: from `open_run`.
        external_data: where the images came from.
        external_set: image set of the split `external`, with the run's classes and image size.

    Returns:
        The run's results with `external` filled in, and its predictions with those for the external images.

    Raises:
        UserError: a model was trained on one of the images, or is not the run's.
    """
    record, classes = run.record, run.classes
    classifiers = {arm: run.classifiers(arm) for arm in run.arms}
    if check_classifiers(classifiers, run.header) != record.seeds:
        raise UserError(
            f"{run.name}: the seeds of the classifiers are not those of metrics.json",
            "publish the run again",
            "evaluate.different_seeds",
        )
    gan_records = {
        record.dx: record
        for record in (load_gan_record(run.file(name)) for name in run.files if _GAN_RECORD.fullmatch(name))
    }
    refuse_seen(seen_by(classifiers, gan_records), external_set, "external")
    rows = read_rows(external_set, "external", ["image_id", "lesion_id", "dx"])
    keras_setup.seed_everything(derive_seed(record.seed, "evaluate"))
    with open_pixels(external_set, "external") as pixels:
        probabilities = predict(classifiers, {"external": pixels})["external"]
    calibrations = run.calibrate()
    compared = compare_on(
        rows,
        probabilities,
        calibrations,
        classes,
        record.malignant,
        record.rebalanced_classes,
        record.seeds,
        record.seed,
    )
    external = ExternalOutcome(**dict(compared), data=external_data, counts=count_images(rows, classes))
    kept = run.predictions[run.predictions["set"] != "external"]
    table = pd.concat([kept, predictions_table(rows, "external", probabilities, record.seeds, classes)])
    return run.results.model_copy(update={"external": external}), table


def _fold_settings(run: Run) -> dict[str, Any]:
    """Return everything that must be equal in all folds."""
    record = run.record.model_dump(
        exclude={"split", "split_sha256", "parameters", "folds", "plan", "code", "pretraining_s"}
    )
    parameters = {key: value for key, value in run.record.parameters.items() if key not in _FOLD_PARAMETERS}
    return record | parameters | {"classes": list(run.classes), "arms": list(run.arms)}


def _check_folds(runs: Sequence[Run]) -> None:
    splits = [run.record.split for run in runs]
    total = splits[0].partition("/")[2]
    folds = int(total) if re.fullmatch(r"[0-9]{1,3}", total) else 0
    if not folds or sorted(splits) != sorted(f"{fold}/{folds}" for fold in range(1, folds + 1)):
        raise UserError(
            f"the runs have the splits {', '.join(splits)}",
            f"give one run of each fold, data_split=1/{folds or 'k'} to data_split={folds or 'k'}/{folds or 'k'}",
            "folds.incomplete",
            splits=splits,
        )
    first = _fold_settings(runs[0])
    for run in runs[1:]:
        other = _fold_settings(run)
        differing = sorted(key for key in first.keys() | other.keys() if first.get(key) != other.get(key))
        if differing:
            raise UserError(
                f"{runs[0].name} and {run.name} differ in {', '.join(differing)}",
                "pool runs that differ in the fold only",
                "folds.different_settings",
                settings=differing,
            )
    owner: dict[str, str] = {}
    for run in runs:
        for lesion in run.load("test")[0]["lesion_id"].unique():
            if owner.setdefault(lesion, run.name) != run.name:
                raise UserError(
                    f"the lesion {lesion} is in the test split of {owner[lesion]} and of {run.name}",
                    "pool folds of one split",
                    "folds.repeated_lesion",
                    lesion=lesion,
                )


def sort_folds(runs: Sequence[Run]) -> list[Run]:
    """Return the folds of a k-fold run in their order.

    Raises:
        UserError: a fold is missing or repeated, or the runs differ in more than the fold.
    """
    _check_folds(runs)
    return sorted(runs, key=lambda run: int(run.record.split.partition("/")[0]))


def pool_predictions(
    runs: Sequence[Run],
) -> tuple[pd.DataFrame, Sample, dict[str, Predictions], dict[str, Fitted]]:
    """Pool the test predictions of folds, from `sort_folds`.

    Returns:
        Image_id, lesion_id, dx and fold of each test image; the images as a sample; the predictions of each arm; and
        the means over folds of what was fitted on validation for each arm.
    """
    record, classes = runs[0].record, runs[0].classes
    group = np.isin(classes, record.malignant)
    tests, parts, calibrations = [], [], []
    for run in runs:
        fitted = run.calibrate()
        rows, probabilities = run.load("test")
        tests.append(rows.assign(fold=run.record.split))
        parts.append({arm: calibration.apply(probabilities[arm], fitted[arm], group) for arm in run.arms})
        calibrations.append(fitted)
    rows = pd.concat(tests, ignore_index=True)
    sample = Sample(labels_of(rows, classes), rows["lesion_id"].to_numpy(str), classes, tuple(record.malignant))
    pooled = {arm: concatenate([part[arm] for part in parts]) for arm in runs[0].arms}
    means = {arm: _mean_of_folds([of_fold[arm] for of_fold in calibrations]) for arm in runs[0].arms}
    return rows, sample, pooled, means


def pool_folds(runs: Sequence[Run]) -> tuple[Results, pd.DataFrame]:
    """Pool the folds of a k-fold run: each test lesion is predicted by models that were not trained on it.

    Each fold's temperature and threshold come from its own validation split; the calibrated probabilities and the
    alarms are pooled, not the thresholds. A seed's figure is over all folds' models of that seed.

    Args:
        runs: one of each fold, equal in everything else.

    Returns:
        The results, and the test predictions of all folds. Training and validation counts and
        details of GANs are those of the first fold; `run.folds` has each fold's split and verdict; a temperature is
        the mean over folds. The share of synthetic images is chosen by the mean of the folds' validation losses.

    Raises:
        UserError: a fold is missing or repeated, or the runs differ in more than the fold.
    """
    runs = sort_folds(runs)
    first, record, classes = runs[0].results, runs[0].record, runs[0].classes
    arms_of_run = runs[0].arms
    rows, sample, pooled, means = pool_predictions(runs)
    outcome = compare(sample, pooled, means, record.rebalanced_classes, record.seeds, record.seed)
    arms = {}
    for arm in arms_of_run:
        models = {
            f"{seed}, fold {run.record.split}": model
            for run in runs
            for seed, model in run.results.arms[arm].models.items()
        }
        trained = {"train_rows": first.arms[arm].train_rows, "models": models}
        arms[arm] = outcome.arms[arm].model_copy(update=trained)
    results = Results(
        run=_describe_folds(runs, int(rows["lesion_id"].nunique())),
        classes=list(classes),
        splits={**first.splits, "test": count_images(rows, classes)},
        arms=arms,
        effect=outcome.effect,
        verdict=outcome.verdict,
        synthetic=first.synthetic,
        external=None,
    )
    tables = [run.predictions[run.predictions["set"] == "test"].assign(fold=run.record.split) for run in runs]
    return results, pd.concat(tables)


def _mean_of_folds(calibrations: Sequence[ArmCalibration]) -> Fitted:
    """Return the means over folds of what was fitted on their validation splits for an arm."""
    temperatures = zip(*([model.temperature for model in of_fold.models] for of_fold in calibrations), strict=True)
    return Fitted(
        float(np.mean([of_fold.log_loss for of_fold in calibrations])),
        [round(float(np.mean(of_seed)), 6) for of_seed in temperatures],
        float(np.mean([of_fold.prior_strength for of_fold in calibrations])),
    )


def _describe_folds(runs: Sequence[Run], tested: int) -> RunRecord:
    """Return the record of the pooled runs, from that of the first; `tested` is the number of tested lesions."""
    folds = [
        Fold(
            split=run.record.split,
            split_sha256=run.record.split_sha256,
            verdict=run.results.verdict,
            value=run.results.effect.value,
        )
        for run in runs
    ]
    # A policy that moves lesions to train leaves some without a fold in which they are tested.
    lesions = sum(of_class.lesions for split in runs[0].results.splits.values() for of_class in split.values())
    digest = hashlib.sha256("".join(run.record.split_sha256 for run in runs).encode()).hexdigest()
    changes = {"split": f"{len(runs)} folds, pooled", "split_sha256": digest, "folds": folds}
    pooled = {"pooled_lesions": {"tested": tested, "all": lesions}, "plan": _pool_plans(runs)}
    return runs[0].record.model_copy(update=changes | pooled | {"code": code_sha256("evaluate")})


def _pool_plans(runs: Sequence[Run]) -> CitedPlan | None:
    """Return the citation of the plan that all folds cite, with the deviations of each; None if they cite none.

    A fold that other code evaluated than pools it is a deviation, because the plan is of one version.
    """
    plans = [run.record.plan for run in runs]
    first = plans[0]
    if first is None or any(plan is None or plan.sha256 != first.sha256 for plan in plans):
        return None
    deviations = [
        f"fold {run.record.split}: {text}"
        for run, plan in zip(runs, plans, strict=True)
        for text in (plan.deviations if plan else ())
    ]
    code = code_sha256("evaluate")
    deviations += [f"fold {run.record.split} was evaluated by other code" for run in runs if run.record.code != code]
    return first.model_copy(update={"deviations": deviations})


def concatenate(parts: Sequence[Predictions]) -> Predictions:
    """Return the predictions for several sets of images as those for one."""
    alarms = [part.alarms for part in parts if part.alarms is not None]
    corrected = [part.corrected for part in parts if part.corrected is not None]
    return Predictions(
        np.concatenate([part.probabilities for part in parts], axis=1),
        np.concatenate([part.scaled for part in parts], axis=1),
        np.concatenate(alarms, axis=1) if len(alarms) == len(parts) else None,
        np.concatenate(corrected, axis=1) if len(corrected) == len(parts) else None,
    )
