"""Confirm uses of synthetic images on five folds: `python -m benchmarks.confirm DATA=folder DESIGN=run,run`.

    DATA    a folder, as for `counterweight run`; the same text in every call
    DESIGN  finished runs of `benchmarks.use_trials` that decided about the design, one of each split
    WORK    folder of the runs, by recipe and fold, which resume after a kill (default build/confirm)
    PARTS   folds to run now (default 1,2,3,4,5); when all five have finished, the recipes are tested
    others  parameters of the runs except data_split, as for `counterweight run`; they replace those of `SETTINGS`

The protocol is in docs/results/confirmation.md. All runs are of one commit without local changes. What a run prints
goes to a file beside its folder, so that no figure of a fold is seen before all have finished. Prints the tables of
`benchmarks.confirmed`.
"""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.confirmed import load_recipe, tables, validation_lesions
from benchmarks.machine import machine
from benchmarks.pipeline import choose, run_pipeline
from components.shared.errors import UserError, exit_on_user_error
from components.shared.parameters import split_names
from counterweight.parameters import assignments, words

ROOT = Path(__file__).resolve().parents[1]
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
RECIPES = {
    "distance": {"synthetic_selection": "distance"},
    "until-0.5": {"synthetic_until": "0.5"},
}
"""Name of a recipe → its options; the first is the one that the rule of the design gave."""


def read_commit(root: Path) -> str:
    """Return the commit of a repository.

    Raises:
        UserError: `confirm.changes`: tracked files have changed since.
    """
    if subprocess.run(["git", "diff", "--quiet", "HEAD"], cwd=root).returncode:
        raise UserError("tracked files differ from the commit", "run from a clean clone", "confirm.changes")
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def hold_commit(work: Path, commit: str) -> None:
    """Write the commit of the runs to `work`, or compare it.

    Raises:
        UserError: `confirm.commit`: the runs there are of another one.
    """
    path = work / "commit"
    if not path.exists():
        work.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{commit}\n")
    if (other := path.read_text().strip()) != commit:
        raise UserError(
            f"the runs in {work} are of the commit {other}", "check it out, or give another WORK", "confirm.commit"
        )


def main(given: Mapping[str, str]) -> None:
    """Run folds, and test the recipes if all have finished.

    Raises:
        UserError: an option is missing or unknown, or as in `counterweight run` and `counterweight evaluate`.
    """
    if missing := [name for name in ("DATA", "DESIGN") if name not in given]:
        raise UserError(f"{missing[0]} is missing", "give both DATA and DESIGN", "option.missing", option=missing[0])
    if "data_split" in given:
        raise UserError("data_split cannot be set: it is the fold", "choose folds with PARTS", "confirm.data_split")
    own = ("WORK", "PARTS", "DESIGN")
    settings = SETTINGS | {name: value for name, value in given.items() if name not in own}
    parts = choose("PARTS", given.get("PARTS", ""), FOLDS)
    seen = validation_lesions([Path(run) for run in split_names(given["DESIGN"])])
    work = Path(given.get("WORK", "build/confirm")).resolve()
    hold_commit(work, commit := read_commit(ROOT))
    for part in parts:
        for name, options in RECIPES.items():
            print(f"{name}, fold {part}", flush=True)
            fold = {"data_split": f"{part}/{len(FOLDS)}"}
            run_pipeline(work / name / f"fold-{part}", settings | options | fold, log=work / f"{name}-fold-{part}.log")
    folds = {name: [work / name / f"fold-{part}" for part in FOLDS] for name in RECIPES}
    unfinished = [fold for of_recipe in folds.values() for fold in of_recipe if not (fold / "manifest.json").is_file()]
    if unfinished:
        print(f"not finished: {', '.join(str(fold.relative_to(work)) for fold in unfinished)}")
        return
    of = machine()
    print(f"{of['cores']} virtual cores of {of['cpu']}, commit {commit}\n")
    print("\n".join(tables({name: load_recipe(of_recipe) for name, of_recipe in folds.items()}, seen)))


if __name__ == "__main__":
    with exit_on_user_error():
        main(assignments(words(sys.argv[1:])))
