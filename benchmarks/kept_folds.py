"""Keep the test predictions of confirming folds in the repository, and print the tables of the confirmation from them.

    python -m benchmarks.kept_folds WORK=folder DESIGN=run,run

    WORK    folder of `benchmarks.confirm`, whose finished folds are kept first (default: none)
    DESIGN  as for `benchmarks.confirm`; required with WORK
    KEPT    folder of the kept folds (default benchmarks/confirmation)

A kept fold has what the tables need: for each image the probabilities of the models of the control and of each recipe,
and what was fitted on validation. No table is printed before all folds are there.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.confirm import FOLDS, RECIPES
from benchmarks.confirmed import Recipe, tables, validation_lesions
from components.evaluate.predict.probabilities import load_probabilities, predictions_table
from components.evaluate.results import labels_of
from components.evaluate.statistics import calibration
from components.evaluate.statistics.calibration import ArmCalibration, Calibration
from components.evaluate.statistics.metrics import Predictions, Sample
from components.shared.arms import CONTROL
from components.shared.errors import UserError, exit_on_user_error
from components.shared.files import atomic_write
from components.shared.parameters import split_names
from counterweight.parameters import assignments, words
from counterweight.reevaluate import concatenate, open_published

FOLDER = Path(__file__).with_name("confirmation")


def keep(runs: Mapping[str, Path], seen: set[str], path: Path) -> None:
    """Write the test predictions of one fold.

    Args:
        runs: finished run of the fold, by recipe.
        seen: lesions that the design has seen.
        path: Parquet file to write.

    Raises:
        UserError: `kept_folds.other_control`: the runs have different controls; or as in `open_published`.
    """
    tested: dict[str, np.ndarray] = {}
    fitted: dict[str, ArmCalibration] = {}
    with TemporaryDirectory() as scratch:
        for name, place in runs.items():
            run = open_published(str(place), Path(scratch) / name)
            arm = run.results.effect.arm
            rows, probabilities = run.load("test")
            if not np.array_equal(tested.setdefault(CONTROL, probabilities[CONTROL]), probabilities[CONTROL]):
                raise UserError(
                    f"the runs of {', '.join(runs)} have different controls",
                    "keep runs that differ in the use of synthetic images only",
                    "kept_folds.other_control",
                )
            calibrated = run.calibrate(CONTROL, arm)
            tested[name] = probabilities[arm]
            fitted |= {CONTROL: calibrated[CONTROL], name: calibrated[arm]}
    record = run.record
    table = pa.Table.from_pandas(predictions_table(rows, "test", tested, record.seeds, run.classes))
    common = {
        "split": record.split,
        "seed": record.seed,
        "seeds": record.seeds,
        "classes": run.classes,
        "rare": record.rebalanced_classes,
        "malignant": record.malignant,
        "fitted": {name: asdict(of_arm) for name, of_arm in fitted.items()},
        "seen": sorted(seen & set(rows["lesion_id"])),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as part:
        pq.write_table(
            table.replace_schema_metadata({"fold": json.dumps(common, default=np.ndarray.tolist)}),
            part,
            compression="zstd",
        )


def load_kept(paths: list[Path]) -> tuple[dict[str, Recipe], set[str]]:
    """Load kept folds.

    Args:
        paths: one file of each fold, in their order.

    Returns:
        The recipes by name, and the lesions that the design has seen.
    """
    seen: set[str] = set()
    parts: dict[str, list[Predictions]] = {}
    all_rows: list[pd.DataFrame] = []
    for path in paths:
        table = pq.read_table(path)
        fold = json.loads(table.schema.metadata[b"fold"])
        group = np.isin(fold["classes"], fold["malignant"])
        rows, probabilities = load_probabilities(
            table.to_pandas(), "test", list(fold["fitted"]), fold["seeds"], fold["classes"]
        )
        for name, values in fold["fitted"].items():
            models = tuple(Calibration(**model) for model in values["models"])
            fitted = ArmCalibration(
                models, np.array(values["frequencies"]), values["prior_strength"], values["log_loss"]
            )
            parts.setdefault(name, []).append(calibration.apply(probabilities[name], fitted, group))
        all_rows.append(rows.assign(fold=fold["split"]))
        seen |= set(fold["seen"])
    pooled = pd.concat(all_rows, ignore_index=True)
    classes = tuple(fold["classes"])
    sample = Sample(labels_of(pooled, classes), pooled["lesion_id"].to_numpy(str), classes, tuple(fold["malignant"]))
    arms = {name: concatenate(of_arm) for name, of_arm in parts.items()}
    control, rare = arms.pop(CONTROL), tuple(fold["rare"])
    of_fold = pooled["fold"].to_numpy(str)
    return {name: Recipe(sample, of_fold, arm, control, rare, fold["seed"]) for name, arm in arms.items()}, seen


def main(given: Mapping[str, str]) -> None:
    """Keep finished folds, and print the tables if all are kept.

    Raises:
        UserError: an option is missing, or as in `keep`.
    """
    kept = Path(given.get("KEPT", FOLDER))
    paths = {part: kept / f"fold-{part}.parquet" for part in FOLDS}
    if "WORK" in given:
        if "DESIGN" not in given:
            raise UserError("DESIGN is missing", "give it with WORK", "option.missing", option="DESIGN")
        seen = validation_lesions([Path(run) for run in split_names(given["DESIGN"])])
        for part, path in paths.items():
            runs = {name: Path(given["WORK"]) / name / f"fold-{part}" for name in RECIPES}
            if not path.exists() and all((run / "manifest.json").is_file() for run in runs.values()):
                keep(runs, seen, path)
                print(f"kept fold {part}")
    if missing := [part for part, path in paths.items() if not path.exists()]:
        print(f"missing: fold {', '.join(missing)}")
        return
    recipes, seen = load_kept(list(paths.values()))
    print("\n".join(tables(recipes, seen)))


if __name__ == "__main__":
    with exit_on_user_error():
        main(assignments(words(sys.argv[1:])))
