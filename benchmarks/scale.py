"""Time and memory of prepare_data for many images: `python -m benchmarks.scale 10000 100000`.

The images are hard links to a thousand files, of as many lesions, since only their number matters here. The memory is
that of the process that collects the images; each worker needs a fixed amount more.
"""

import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.machine import machine

FILES = 1000
CLASSES = ("a", "b", "c", "d", "e")
SIZE = 32
PREPARE = """
import json, resource, sys, time
from components.prepare_data.prepare import prepare
started = time.perf_counter()
outputs = [f"{sys.argv[2]}/{name}" for name in ("training_data", "test_data", "profile.html")]
prepare(sys.argv[1], "random", "none", "move_to_train", int(sys.argv[3]), "auto", 10, 1, *outputs)
seconds, mib = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
print(json.dumps({"seconds": round(seconds), "mib": round(mib)}))
"""


def write_images(folder: Path, count: int) -> None:
    """Write `count` images and their metadata; each of the files has a lesion and a class."""
    rng = np.random.default_rng(1)
    originals = folder / "originals"
    originals.mkdir(parents=True)
    for number in range(FILES):
        coarse = rng.integers(0, 255, (6, 8, 3), np.uint8)
        Image.fromarray(coarse).resize((96, 72), Image.Resampling.BICUBIC).save(originals / f"{number}.jpg")
    data = folder / "data"
    data.mkdir()
    with (data / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image_id", "lesion_id", "dx"])
        for number in range(count):
            of = number % FILES
            at = data / f"{number // 10_000:03}"
            at.mkdir(exist_ok=True)
            os.link(originals / f"{of}.jpg", at / f"I{number:07}.jpg")
            writer.writerow([f"I{number:07}", f"L{of}", CLASSES[of % len(CLASSES)]])


def measure(count: int) -> dict[str, int]:
    """Return seconds and MiB of prepare_data for this number of images, in a new process."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder, count)
        words = [sys.executable, "-c", PREPARE, str(folder / "data"), str(folder / "out"), str(SIZE)]
        (folder / "out").mkdir()
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        return dict(json.loads(done.stdout.splitlines()[-1])) | {"images": count}


def main() -> None:
    """Measure and print."""
    counts = [int(word) for word in sys.argv[1:]] or [10_000, 100_000, 1_000_000]
    print(json.dumps({"machine": machine(), "prepare_data": [measure(count) for count in counts]}, indent=1))


if __name__ == "__main__":
    main()
