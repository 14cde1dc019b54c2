"""Compare sources of known worth on real images: `python -m benchmarks.known_sources DATA=folder WORK=folder`.

Of the training lesions of each rare class, a tenth stays in the data; the images of all others become a source,
`heldout`: what a perfect generator would return. A second source, `noise`, has as many images of uniform noise. The
run, without GANs, must find that the first helps. WORK keeps the inputs and the run, which resumes after a kill.
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.fewer_lesions import link, reduce
from benchmarks.machine import machine
from benchmarks.pipeline import run_pipeline
from components.shared.errors import exit_on_user_error
from components.shared.records import Results
from counterweight.parameters import assignments, words

KEPT = 0.1
"""Share of the training lesions of each rare class that stays in the data."""
SEED = 1
SETTINGS = {
    "data_image_size": "32",
    "arms": "baseline,oversampled,augmented",
    "synthetic_shares": "1",
    "synthetic_per_class": "400",
    "classifier_seeds": "1,2,3,4,5",
    "classifier_epochs": "20",
    "random_seed": str(SEED),
}


def write_inputs(source: Path, work: Path) -> None:
    """Write `work/data` and the sources `work/heldout` and `work/noise`, as links to the images of a folder.

    Args:
        source: HAM10000: `HAM10000_metadata.csv`, and images named by id in any folder below.
        work: a folder without these inputs, or with a part of them from a call that was killed.
    """
    table, files, moved, _ = reduce(source, KEPT, SEED)
    rng = np.random.default_rng(SEED)
    for image_id, dx, is_moved in zip(table["image_id"], table["dx"], moved, strict=True):
        link(files[image_id], work / "heldout" / dx if is_moved else work / "data" / "images", image_id)
        if is_moved:
            noise = work / "noise" / dx
            noise.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(noise / f"{image_id}.png")
    table[~moved].to_csv(work / "data" / "metadata.csv", index=False)


def run(work: Path) -> Results:
    """Run the pipeline on the inputs, and return its results."""
    sources = {"synthetic": f"heldout={work / 'heldout'},noise={work / 'noise'}"}
    return run_pipeline(work / "run", {"DATA": str(work / "data"), **sources, **SETTINGS})


def main(given: list[str]) -> None:
    """Run and print."""
    named = assignments(words(given))
    work = Path(named.get("WORK", "build/known-sources")).resolve()
    if not (work / "data" / "metadata.csv").is_file():
        write_inputs(Path(named["DATA"]), work)
    outcome = run(work)
    found = {
        "machine": machine(),
        "verdict": outcome.verdict,
        "doses": [it.model_dump() for it in outcome.effect.doses],
        "gains": [it.model_dump() for it in outcome.effect.remedies],
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    with exit_on_user_error():
        main(sys.argv[1:])
