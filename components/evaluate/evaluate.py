"""Phase 5: what the synthetic images brought, on real lesions that no model has seen. The only reader of the test
split.

Reads the test set, the three arms' models and records, and for the report's pictures the training and synthetic sets.
Writes the results as JSON, the predictions, and the report as HTML and Markdown.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pyarrow.compute as pc

from components.evaluate import measure, report
from components.shared import keras_run
from components.shared.errors import UserError
from components.shared.files import file_sha256, write_text, written_whole
from components.shared.image_set import Header, decoded, iter_tables, read_header, read_rows
from components.shared.progress import say
from components.shared.seeds import seed_of

ARMS = ("baseline", "oversampled", "augmented")
PICTURES = 8


def _first_pictures(path: str | Path, dx: str) -> list[bytes]:
    """PNG bytes of the first images of a class."""
    for table in iter_tables(path, dx):
        return pc.struct_field(table.column("image").slice(0, PICTURES), "bytes").to_pylist()
    return []


def _check(arm: str, model: str | Path, facts: dict[str, Any], header: Header) -> None:
    """Refuses a model that may have seen a test image, or whose record is another's."""
    if facts["model_sha256"] != file_sha256(model):
        raise UserError(f"the record of the arm {arm} does not belong to its model; take both from one run.")
    if (facts["data_sha256"], facts["split_sha256"]) != (header.data_sha256, header.split_sha256):
        raise UserError(
            f"the arm {arm} was trained on another split, so it may have seen test images; "
            "train it on this run's split."
        )


def evaluate(
    data: str,
    rare_classes: list[str],
    seed: int,
    test_set: str | Path,
    train_set: str | Path,
    validation_set: str | Path,
    synthetic_sets: Sequence[str | Path],
    gan_records: Sequence[str | Path],
    models: Mapping[str, str | Path],
    records: Mapping[str, str | Path],
    results: str | Path,
    predictions: str | Path,
    report_page: str | Path,
    comparison: str | Path,
) -> dict[str, Any]:
    """Judges the arms.

    Args:
        data: where the data came from.
        rare_classes: the classes that were rebalanced.
        seed: of the run.
        test_set: image set of the split `test`.
        train_set, validation_set: its brothers, for counts and pictures.
        synthetic_sets, gan_records: one for each rare class.
        models, records: arm → `.keras` model and the JSON that train_classifier wrote.
        results, predictions, report_page, comparison: where JSON, Parquet (a row for each arm and image), HTML and
            Markdown go.

    Returns:
        The results, as in the JSON.

    Raises:
        UserError: a model may have seen a test image, or files of different runs were mixed.
    """
    header = read_header(test_set)
    facts = {arm: json.loads(Path(records[arm]).read_text(encoding="utf-8")) for arm in ARMS}
    for arm in ARMS:
        _check(arm, models[arm], facts[arm], header)
    keras_run.start(seed_of(seed, "evaluate"))
    rows = read_rows(test_set, "test", ["image_id", "lesion_id", "dx"])
    chances = {}
    with decoded(test_set, "test") as pixels:
        truth = pixels.labels
        for arm in ARMS:
            chances[arm] = keras_run.probabilities(keras.saving.load_model(models[arm], compile=False), pixels.images)
            say("evaluate", f"{arm}: {len(truth):,} test images")
    arms, effect, verdict = measure.compare(
        truth,
        rows["lesion_id"].to_numpy(str),
        chances,
        header.classes,
        rare_classes,
        seed_of(seed, "bootstrap"),
    )
    for arm in ARMS:
        arms[arm] |= {key: facts[arm][key] for key in ("train_rows", "epochs", "best_epoch", "history", "seconds")}
    gans = {gan["dx"]: gan for path in gan_records for gan in [json.loads(Path(path).read_text(encoding="utf-8"))]}
    synthetic = {}
    pictures: dict[str, dict[str, list[bytes]]] = {
        dx: {"real": _first_pictures(train_set, dx), "synthetic": []} for dx in header.classes
    }
    for path in synthetic_sets:
        made = read_rows(path, "train", ["dx", "model_sha256"])
        dx = str(made["dx"].iloc[0])
        keys = ("architecture", "kimg", "model_sha256", "real_images", "seconds")
        synthetic[dx] = {"images": len(made)} | {key: gans[dx][key] for key in keys}
        pictures[dx]["synthetic"] = _first_pictures(path, dx)
    outcome: dict[str, Any] = {
        "run": {
            "data": data,
            "data_sha256": header.data_sha256,
            "split_sha256": header.split_sha256,
            "seed": seed,
            "image_size": header.image_size,
            "rare_classes": rare_classes,
            "settings": facts["baseline"]["settings"] | {"parameters": facts["baseline"]["parameters"]},
            "versions": facts["baseline"]["versions"],
        },
        "classes": list(header.classes),
        "splits": {
            split: measure.counts(read_rows(path, split, ["dx", "lesion_id"]), header.classes)
            for split, path in (("train", train_set), ("validation", validation_set), ("test", test_set))
        },
        "arms": arms,
        "synthetic": synthetic,
        "effect": effect,
        "verdict": verdict,
    }
    write_text(results, json.dumps(outcome, indent=1))
    columns = [f"p_{dx}" for dx in header.classes]
    table = pd.concat([rows.assign(arm=arm, **dict(zip(columns, chances[arm].T, strict=True))) for arm in ARMS])
    with written_whole(predictions) as part:
        table.to_parquet(part, index=False)
    write_text(report_page, report.render_html(outcome, pictures))
    write_text(comparison, report.render_markdown(outcome))
    difference = effect["augmented_minus_oversampled"]
    say(
        "evaluate",
        f"{verdict}: GAN effect {difference['value']:+.3f} ({difference['low']:+.3f} to {difference['high']:+.3f}) "
        f"on the {effect['metric']}",
    )
    return outcome


def roc_points(outcome_predictions: str | Path, arm: str, classes: list[str]) -> list[tuple[float, float, float]]:
    """The micro-averaged ROC curve of an arm, for the Kubeflow UI: (false positive rate, true positive rate,
    threshold).

    At most 100 points, since they travel as artifact metadata.
    """
    from sklearn.metrics import roc_curve

    table = pd.read_parquet(outcome_predictions)
    table = table[table["arm"] == arm]
    truth = np.array(classes)[None, :] == table["dx"].to_numpy()[:, None]
    chances = table[[f"p_{dx}" for dx in classes]].to_numpy()
    fpr, tpr, threshold = roc_curve(truth.ravel(), chances.ravel())
    chosen = np.unique(np.linspace(0, len(fpr) - 1, 100).astype(int))
    # The first threshold is infinite, which JSON has no word for.
    return [(float(fpr[i]), float(tpr[i]), float(min(threshold[i], 1.0))) for i in chosen]
