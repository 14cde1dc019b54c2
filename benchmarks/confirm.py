"""Confirm a use of synthetic images on five folds: `python -m benchmarks.confirm DATA=folder WORK=folder`.

    DATA    a folder, as for `counterweight run`
    WORK    folder of the runs by fold, which resume after a kill, and of the pooled result; another one for each recipe
            (default build/confirm-<px>)
    PARTS   folds to run now (default 1,2,3,4,5); when all five have finished, they are pooled
    others  parameters of the runs except data_split, as for `counterweight run`; they replace those of `SETTINGS`

The protocol is in docs/results/confirmation.md. Prints the tables of `scripts.results_tables` of the pooled folds.
"""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.machine import machine
from benchmarks.pipeline import choose, run_pipeline
from components.shared.errors import UserError, exit_on_user_error
from components.shared.records import Results, load_record
from counterweight.parameters import assignments, words
from scripts.results_tables import arms_table, effects_table

FOLDS = ("1", "2", "3", "4", "5")
SETTINGS = {
    "PRESET": "cpu",
    "arms": "baseline,oversampled,augmented",
    "classifier_seeds": "1,2,3,4,5",
    "data_duplicates": "move_to_train",
    "data_image_size": "32",
    "random_seed": "11",
    "synthetic_shares": "0.5",
}


def pool(folds: list[Path], folder: Path) -> Results:
    """Pool the folds, and return the results; end this program with the exit code if that fails."""
    runs = ",".join(str(fold) for fold in folds)
    done = subprocess.run([sys.executable, "-m", "counterweight", "evaluate", f"RUN={runs}", f"OUT={folder}"])
    if done.returncode:
        sys.exit(done.returncode)
    return load_record(folder / "metrics.json", Results)


def main(given: Mapping[str, str]) -> None:
    """Run folds, and pool them if all have finished.

    Raises:
        UserError: an option is missing or unknown, or as in `counterweight run` and `counterweight evaluate`.
    """
    if "DATA" not in given:
        raise UserError("DATA is missing", "give a folder of images", "option.missing", option="DATA")
    if "data_split" in given:
        raise UserError("data_split cannot be set: it is the fold", "choose folds with PARTS", "confirm.data_split")
    settings = SETTINGS | {name: value for name, value in given.items() if name not in ("WORK", "PARTS")}
    work = Path(given.get("WORK", f"build/confirm-{settings['data_image_size']}")).resolve()
    for part in choose("PARTS", given.get("PARTS", ""), FOLDS):
        run_pipeline(work / f"fold-{part}", settings | {"data_split": f"{part}/{len(FOLDS)}"})
    folds = [work / f"fold-{part}" for part in FOLDS]
    if missing := [fold.name for fold in folds if not (fold / "manifest.json").is_file()]:
        print(f"not finished: {', '.join(missing)}")
        return
    results, of = pool(folds, work / "pooled"), machine()
    print("\n".join([f"\n{of['cores']} virtual cores of {of['cpu']}\n", *arms_table(results), *effects_table(results)]))


if __name__ == "__main__":
    with exit_on_user_error():
        main(assignments(words(sys.argv[1:])))
