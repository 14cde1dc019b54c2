"""Time, memory and scratch space of prepare_data for many images, and time of the search for near-duplicates.

    python -m benchmarks.scale links 10000 100000 1000000
    python -m benchmarks.scale distinct 10000 100000
    python -m benchmarks.scale near-duplicates 10000 100000 1000000

`links` are hard links to a thousand files, of as many lesions; `distinct` are as many files and, of three files each,
lesions. Where other programs use the processors, the CPU seconds of all processes count. The memory is that of the
process that collects the images, and that of the largest worker. The search is measured on the hashes of 500 images in
eight positions, in one thread, and compared with that of all hashes.
"""

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.machine import machine
from components.prepare_data.hamming import HammingIndex, compare_all
from components.prepare_data.near_duplicates import NEAR_COARSE_BITS

FILES = 1000
CLASSES = ("a", "b", "c", "d", "e")
SIZE = 32
IMAGES_PER_LESION = 3
SEARCHED, COMPARED = 500, 20
"""Images for which near-duplicates are searched with the index, and by comparing all hashes."""
POSITIONS = 8
CLUSTERS, FLIPPED = 1000, 0.1
"""Hashes of one of the clusters differ from its centre in a tenth of the bits: as many pairs are within 12 bits as in
HAM10000, where one in 1,600 is."""
PREPARE = """
import json, os, resource, sys, threading, time
from components.prepare_data.prepare import prepare
started, scratch, finished = time.perf_counter(), 0, threading.Event()

def watch():
    global scratch
    while not finished.wait(0.5):
        used = 0
        for name in os.listdir("/proc/self/fd"):
            try:
                if os.readlink(f"/proc/self/fd/{name}").endswith(" (deleted)"):
                    used += os.stat(f"/proc/self/fd/{name}").st_blocks * 512
            except OSError:
                pass
        scratch = max(scratch, used)

threading.Thread(target=watch).start()
try:
    outputs = [f"{sys.argv[2]}/{name}" for name in ("training_data", "test_data", "profile.html")]
    prepare(sys.argv[1], "random", "move_to_train", int(sys.argv[3]), "auto", 10, 1, *outputs)
finally:
    finished.set()
seconds = time.perf_counter() - started
own, workers = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
cpu = sum(it.ru_utime + it.ru_stime for it in (own, workers))
mib = {"mib": own.ru_maxrss / 2**10, "worker_mib": workers.ru_maxrss / 2**10, "scratch_mib": scratch / 2**20}
print(json.dumps({name: round(value) for name, value in {"seconds": seconds, "cpu_seconds": cpu, **mib}.items()}))
"""


def _write_image(path: Path, rng: np.random.Generator) -> None:
    coarse = rng.integers(0, 255, (6, 8, 3), np.uint8)
    Image.fromarray(coarse).resize((96, 72), Image.Resampling.BICUBIC).save(path)


def write_images(folder: Path, count: int, distinct: bool = False) -> None:
    """Write `count` images and their metadata; each of the files has a lesion and a class."""
    rng = np.random.default_rng(1)
    originals, data = folder / "originals", folder / "data"
    originals.mkdir(parents=True)
    data.mkdir()
    if not distinct:
        for number in range(FILES):
            _write_image(originals / f"{number}.jpg", rng)
    with (data / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image_id", "lesion_id", "dx"])
        for number in range(count):
            at = data / f"{number // 10_000:03}"
            at.mkdir(exist_ok=True)
            path = at / f"I{number:07}.jpg"
            if distinct:
                _write_image(path, rng)
                lesion = number // IMAGES_PER_LESION
            else:
                lesion = number % FILES
                os.link(originals / f"{lesion}.jpg", path)
            writer.writerow([path.stem, f"L{lesion}", CLASSES[lesion % len(CLASSES)]])


def measure(count: int, distinct: bool = False) -> dict[str, int]:
    """Return seconds and MiB of prepare_data for this number of images, in a new process."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder, count, distinct)
        words = [sys.executable, "-c", PREPARE, str(folder / "data"), str(folder / "out"), str(SIZE)]
        (folder / "out").mkdir()
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
        return {"images": count} | dict(json.loads(done.stdout.splitlines()[-1]))


def _hashes(rng: np.random.Generator, count: int, centres: np.ndarray | None) -> np.ndarray:
    """Return (count,) uint64: random hashes, or hashes around some of the centres."""
    if centres is None:
        return rng.integers(0, 2**64, count, np.uint64)
    hashes = rng.choice(centres, count)
    for start in range(0, count, 2**16):
        some = hashes[start : start + 2**16]
        flipped = np.packbits(rng.random((len(some), 64)) < FLIPPED, axis=1)
        hashes[start : start + 2**16] ^= flipped.view(np.uint64).ravel()
    return hashes


def _seconds(find: Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]) -> tuple[float, int]:
    """Return the CPU seconds of a search and the number of pairs."""
    started = time.process_time()
    found = sum(len(n) for n, _ in find())
    return time.process_time() - started, found


def search(count: int, clustered: bool) -> dict[str, Any]:
    """Return the CPU milliseconds that near-duplicates of one image take among `count` hashes."""
    rng = np.random.default_rng(1)
    centres = rng.integers(0, 2**64, CLUSTERS, np.uint64) if clustered else None
    hashes, queries = _hashes(rng, count, centres), _hashes(rng, SEARCHED * POSITIONS, centres)
    index = HammingIndex(hashes, NEAR_COARSE_BITS)
    some = queries[: COMPARED * POSITIONS]
    indexed, pairs = _seconds(lambda: index.find(queries))
    compared, _ = _seconds(lambda: compare_all(some, hashes, NEAR_COARSE_BITS))
    return {
        "hashes": count,
        "clustered": clustered,
        "pairs_per_image": round(pairs / SEARCHED, 2),
        "ms_per_image": round(1000 * indexed / SEARCHED, 3),
        "ms_per_image_comparing_all": round(1000 * compared / COMPARED, 3),
    }


def main() -> None:
    """Measure and print."""
    kind, *words = sys.argv[1:] or ["links"]
    counts = [int(word) for word in words] or [10_000, 100_000, 1_000_000]
    results: list[dict[str, Any]] = []
    for count in counts:
        if kind == "near-duplicates":
            results += [search(count, clustered) for clustered in (False, True)]
        else:
            results.append(measure(count, distinct=kind == "distinct"))
    print(json.dumps({"machine": machine(), kind: results}, indent=1))


if __name__ == "__main__":
    main()
