"""Results of a run in the form of `metrics.json`, the figures that Kubeflow compares runs by, and the files."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from components.evaluate.predict.inputs import Classifier, Inputs
from components.evaluate.report import cards, page
from components.evaluate.report.formatting import effect_name, show_interval, show_value
from components.evaluate.report.gallery import Gallery
from components.evaluate.statistics import calibration
from components.evaluate.statistics.calibration import ArmCalibration
from components.evaluate.statistics.compare import Fitted, compare, count_images
from components.evaluate.statistics.metrics import Predictions, Sample
from components.shared.arms import AUGMENTED, BASELINE, LATE_FUSION, share_of, uses_synthetic
from components.shared.code_identity import code_sha256
from components.shared.files import atomic_write, write_text
from components.shared.image_set import read_header, read_rows
from components.shared.records import (
    ArmResults,
    CitedPlan,
    ImageCounts,
    ModelCurves,
    Outcome,
    Results,
    RunRecord,
    Scalar,
    Split,
    SyntheticDetails,
    TrainedGan,
)

_OF_GAN = {"architecture", "kimg", "best_kimg", "model_sha256", "real_images", "seconds", "losses"}
_OF_IMAGES = {
    "source", "images", "kid", "density", "coverage", "other_coverage", "texture", "separability",
    "separability_spectrum", "drawn", "copies", "copy_threshold", "curated", "reject", "selection", "meeting",
    "against", "nearest",
}  # fmt: skip
_OF_SYNTHETIC = ("gan_architecture", "gan_kimg", "gan_shared_kimg", "synthetic", "synthetic_shares")
"""Parameters that change nothing in a run without synthetic images."""
_OF_MODEL = {"epochs", "real_views", "validated_epochs", "history", "seconds"}
_METRICS = {"2_rare_recall": "rare_recall", "3_balanced_accuracy": "balanced_accuracy", "4_macro_auc": "macro_auc"}


def labels_of(rows: pd.DataFrame, classes: Sequence[str]) -> np.ndarray:
    """Return (N,) int, the label of each row: the index of its `dx` in `classes`."""
    return pd.Categorical(rows["dx"], categories=list(classes)).codes.astype(int)


def calibrate_arms(
    rows: pd.DataFrame,
    probabilities: Mapping[str, np.ndarray],
    classes: Sequence[str],
    malignant: Sequence[str],
    train_images: Mapping[str, int],
) -> dict[str, ArmCalibration]:
    """Return arm → everything that is fitted on validation.

    Args:
        rows: dx of the N validation images.
        probabilities: arm → (seeds, N, classes).
        classes, malignant: names.
        train_images: class → number of real training images.
    """
    truth, group = labels_of(rows, classes), np.isin(classes, malignant)
    counts = np.maximum([train_images.get(dx, 0) for dx in classes], 1)
    frequencies = counts / counts.sum()
    return {
        arm: calibration.calibrate_arm(truth, by_seed, group, frequencies) for arm, by_seed in probabilities.items()
    }


def calibrate_predictions(
    rows: pd.DataFrame,
    probabilities: Mapping[str, np.ndarray],
    calibrations: Mapping[str, ArmCalibration],
    classes: Sequence[str],
    malignant: Sequence[str],
) -> tuple[Sample, dict[str, Predictions]]:
    """Return the images of a set, and arm → predictions with everything that was fitted on validation.

    Args:
        rows: image_id, lesion_id and dx of N images.
        probabilities: arm → (seeds, N, classes).
        calibrations: arm → from `calibrate_arms`.
        classes, malignant: names.
    """
    sample = Sample(labels_of(rows, classes), rows["lesion_id"].to_numpy(str), tuple(classes), tuple(malignant))
    return sample, {
        arm: calibration.apply(of_arm, calibrations[arm], sample.is_malignant) for arm, of_arm in probabilities.items()
    }


def compare_on(
    rows: pd.DataFrame,
    probabilities: Mapping[str, np.ndarray],
    calibrations: Mapping[str, ArmCalibration],
    classes: Sequence[str],
    malignant: Sequence[str],
    rebalanced: Sequence[str],
    seeds: Sequence[int],
    seed: int,
) -> Outcome:
    """Return the comparison of the arms on one set.

    Args:
        rows: image_id, lesion_id and dx of N images.
        probabilities: arm → (seeds, N, classes).
        calibrations: arm → from `calibrate_arms`.
        classes, malignant, rebalanced: names; the primary figure is over the rebalanced classes.
        seeds: seeds of the models.
        seed: seed of the resampling.
    """
    sample, predictions = calibrate_predictions(rows, probabilities, calibrations, classes, malignant)
    fitted = {
        arm: Fitted(it.log_loss, [round(model.temperature, 6) for model in it.models], it.prior_strength)
        for arm, it in calibrations.items()
    }
    return compare(sample, predictions, fitted, rebalanced, seeds, seed)


def describe_run(
    inputs: Inputs,
    seeds: Sequence[int],
    malignant: Sequence[str],
    parameters: Mapping[str, Scalar],
    plan: CitedPlan | None,
) -> RunRecord:
    """Return what the result depends on: data, split, seeds, settings and versions.

    Args:
        inputs: inputs of the run.
        seeds: seeds of its classifiers.
        malignant: the classes whose sensitivity as a group is measured.
        parameters: parameters of the pipeline, by their names in its form.
        plan: the plan that the run cites.
    """
    header, first = read_header(inputs.sets["test"]), inputs.classifiers[BASELINE][0].record
    settings = first.settings.model_dump(exclude={"seed"}, exclude_none=True)
    settings |= {"metadata": LATE_FUSION} if first.metadata else {}
    ignored = () if uses_synthetic(inputs.classifiers) else _OF_SYNTHETIC
    record = RunRecord(
        data=str(parameters["data"]),
        data_sha256=header.data_sha256,
        split=str(parameters["data_split"]),
        split_sha256=header.split_sha256,
        seed=int(parameters["random_seed"] or 0),
        seeds=list(seeds),
        image_size=header.image_size,
        rare_classes=list(inputs.rare),
        rebalanced_classes=list(inputs.rebalanced),
        malignant=list(malignant),
        pretraining_s=inputs.pretraining_s,
        settings=settings | {"parameters": first.parameters},
        parameters={name: it for name, it in parameters.items() if name not in ignored},
        versions=first.versions,
        source=inputs.source,
        code=code_sha256("evaluate"),
        **asdict(inputs.use),
    )
    return record.model_copy(update={"plan": plan}) if plan else record


def describe_models(figures: ArmResults, classifiers: Sequence[Classifier]) -> ArmResults:
    """Return an arm's results with the training of its classifiers."""
    models = {
        str(classifier.record.settings.seed): ModelCurves(**classifier.record.model_dump(include=_OF_MODEL))
        for classifier in classifiers
    }
    return figures.model_copy(update={"train_rows": classifiers[0].record.train_rows, "models": models})


def describe_splits(inputs: Inputs, classes: Sequence[str]) -> dict[Split, dict[str, ImageCounts]]:
    """Return split → class → numbers of images and lesions."""
    paths: dict[Split, Path] = {"train": inputs.train_set}
    paths |= {"validation": inputs.sets["validation"], "test": inputs.sets["test"]}
    return {name: count_images(read_rows(path, name, ["dx", "lesion_id"]), classes) for name, path in paths.items()}


def describe_synthetic(inputs: Inputs) -> dict[str, SyntheticDetails]:
    """Return `synthetic_key` → details about the synthetic images and their GAN."""
    synthetic: dict[str, SyntheticDetails] = {}
    for dx, record in inputs.gan_records.items():
        if isinstance(record, TrainedGan):
            quality = inputs.qualities[dx].model_dump(include=_OF_IMAGES)
            synthetic[dx] = SyntheticDetails(**(quality | record.model_dump(include=_OF_GAN)))
        else:
            synthetic[dx] = SyntheticDetails(images=0, architecture=record.architecture, failed=record.failed)
    given = {key: it for key, it in inputs.qualities.items() if key not in synthetic}
    return synthetic | {
        key: SyntheticDetails(**quality.model_dump(include=_OF_IMAGES)) for key, quality in given.items()
    }


def headline(outcome: Outcome, run: RunRecord, where: str = "") -> str:
    """Return the verdict, the primary difference and its interval, on one line.

    Args:
        outcome: the comparison on one set.
        run: the run.
        where: inserted after the verdict.
    """
    effect = outcome.effect
    if effect.value is None:
        image = "the set has no image of a rebalanced class"
        reason = image if run.rebalanced_classes else "no rare class has synthetic images of every source"
        return f"{outcome.verdict}{where}: {reason}"
    note = " (one seed: valid for these models only)" if len(run.seeds) == 1 else ""
    return (
        f"{outcome.verdict}{where}: {effect_name(effect.arm)} {show_value(effect, '+')} ({show_interval(effect, '+')})"
        f" on the {effect.metric}{note}"
    )


def headline_metrics(outcome: Outcome) -> dict[str, float]:
    """Return the dozen figures that Kubeflow shows and compares runs by; the first in alphabetical order is the result.

    Figures that cannot be computed are absent.
    """
    effect = outcome.effect
    name, chosen = ("1_gan_effect", AUGMENTED) if share_of(effect.arm) is not None else ("1_remedy_effect", "remedy")
    figures = {name: effect.value, f"{name}_low": effect.low, f"{name}_high": effect.high}
    # Fixed names: the chosen arm differs from run to run.
    shown = {BASELINE: BASELINE, effect.reference: effect.reference, effect.arm: chosen}
    figures |= {
        f"{key}_{title}": getattr(outcome.arms[arm], name)
        for key, name in _METRICS.items()
        for arm, title in shown.items()
    }
    return {name: value for name, value in figures.items() if value is not None}


def write_pages(results: Results, gallery: Gallery, report_page: str | Path, comparison: str | Path) -> None:
    """Write the report as HTML and as Markdown."""
    write_text(report_page, page.render_html(results, gallery))
    write_text(comparison, page.render_markdown(results))


def write_results(folder: Path, results: Results, predictions: pd.DataFrame) -> None:
    """Write `metrics.json` and `predictions.parquet` into a folder."""
    # What does not apply to a run is absent, instead of null.
    write_text(folder / "metrics.json", results.model_dump_json(indent=1, exclude_unset=True))
    with atomic_write(folder / "predictions.parquet") as part:
        predictions.to_parquet(part, index=False)


def write_cards(folder: Path, results: Results) -> None:
    """Write `model_card.md` and `data_sheet.md` into a folder."""
    write_text(folder / "model_card.md", cards.model_card(results))
    write_text(folder / "data_sheet.md", cards.data_sheet(results))
