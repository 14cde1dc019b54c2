"""Preparation of images and reading of an epoch, compared with the bare work and with the original."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.interleaved import rate_of
from components.prepare_data import layouts, sources
from components.prepare_data.image_reader import RawImage
from components.shared.batches import endless_batches
from components.shared.image_set import encode_png, open_pixels

SIZE = 64
ROUNDS = 3
SECONDS = 3.0


def prepare_image(path: str) -> int:
    """Decode, resize and encode one file, and return the number of bytes."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS))
    return len(encode_png(pixels))


def bare_loop(paths: list[str]) -> float:
    """Return the seconds of `prepare_image` over all files, with one process per core that is already running."""
    with Pool(os.cpu_count()) as pool:
        pool.map(prepare_image, paths[:8])
        started = time.perf_counter()
        pool.map(prepare_image, paths, chunksize=64)
        return time.perf_counter() - started


PREPARE = """
import json, os, resource, sys, time
from components.prepare_data.prepare import prepare
started = time.perf_counter()
outputs = [f"{sys.argv[2]}/{name}" for name in ("training_data", "test_data", "profile.html")]
prepare(sys.argv[1], "random", "move_to_train", int(sys.argv[3]), "auto", 10, 1, *outputs)
seconds = time.perf_counter() - started
own, worker = (resource.getrusage(who).ru_maxrss / 2**20 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
print(json.dumps([seconds, own + os.cpu_count() * worker]))
"""


def prepare_data(data: str, out: str) -> tuple[float, float]:
    """Return the seconds without imports and the peak memory in GiB of the phase in a new process with its workers."""
    words = [sys.executable, "-c", PREPARE, data, out, str(SIZE)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    seconds, gib = json.loads(done.stdout.splitlines()[-1])
    return seconds, gib


def epoch_reading(train: str, files: Mapping[str, RawImage]) -> dict[str, float]:
    """Return the images/s of an epoch: from decoded pixels, and by decoding each JPEG again, as the original does."""
    names = pd.read_parquet(train, columns=["image_id"])["image_id"]
    paths = [str(files[name]) for name in names]
    with open_pixels(train, "train") as pixels:
        ours_order = endless_batches(pixels.repeat, 32, 1)
        theirs_order = endless_batches(pixels.repeat, 32, 1)

        def ours() -> int:
            batch = pixels.images[next(ours_order)]
            return len(batch)

        def original() -> int:
            batch = np.stack(
                [np.asarray(Image.open(paths[row]).convert("RGB").resize((SIZE, SIZE))) for row in next(theirs_order)]
            )
            return len(batch)

        rates = [(rate_of(ours, SECONDS), rate_of(original, SECONDS)) for _ in range(ROUNDS)]
    ratio = statistics.median(a / b for a, b in rates)
    mine, theirs = (statistics.median(side) for side in zip(*rates, strict=True))
    return {"engine": round(mine), "original": round(theirs), "ratio": round(ratio, 1)}


def measure(data: str) -> dict[str, dict[str, Any]]:
    """Measure both with the images of a source, as `prepare` takes it."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = sources.fetch(data, Path(scratch))
        dataset = layouts.read(folder, scratch=Path(scratch))
        paths = [str(file) for file in dataset.files.values() if isinstance(file, Path)]
        out = Path(scratch, "out")
        out.mkdir()
        rounds = [(bare_loop(paths), *prepare_data(str(folder), str(out))) for _ in range(ROUNDS)]
        return {
            "data": {"images": len(paths), "name": data},
            f"prepare_data.{SIZE}": {
                "engine": round(len(paths) / statistics.median(seconds for _, seconds, _ in rounds)),
                "bare_loop": round(len(paths) / statistics.median(seconds for seconds, _, _ in rounds)),
                "ratio": round(statistics.median(limit / seconds for limit, seconds, _ in rounds), 2),
                "peak_memory_gib": round(max(gib for *_, gib in rounds), 2),
            },
            f"epoch_reading.{SIZE}": epoch_reading(str(out / "training_data" / "train.parquet"), dataset.files),
        }
