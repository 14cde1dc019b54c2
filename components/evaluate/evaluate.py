"""Phase 5: what the synthetic images brought, on real lesions that no model has seen. The only reader of the test
split.

Reads the test set, where there is one an external set, and the three arms' models and records; for thresholds and
temperatures the validation set; for counts and pictures the training and synthetic sets; for what the synthetic images
are the records of the GANs and of what was drawn. Writes the results as JSON,
the predictions, and the report as HTML and Markdown.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from components.evaluate import calibration, cards, gallery, report
from components.evaluate.calibration import Fixed
from components.evaluate.compare import ARMS, compare, counts
from components.evaluate.gallery import Pictures
from components.evaluate.metrics import SCALARS, Sample
from components.shared import keras_setup
from components.shared.errors import UserError
from components.shared.files import atomic_write, file_sha256, write_text
from components.shared.image_set import Header, open_pixels, read_header, read_rows, refuse_overlap
from components.shared.log import log_line
from components.shared.seeds import derive_seed


def read_records(paths: Sequence[str | Path]) -> list[dict[str, Any]]:
    """The JSON of models or GANs."""
    return [json.loads(Path(path).read_text(encoding="utf-8")) for path in paths]


def by_class(paths: Sequence[str | Path]) -> dict[str, dict[str, Any]]:
    """Class → what train_gan or generate_images wrote of it; each file holds a list, of one task's classes."""
    return {one["dx"]: one for path in paths for one in json.loads(Path(path).read_text(encoding="utf-8"))}


def check_models(
    models: Mapping[str, Sequence[str | Path]], records: Mapping[str, Sequence[dict[str, Any]]], header: Header
) -> list[int]:
    """The arms' seeds, after making sure that their models may be compared.

    Args:
        models, records: arm → `.keras` models and what train_classifier wrote of them, one a seed.
        header: of the set that they are to be judged on.

    Raises:
        UserError: a record is another model's, a model is of another split, or the arms differ in more than what they
            were trained on.
    """
    seeds: dict[str, list[int]] = {}
    settings: dict[str, str] = {}
    for arm in ARMS:
        if len(models[arm]) != len(records[arm]) or not models[arm]:
            raise UserError(f"the arm {arm} has {len(models[arm])} models and {len(records[arm])} records; give both.")
        for model, facts in zip(models[arm], records[arm], strict=True):
            if facts["arm"] != arm or facts["model_sha256"] != file_sha256(model):
                raise UserError(f"the record of the arm {arm} does not belong to its model; take both from one run.")
            if (facts["data_sha256"], facts["split_sha256"]) != (header.data_sha256, header.split_sha256):
                raise UserError(
                    f"the arm {arm} was trained on another split, so it may have seen test images; "
                    "train it on this run's split."
                )
            shared = {key: value for key, value in facts["settings"].items() if key != "seed"}
            settings[json.dumps([shared, facts["parameters"]], sort_keys=True)] = arm
        seeds[arm] = [facts["settings"]["seed"] for facts in records[arm]]
        if len({facts["train_set_sha256"] for facts in records[arm]}) > 1:
            raise UserError(f"the models of the arm {arm} were trained on different sets; train them on one.")
    if len(settings) > 1:
        raise UserError(
            f"the arms {' and '.join(dict.fromkeys(settings.values()))} were trained with different settings; "
            "train all arms alike."
        )
    if len({tuple(own) for own in seeds.values()}) > 1 or len(set(seeds[ARMS[0]])) < len(seeds[ARMS[0]]):
        raise UserError(f"the arms' seeds are {seeds}; train every arm with the same seeds, each once.")
    return seeds[ARMS[0]]


def refuse_seen(records: Mapping[str, Sequence[dict[str, Any]]], path: str | Path, split: str) -> None:
    """Makes sure that no model was trained or chosen on an image of a set, whatever the image's name.

    Args:
        records: name → records of classifiers or GANs.
        path, split: the image set.

    Raises:
        UserError: one was, or its record does not say what it has seen.
    """
    rows = read_rows(path, split, ["image_id", "pixel_sha256"])
    names = dict(zip(rows["pixel_sha256"].str[:16], rows["image_id"], strict=True))
    for name, facts in records.items():
        for one in facts:
            if "failed" in one:
                continue
            if "seen" not in one:
                raise UserError(f"the record of {name} does not say which images it has seen; train it anew.")
            seen = sorted(names.keys() & set(one["seen"]))
            if seen:
                raise UserError(
                    f"{name} has seen {len(seen)} of the {split} images ({names[seen[0]]}{', …' * (len(seen) > 1)}), "
                    "so nothing it says of them counts; make the split anew, or leave them out."
                )


def ask(models: Mapping[str, Sequence[str | Path]], images: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """What models say of images; each model is loaded once.

    Args:
        models: arm → `.keras` models, one a seed.
        images: set → (N, H, W, 3) uint8.

    Returns:
        Set → arm → (seeds, N, classes) float32 probabilities.
    """
    said: dict[str, dict[str, Any]] = {name: {arm: [] for arm in models} for name in images}
    for arm, paths in models.items():
        for path in paths:
            model = keras.saving.load_model(path, compile=False)
            for name, pixels in images.items():
                said[name][arm].append(keras_setup.predict_probabilities(model, pixels))
        log_line(
            "evaluate", f"{arm}: {len(paths)} models, {', '.join(f'{len(p):,} {n}' for n, p in images.items())} images"
        )
    return {name: {arm: np.stack(chances) for arm, chances in by_arm.items()} for name, by_arm in said.items()}


def predictions_table(
    rows: pd.DataFrame, name: str, said: Mapping[str, np.ndarray], seeds: Sequence[int], classes: Sequence[str]
) -> pd.DataFrame:
    """A row for each arm, seed and image of a set: image_id, lesion_id, dx, arm, seed, set, p_<class>…

    Args:
        rows: image_id, lesion_id and dx of the set's N images.
        name: of the set.
        said: arm → (seeds, N, classes).
        seeds, classes: their names.
    """
    columns = [f"p_{dx}" for dx in classes]
    return pd.concat(
        [
            rows.assign(arm=arm, seed=seed, set=name, **dict(zip(columns, chances.T, strict=True)))
            for arm, by_seed in said.items()
            for seed, chances in zip(seeds, by_seed, strict=True)
        ]
    )


def chances_of(
    table: pd.DataFrame, name: str, seeds: Sequence[int], classes: Sequence[str]
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """The rows and probabilities of a set in a table of predictions: the inverse of `predictions_table`."""
    columns = [f"p_{dx}" for dx in classes]
    table = table[table["set"] == name]
    parts = dict(iter(table.groupby(["arm", "seed"])))
    first = parts[ARMS[0], seeds[0]]
    return first[["image_id", "lesion_id", "dx"]].reset_index(drop=True), {
        arm: np.stack([parts[arm, seed].set_index("image_id").loc[first["image_id"], columns] for seed in seeds])
        for arm in ARMS
    }


def judged(
    rows: pd.DataFrame,
    said: Mapping[str, np.ndarray],
    fixed: Mapping[str, Sequence[Fixed]],
    classes: Sequence[str],
    malignant: Sequence[str],
    rare: Sequence[str],
    seeds: Sequence[int],
    seed: int,
) -> dict[str, Any]:
    """The comparison of the arms on one set: arms, effect and verdict.

    Args:
        rows: image_id, lesion_id and dx of N images.
        said: arm → (seeds, N, classes).
        fixed: arm → what validation decided, one a seed.
        classes, malignant, rare: names.
        seeds: of the models.
        seed: of the draws.
    """
    truth = pd.Categorical(rows["dx"], categories=list(classes)).codes.astype(int)
    sample = Sample(truth, rows["lesion_id"].to_numpy(str), tuple(classes), tuple(malignant))
    predictions = {arm: calibration.apply(said[arm], fixed[arm], sample.is_malignant) for arm in ARMS}
    arms, effect, verdict = compare(sample, predictions, rare, seeds, seed)
    for arm in ARMS:
        arms[arm]["temperature"] = [round(model.temperature, 6) for model in fixed[arm]]
    return {"arms": arms, "effect": effect, "verdict": verdict}


def decide(
    rows: pd.DataFrame, said: Mapping[str, np.ndarray], classes: Sequence[str], malignant: Sequence[str]
) -> dict[str, list[Fixed]]:
    """What validation decides for each model, by arm; arguments as in `judged`."""
    truth = pd.Categorical(rows["dx"], categories=list(classes)).codes.astype(int)
    group = np.isin(classes, malignant)
    return {arm: [calibration.fix(truth, chances, group) for chances in by_seed] for arm, by_seed in said.items()}


def sentence(outcome: Mapping[str, Any], seeds: Sequence[int], where: str = "") -> str:
    """The verdict, the primary difference and its interval, on one line."""
    effect = outcome["effect"]
    if effect["value"] is None:
        return f"{outcome['verdict']}{where}: there is no image of a rare class"
    alone = " (one seed: of these models only)" if len(seeds) == 1 else ""
    return (
        f"{outcome['verdict']}{where}: GAN effect {effect['value']:+.3f} ({effect['low']:+.3f} to "
        f"{effect['high']:+.3f}) on the {effect['metric']}{alone}"
    )


def evaluate(
    data: str,
    split: str,
    external_data: str,
    rare_classes: list[str],
    malignant: list[str],
    seed: int,
    test_set: str | Path,
    external_set: str | Path,
    train_set: str | Path,
    validation_set: str | Path,
    synthetic_sets: Sequence[str | Path],
    gan_records: Sequence[str | Path],
    quality: Sequence[str | Path],
    models: Mapping[str, Sequence[str | Path]],
    records: Mapping[str, Sequence[str | Path]],
    results: str | Path,
    predictions: str | Path,
    report_page: str | Path,
    comparison: str | Path,
    model_card: str | Path,
    data_sheet: str | Path,
) -> dict[str, Any]:
    """Judges the arms.

    Args:
        data, split, external_data: where the data came from, how it was split, where the external images came from.
        rare_classes: the classes that were rebalanced.
        malignant: the classes whose sensitivity as a group is measured; those that the data lacks are left out.
        seed: of the run.
        test_set: image set of the split `test`.
        external_set: image set of the split `external`, with no rows where there is none.
        train_set, validation_set: image sets of the same split.
        synthetic_sets, gan_records, quality: of each task that made synthetic images: the image set of its classes, and
            what train_gan and generate_images wrote of them, lists in JSON.
        models, records: arm → `.keras` models and the JSON that train_classifier wrote, one for each seed, in the same
            order in all arms.
        results, predictions, report_page, comparison: where JSON, Parquet (a row for each arm, seed and image of
            validation, test and external set), HTML and Markdown go.
        model_card, data_sheet: where these, in Markdown, go.

    Returns:
        The results, as in the JSON.

    Raises:
        UserError: a model may have seen a test or external image, the arms differ in more than their training set and
            seed, or files of different runs were mixed.
    """
    header = read_header(test_set)
    classes = header.classes
    facts = {arm: read_records(records[arm]) for arm in ARMS}
    seeds = check_models(models, facts, header)
    gans, drawn = by_class(gan_records), by_class(quality)
    for dx, gan in gans.items():
        if gan["split_sha256"] != header.split_sha256:
            raise UserError(f"the GAN of {dx} is of another split, so it may have seen test images; train it anew.")
    paths = {"validation": validation_set, "test": test_set}
    if len(read_rows(external_set, "external", ["dx"])):
        paths["external"] = external_set
    seen = {f"the arm {arm}": facts[arm] for arm in ARMS} | {f"the GAN of {dx}": [gan] for dx, gan in gans.items()}
    for name in [name for name in paths if name != "validation"]:
        other = read_header(paths[name])
        if (other.classes, other.image_size) != (classes, header.image_size):
            raise UserError(f"the {name} set has other classes or another image size; take all sets from one run.")
        refuse_overlap(paths[name], name, [train_set, *synthetic_sets])
        refuse_seen(seen, paths[name], name)
    malignant = [dx for dx in malignant if dx in classes]
    keras_setup.seed_everything(derive_seed(seed, "evaluate"))
    rows = {name: read_rows(path, name, ["image_id", "lesion_id", "dx"]) for name, path in paths.items()}
    with ExitStack() as stack:
        said = ask(models, {name: stack.enter_context(open_pixels(path, name)).images for name, path in paths.items()})
    fixed = decide(rows["validation"], said["validation"], classes, malignant)
    found = {
        name: judged(rows[name], said[name], fixed, classes, malignant, rare_classes, seeds, seed)
        for name in paths
        if name != "validation"
    }
    for arm in ARMS:
        found["test"]["arms"][arm] |= {
            "train_rows": facts[arm][0]["train_rows"],
            "models": {
                str(one["settings"]["seed"]): {key: one[key] for key in ("epochs", "best_epoch", "history", "seconds")}
                for one in facts[arm]
            },
        }
    first = facts[ARMS[0]][0]
    outcome: dict[str, Any] = {
        "run": {
            "data": data,
            "data_sha256": header.data_sha256,
            "split_sha256": header.split_sha256,
            "split": split,
            "seed": seed,
            "seeds": seeds,
            "image_size": header.image_size,
            "rare_classes": rare_classes,
            "malignant": malignant,
            "settings": {key: value for key, value in first["settings"].items() if key != "seed"}
            | {"parameters": first["parameters"]},
            "versions": first["versions"],
        },
        "classes": list(classes),
        "splits": {
            name: counts(read_rows(path, name, ["dx", "lesion_id"]), classes)
            for name, path in (("train", train_set), ("validation", validation_set), ("test", test_set))
        },
        **found["test"],
        "population": cards.population({"train": train_set, "validation": validation_set, "test": test_set}),
        "synthetic": _synthetic(synthetic_sets, gans, drawn),
        "external": None,
    }
    if "external" in paths:
        outcome["external"] = {"data": external_data, "counts": counts(rows["external"], classes), **found["external"]}
    write_text(results, json.dumps(outcome, indent=1))
    tables = [predictions_table(rows[name], name, said[name], seeds, classes) for name in paths]
    with atomic_write(predictions) as part:
        pd.concat(tables).to_parquet(part, index=False)
    shown = gallery.collect(
        classes,
        malignant,
        train_set,
        test_set,
        synthetic_sets,
        gans,
        drawn,
        {arm: models[arm][0] for arm in ARMS},
        said["test"],
    )
    write_pages(outcome, shown, report_page, comparison)
    write_text(model_card, cards.model_card(outcome))
    write_text(data_sheet, cards.data_sheet(outcome))
    for dx, made in outcome["synthetic"].items():
        if "failed" in made:
            log_line("evaluate", f"no synthetic images of {dx}: {made['failed']}")
    if "external" in paths:
        log_line("evaluate", sentence(found["external"], seeds, " on the external images"))
    log_line("evaluate", sentence(outcome, seeds))
    return outcome


def _synthetic(
    paths: Sequence[str | Path], gans: Mapping[str, dict[str, Any]], drawn: Mapping[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """What was made of each rare class, by what, and how good it is; `failed` says why nothing was."""
    made = Counter(dx for path in paths for dx in read_rows(path, "train", ["dx"])["dx"])
    return {
        dx: {"images": made[dx]}
        | {key: gan[key] for key in report.OF_GAN if key in gan}
        | {key: drawn[dx][key] for key in report.OF_IMAGES if key in drawn[dx]}
        for dx, gan in gans.items()
    }


def write_pages(outcome: dict[str, Any], shown: Pictures, report_page: str | Path, comparison: str | Path) -> None:
    """The report as HTML and Markdown."""
    write_text(report_page, report.render_html(outcome, shown))
    write_text(comparison, report.render_markdown(outcome))


def roc_points(predictions: str | Path, arm: str, classes: list[str]) -> list[tuple[float, float, float]]:
    """The micro-averaged ROC curve of an arm on the test images, all seeds together, for the Kubeflow UI: (false
    positive rate, true positive rate, threshold).

    At most 100 points, since they travel as artifact metadata.
    """
    from sklearn.metrics import roc_curve

    table = pd.read_parquet(predictions, filters=[("arm", "==", arm), ("set", "==", "test")])
    truth = np.array(classes)[None, :] == table["dx"].to_numpy()[:, None]
    chances = table[[f"p_{dx}" for dx in classes]].to_numpy()
    fpr, tpr, threshold = roc_curve(truth.ravel(), chances.ravel())
    chosen = np.unique(np.linspace(0, len(fpr) - 1, 100).astype(int))
    # The first threshold is infinite, which JSON has no word for.
    return [(float(fpr[i]), float(tpr[i]), float(min(threshold[i], 1.0))) for i in chosen]


def scalars(outcome: Mapping[str, Any]) -> dict[str, float]:
    """What the Kubeflow UI compares runs by: the GAN effect with its interval, and each arm's figures, under names that
    are unique in the run; what can't be said is left out."""
    named = {f"gan_effect_{key}": outcome["effect"][key] for key in ("value", "low", "high")}
    named |= {f"{arm}_{name}": outcome["arms"][arm][name] for arm in ARMS for name in SCALARS}
    return {name: value for name, value in named.items() if value is not None}
