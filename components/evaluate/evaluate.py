"""Compare the arms on test lesions that no model was trained on; the only phase that reads the test split.

Thresholds and temperatures are fitted on validation. Writes the results as JSON, the predictions, model card and data
sheet, and the report as HTML and Markdown.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd

from components.evaluate import planned
from components.evaluate.champion import compare_champion
from components.evaluate.predict import label_fidelity, skin_tone
from components.evaluate.predict.guards import check_inputs
from components.evaluate.predict.inputs import Inputs, read_inputs
from components.evaluate.predict.probabilities import predict, predictions_table
from components.evaluate.predict.reference import write_examples, write_reference
from components.evaluate.report import cards, gallery, page
from components.evaluate.results import (
    calibrate_arms,
    calibrate_predictions,
    compare_on,
    describe_models,
    describe_run,
    describe_splits,
    describe_synthetic,
    headline,
    write_cards,
    write_pages,
    write_results,
)
from components.evaluate.statistics.compare import count_images
from components.evaluate.statistics.subgroups import compare_subgroups, group_images
from components.shared import keras_setup
from components.shared import parameters as parameters_of_runs
from components.shared.files import atomic_folder
from components.shared.image_set import open_pixels, read_header, read_rows
from components.shared.log import log_line
from components.shared.records import (
    CitedPlan,
    ExternalOutcome,
    Results,
    Scalar,
    SubgroupAttribute,
    SyntheticDetails,
)
from components.shared.seeds import derive_seed


def evaluate(
    training_data: str | Path,
    test_data: str | Path,
    synthetic_images: str | Path,
    classifiers: Sequence[str | Path],
    positive_classes: str,
    parameters: Mapping[str, Scalar],
    results: str | Path,
    report: str | Path,
    plan: str = "",
    champion: str | Path | None = None,
) -> Results:
    """Compare the arms of a run.

    Args:
        training_data, test_data, synthetic_images, classifiers: folders, see `inputs.read_inputs`.
        positive_classes: the parameter of this name: the classes whose sensitivity as a group is measured.
        parameters: parameters of the pipeline, by their names in its form; `data`, `data_external`, `data_split` and
            `random_seed` are required.
        results: folder to create, with `metrics.json`, `predictions.parquet` (a row for each arm, seed and image of
            validation, test and external set), `comparison.md`, `model_card.md`, `data_sheet.md`, `reference.parquet`
            and `reference.json` (training images that new images are compared with) and `examples.parquet`.
        report: HTML page to write.
        plan: text of the plan that the run cites; empty for none.
        champion: folder that `read_champion` wrote; None without the option `champion`.

    Returns:
        The content of `metrics.json`.

    Raises:
        UserError: a model may have seen a test or external image, the arms differ in more than their training set, or
            files of different runs were mixed, the data lacks a positive class, or the champion is damaged.
    """
    inputs = read_inputs(training_data, test_data, synthetic_images, classifiers)
    seeds = check_inputs(inputs)
    cited = planned.cite(plan, inputs, seeds, {**parameters, "positive_classes": positive_classes}) if plan else None
    classes = read_header(inputs.sets["test"]).classes
    malignant = _parse_positive_classes(positive_classes, classes)
    keras_setup.seed_everything(derive_seed(int(parameters["random_seed"] or 0), "evaluate"))
    rows = {name: read_rows(path, name, ["image_id", "lesion_id", "dx"]) for name, path in inputs.sets.items()}
    with ExitStack() as stack:
        sets = {name: stack.enter_context(open_pixels(path, name)) for name, path in inputs.sets.items()}
        probabilities = predict(inputs.classifiers, sets)
        shows_skin = set(classes) <= skin_tone.SKIN_CLASSES and parameters["data"] != "demo"
        groups = _group_test_images(inputs.sets["test"], sets["test"].images, shows_skin)
        outcome = _compare_all(inputs, rows, probabilities, groups, malignant, seeds, parameters, cited)
        if champion is not None:
            listed = Path(test_data) / "splits.csv"
            compared = compare_champion(Path(champion), inputs, listed, sets["test"], rows, probabilities, outcome)
            outcome = outcome.model_copy(update={"champion": compared})
    shown = gallery.collect(inputs, classes, malignant, probabilities["test"], page.shown_arms(outcome))
    tables = [predictions_table(rows[name], name, probabilities[name], seeds, classes) for name in inputs.sets]
    with atomic_folder(results) as folder:
        write_results(folder, outcome, pd.concat(tables))
        write_cards(folder, outcome)
        _write_images(folder, inputs, Path(synthetic_images))
        write_pages(outcome, shown, report, folder / "comparison.md")
    _log_outcome(outcome)
    return outcome


def _parse_positive_classes(positive_classes: str, classes: Sequence[str]) -> list[str]:
    """Return the classes whose sensitivity as a group is measured; log if there are none."""
    malignant = parameters_of_runs.positive_classes(positive_classes, classes)
    if not malignant:
        log_line("evaluate", "no positive classes: set positive_classes to measure the sensitivity of a group")
    return malignant


def _write_images(folder: Path, inputs: Inputs, synthetic_images: Path) -> None:
    """Write the training images that new images are compared with, and example test images."""
    features = synthetic_images / "models" / "features.keras"
    write_reference(features, inputs.train_set, inputs.sets["validation"], folder)
    write_examples(inputs.sets["test"], folder / "examples.parquet")


def _log_outcome(outcome: Results) -> None:
    """Log the failed GANs, and the verdicts on the external and the test images."""
    for dx, details in outcome.synthetic.items():
        if details.failed:
            log_line("evaluate", f"warning: no synthetic images of {dx}, its GAN failed: {details.failed}")
    if outcome.external:
        log_line("evaluate", headline(outcome.external, outcome.run, " on the external images"))
    log_line("evaluate", headline(outcome, outcome.run))


def _group_test_images(test_set: Path, images: np.ndarray, shows_skin: bool) -> dict[SubgroupAttribute, np.ndarray]:
    """Return attribute → the group of each test image; skin tone only of images that show skin."""
    rows = read_rows(test_set, "test", ["lesion_id", "age", "sex", "localization"])
    tones = skin_tone.estimate_tones(images, rows["lesion_id"].to_numpy(str)) if shows_skin else None
    return group_images(rows, tones)


def _compare_all(
    inputs: Inputs,
    rows: Mapping[str, pd.DataFrame],
    probabilities: Mapping[str, Mapping[str, np.ndarray]],
    groups: Mapping[SubgroupAttribute, np.ndarray],
    malignant: Sequence[str],
    seeds: Sequence[int],
    parameters: Mapping[str, Scalar],
    cited: CitedPlan | None,
) -> Results:
    """Return the results.

    Args:
        inputs: inputs of the run.
        rows: set → image_id, lesion_id and dx of its images.
        probabilities: set → arm → (seeds, N, classes).
        groups: attribute → the group of each test image.
        malignant: the classes whose sensitivity as a group is measured.
        seeds: seeds of the classifiers.
        parameters: parameters of the pipeline.
        cited: the plan that the run cites.
    """
    classes, seed = read_header(inputs.sets["test"]).classes, int(parameters["random_seed"] or 0)
    splits = describe_splits(inputs, classes)
    train_images = {dx: counts.images for dx, counts in splits["train"].items()}
    calibrations = calibrate_arms(rows["validation"], probabilities["validation"], classes, malignant, train_images)
    compared = {
        name: compare_on(
            rows[name], probabilities[name], calibrations, classes, malignant, inputs.rebalanced, seeds, seed
        )
        for name in inputs.sets
        if name != "validation"
    }
    tested = compared["test"]
    sample, predictions = calibrate_predictions(rows["test"], probabilities["test"], calibrations, classes, malignant)
    subgroups = compare_subgroups(groups, sample, predictions, tested.effect, inputs.rebalanced, seed)
    external = None
    if "external" in inputs.sets:
        external = ExternalOutcome(
            **dict(compared["external"]),
            data=str(parameters["data_external"]),
            counts=count_images(rows["external"], classes),
        )
    results = Results(
        run=describe_run(inputs, seeds, malignant, parameters, cited),
        classes=list(classes),
        splits=splits,
        arms={arm: describe_models(tested.arms[arm], inputs.classifiers[arm]) for arm in inputs.classifiers},
        effect=tested.effect,
        verdict=tested.verdict,
        population=cards.population(
            {"train": inputs.train_set, "validation": inputs.sets["validation"], "test": inputs.sets["test"]}
        ),
        synthetic=_describe_synthetic(inputs, rows["validation"], probabilities["validation"], classes),
        sources=dict(inputs.sources),
        external=external,
    )
    return results.model_copy(update={"subgroups": subgroups}) if subgroups else results


def _describe_synthetic(
    inputs: Inputs, validation: pd.DataFrame, probabilities: Mapping[str, np.ndarray], classes: Sequence[str]
) -> dict[str, SyntheticDetails]:
    """Return `synthetic_key` → details of the synthetic images, among them their label fidelity."""
    synthetic = describe_synthetic(inputs)
    if not synthetic:
        return {}
    measured = label_fidelity.measure(inputs, validation, probabilities[label_fidelity.ARM], classes)
    for key, (fidelity, recall) in measured.items():
        shares = {"label_fidelity": fidelity, "validation_recall": recall}
        synthetic[key] = synthetic[key].model_copy(update=shares)
    return synthetic
