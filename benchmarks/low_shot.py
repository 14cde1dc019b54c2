"""Compare remedies with fewer lesions of the rare classes: `python -m benchmarks.low_shot DATA=folder WORK=folder`.

    DATA    HAM10000
    WORK    folder of the inputs and of the runs by seed and share, which resume after a kill (default build/low-shot)
    SHARES  shares of the training lesions of each rare class that stay (default 0.25,0.5,1)
    others  parameters of the runs, as for `counterweight run`; they replace those of `SETTINGS`

The lesions of a share are also in a larger one; validation and test stay as they are. This is a separate regime: its
figures describe how an effect depends on the number of lesions, not how large it is on the complete set. Prints the
tables of `scripts.results_tables` for each share.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.fewer_lesions import TABLE, link, reduce
from benchmarks.machine import machine
from benchmarks.pipeline import run_pipeline
from components.shared.errors import UserError, exit_on_user_error
from counterweight.parameters import assignments, words
from scripts.results_tables import arms_table, effects_table

SETTINGS = {
    "PRESET": "cpu",
    "arms": "baseline,oversampled,logit_adjustment,augmented",
    "synthetic_shares": "0.25,1",
    "random_seed": "1",
}


def write_inputs(source: Path, folder: Path, kept: float, seed: int) -> dict[str, int]:
    """Write a set with a share of the rare training lesions as links, and return their number in each rare class.

    Args:
        source: HAM10000; see `fewer_lesions.reduce`.
        folder: the set; may have a part of it from a call that was killed.
        kept: share of the training lesions of each rare class.
        seed: seed of the run.
    """
    table, files, removed, lesions = reduce(source, kept, seed)
    remaining = table[~removed]
    for image_id in remaining["image_id"]:
        link(files[image_id], folder / "images", image_id)
    remaining.to_csv(folder / "metadata.csv", index=False)
    return lesions


def parse_shares(text: str) -> list[float]:
    """Return the shares in a comma-separated list.

    Raises:
        UserError: `low_shot.share`: one is not a number above 0 and at most 1.
    """
    shares = []
    for word in text.split(","):
        try:
            share = float(word)
        except ValueError:
            share = 0.0
        if not 0 < share <= 1:
            raise UserError(
                f"SHARES lists {word!r}", "give numbers above 0 and at most 1", "low_shot.share", share=word
            )
        shares.append(share)
    return shares


def main(given: Mapping[str, str]) -> None:
    """Run each share, and print its tables.

    Raises:
        UserError: DATA or SHARES is invalid, or as in `counterweight run`.
    """
    data, shares = Path(given.get("DATA", "")), parse_shares(given.get("SHARES", "0.25,0.5,1"))
    if "DATA" not in given or not (data / TABLE).is_file():
        raise UserError(f"DATA has no {TABLE}", "give the folder of HAM10000", "low_shot.data")
    work = Path(given.get("WORK", "build/low-shot")).resolve()
    settings = SETTINGS | {name: value for name, value in given.items() if name not in ("WORK", "SHARES")}
    seed = int(settings["random_seed"])
    tables: list[str] = []
    for share in shares:
        folder = work / f"seed-{seed}" / f"{share:g}"
        lesions = write_inputs(data, folder / "data", share, seed)
        results = run_pipeline(folder / "run", settings | {"DATA": str(folder / "data")})
        counts = ", ".join(f"{dx} {count:,}" for dx, count in lesions.items())
        tables.append(f"{share:.0%} of the training lesions of each rare class: {counts}\n")
        tables += [*arms_table(results), *effects_table(results)]
    of = machine()
    print("\n".join([f"\n{of['cores']} virtual cores of {of['cpu']}\n", *tables]))


if __name__ == "__main__":
    with exit_on_user_error():
        main(assignments(words(sys.argv[1:])))
