"""Compare remedies with fewer lesions of the rare classes: `python -m benchmarks.low_shot DATA=folder WORK=folder`.

    DATA    HAM10000
    WORK    folder of the inputs and of the runs, which resume after a kill (default build/low-shot)
    SHARES  shares of the training lesions of each rare class that stay (default 0.25,0.5,1)
    others  parameters of the runs, as for `counterweight run`; they replace those of `SETTINGS`

The lesions of a share are also in a larger one; validation and test stay as they are. This is a separate regime: its
figures describe how an effect depends on the number of lesions, not how large it is on the complete set. Prints a table
in Markdown.
"""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.fewer_lesions import LARGEST, link, reduce
from benchmarks.machine import machine
from components.shared.errors import UserError, exit_on_user_error
from components.shared.records import Results, load_record
from counterweight.parameters import assignments, words

SETTINGS = {
    "PRESET": "cpu",
    "arms": "baseline,oversampled,logit_adjustment,augmented",
    "synthetic_shares": "0.25,1",
    "random_seed": "1",
}
HEADER = (
    "share | lesions | arm | mean recall, rare classes | balanced accuracy | macro AUC | difference to the baseline"
    " | interval"
)


def write_inputs(source: Path, folder: Path, kept: float, seed: int) -> int:
    """Write a set with a share of the rare training lesions as links, and return how many lesions it keeps in all.

    Args:
        source: HAM10000; see `fewer_lesions.reduce`.
        folder: the set; may have a part of it from a call that was killed.
        kept: share of the training lesions of each rare class.
        seed: seed of the run.
    """
    table, files, removed = reduce(source, kept, seed)
    remaining = table[~removed]
    for image_id in remaining["image_id"]:
        link(files[image_id], folder / "images", image_id)
    remaining.to_csv(folder / "metadata.csv", index=False)
    return int(remaining.loc[remaining["dx"] != LARGEST, "lesion_id"].nunique())


def rows_of(share: float, lesions: int, results: Results) -> Iterator[str]:
    """Yield the rows of one share, and the GAN effect of each share of synthetic images."""
    gains = {it.arm: it for it in results.effect.remedies}
    for arm, of in results.arms.items():
        figures = " | ".join(f"{value:.3f}" for value in (of.rare_recall, of.balanced_accuracy, of.macro_auc))
        gain = gains.get(arm)
        compared = f"{gain.value:+.3f} | {gain.low:+.3f} to {gain.high:+.3f}" if gain else " | "
        yield f"| {share:.0%} | {lesions:,} | `{arm}` | {figures} | {compared} |"
    for it in results.effect.doses:
        effect = f"{it.value:+.3f} | {it.low:+.3f} to {it.high:+.3f}"
        yield f"| {share:.0%} | {lesions:,} | `{it.arm}` − `oversampled` | | | | {effect} |"


def main(given: Mapping[str, str]) -> None:
    """Run each share and print the table.

    Raises:
        UserError: DATA is missing, or as in `counterweight run`.
    """
    if "DATA" not in given:
        raise UserError("DATA is missing", "give the folder of HAM10000", "option.missing", option="DATA")
    work = Path(given.get("WORK", "build/low-shot")).resolve()
    settings = SETTINGS | {name: value for name, value in given.items() if name not in ("DATA", "WORK", "SHARES")}
    rows: list[str] = []
    for share in map(float, given.get("SHARES", "0.25,0.5,1").split(",")):
        folder = work / f"{share:g}"
        lesions = write_inputs(Path(given["DATA"]), folder / "data", share, int(settings["random_seed"]))
        named = [f"{name}={value}" for name, value in settings.items()]
        arguments = [f"DATA={folder / 'data'}", f"OUT={folder / 'run'}", *named]
        done = subprocess.run([sys.executable, "-m", "counterweight", "run", *arguments])
        if done.returncode:
            sys.exit(done.returncode)
        rows += rows_of(share, lesions, load_record(folder / "run" / "metrics.json", Results))
    of = machine()
    print(f"\n{of['cores']} virtual cores of {of['cpu']}\n\n| {HEADER} |\n|--:|--:|---|--:|--:|--:|--:|--:|")
    print("\n".join(rows))


if __name__ == "__main__":
    with exit_on_user_error():
        main(assignments(words(sys.argv[1:])))
