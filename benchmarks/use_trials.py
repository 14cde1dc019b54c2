"""Compare uses of synthetic images, and ways to train, on validation.

    python -m benchmarks.use_trials DATA=folder WORK=folder

    DATA    a folder, as for `counterweight run`
    WORK    folder of the runs, which resume after a kill (default build/use-trials)
    TRIALS  names of the trials to compare, separated by commas (default: all of `TRIALS`)
    others  parameters of the runs, as for `counterweight run`; they replace those of `SETTINGS`

For decisions about the design: the table has validation images alone, and the split of `SETTINGS` is not that of the
published figures. All runs share GANs and classifiers, as far as these do not depend on the use.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.machine import machine
from benchmarks.pipeline import choose, run_pipeline
from components.shared.errors import UserError, exit_on_user_error
from counterweight.parameters import assignments, words
from scripts.validation_table import LEGEND, table_of

SETTINGS = {
    "PRESET": "cpu",
    "data_duplicates": "move_to_train",
    "data_image_size": "32",
    "arms": "baseline,oversampled,augmented",
    "synthetic_shares": "0.5",
    "random_seed": "2",
}
CONTROLS = "baseline,oversampled,class_weights,balanced_sampling,logit_adjustment"
TRIALS: dict[str, dict[str, str]] = {
    "default": {},
    "until-0.5": {"synthetic_until": "0.5"},
    "label": {"synthetic_selection": "label"},
    "density": {"synthetic_selection": "density"},
    "distance": {"synthetic_selection": "distance"},
    "weight-0.5": {"synthetic_weight": "0.5"},
    "smoothing-0.2": {"synthetic_smoothing": "0.2"},
    "scope-all": {"synthetic_scope": "all"},
    "until-0.5-label": {"synthetic_until": "0.5", "synthetic_selection": "label"},
    "epochs-10": {"classifier_epochs": "10"},
    "epochs-40": {"classifier_epochs": "40"},
    "epochs-80": {"classifier_epochs": "80"},
    "controls": {"arms": CONTROLS},
    "controls-metadata": {"arms": CONTROLS, "metadata": "late_fusion"},
    "controls-resnet": {"arms": CONTROLS, "classifier": "resnet"},
}
"""Name of a run → the parameters and options that differ. Weight and smoothing change `oversampled`, too."""


def main(given: Mapping[str, str]) -> None:
    """Run the trials, and print the table after each.

    Raises:
        UserError: an option is missing or unknown, or as in `counterweight run`.
    """
    if "DATA" not in given:
        raise UserError("DATA is missing", "give a folder of images", "option.missing", option="DATA")
    work = Path(given.get("WORK", "build/use-trials")).resolve()
    settings = SETTINGS | {name: value for name, value in given.items() if name not in ("WORK", "TRIALS")}
    finished: list[Path] = []
    for name in choose("TRIALS", given.get("TRIALS", ""), TRIALS):
        run_pipeline(work / name, settings | TRIALS[name])
        finished.append(work / name)
        print("\n".join(table_of(finished)), flush=True)
    of = machine()
    print(f"\n{of['cores']} virtual cores of {of['cpu']}. {LEGEND}")


if __name__ == "__main__":
    with exit_on_user_error():
        main(assignments(words(sys.argv[1:])))
