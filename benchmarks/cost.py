"""Cost of a GAN: time over images shown and over pixels, memory over the number of real images.

`python -m benchmarks.cost` trains the original networks with the product's `train`, each time in a new process, plots
docs/concepts/cost.svg and prints the figures; about three minutes on two cores. Time is core time, the sum over all
threads: other work on the machine has little effect on it.
"""

import json
import multiprocessing
import os
import re
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

SIZES = (32, 64, 128)
KIMG = (0.25, 0.5, 1.0)
COUNTS = (500, 2_000, 8_000)
FEW = 128
OUT = Path("docs/concepts/cost.svg")


def image_set(path: Path, split: str, image_size: int, counts: dict[str, int], seed: int) -> None:
    """Write an image set of random images.

    Args:
        path: the file to write.
        split: of the set.
        image_size: in pixels.
        counts: class → number of images.
        seed: of the pixels.
    """
    from components.shared.image_set import Header, encode_png, pixel_sha256, write_image_set

    rng = np.random.default_rng(seed)
    with write_image_set(path, Header(tuple(counts), image_size, split, "data", "split")) as out:
        for dx, count in counts.items():
            for start in range(0, count, 256):
                shape = (min(256, count - start), image_size // 8, image_size // 8, 3)
                images = np.kron(rng.integers(0, 256, shape, np.uint8), np.ones((1, 8, 8, 1), np.uint8))
                names = [f"{split}-{dx}-{start + number}" for number in range(len(images))]
                hashes = [pixel_sha256(image) for image in images]
                rows = pd.DataFrame({"image_id": names, "lesion_id": names, "dx": dx, "pixel_sha256": hashes})
                out.write(rows.assign(source="real"), [encode_png(image) for image in images])


def prepare(folder: str, image_size: int, counts: dict[str, int]) -> None:
    """Write the inputs of `train` into a folder; `counts` are the images per class of the training set."""
    from components.shared.features import train_features

    few = dict.fromkeys(counts, 32)
    for name, own in (("train", counts), ("validation", few), ("few", few)):
        split = "validation" if name == "validation" else "train"
        image_set(Path(folder, f"{name}.parquet"), split, image_size, own, len(name))
    train_features(Path(folder, "few.parquet"), 1, Path(folder, "features.keras"), "features")
    Path(folder, "start").mkdir()


def measure(folder: str, kimg: float, classes: Sequence[str] = ("a",)) -> tuple[float, float]:
    """Return the core seconds of `train`, including networks and snapshots, and the process's peak memory in GiB."""
    from components.shared.log import log_line
    from components.train_gan.train import train

    started = time.process_time()
    train(
        classes=classes,
        rare_data=folder,
        features=f"{folder}/features.keras",
        start=f"{folder}/start",
        architecture="dcgan",
        kimg=kimg,
        seed=1,
        failed_class="fail",
        gans=f"{folder}/gans",
    )
    seconds = time.process_time() - started
    # The peak of getrusage can be that of the parent process.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    assert found
    gib = int(found[1]) / 2**20
    log_line("cost", f"{folder}, {kimg:g} kimg: {seconds:.1f} core seconds, {gib:.2f} GiB")
    return seconds, gib


def plot(seconds: dict[int, list[float]], gib: list[float], machine: str) -> None:
    """Plot the three relations."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = "cost"
    figure = Figure((9, 2.8), layout="constrained")
    by_kimg, by_pixels, by_images = figure.subplots(1, 3)
    for size, values in seconds.items():
        by_kimg.plot(KIMG, values, "o-", label=f"{size} px")
    by_kimg.set(xlabel="kimg", ylabel="core seconds", xlim=0, ylim=0, title="time over images shown")
    by_kimg.legend(fontsize=7)
    slopes = [np.polyfit(KIMG, seconds[size], 1)[0] for size in SIZES]
    by_pixels.plot([size**2 / 1000 for size in SIZES], slopes, "o-")
    by_pixels.set(xlabel="thousand pixels", ylabel="core seconds / kimg", xlim=0, ylim=0, title="time over pixels")
    by_images.plot(COUNTS, gib, "o-")
    by_images.set(xlabel="real images", ylabel="GiB", xlim=0, ylim=(0, 1.3 * max(gib)), title="peak memory, 64 px")
    for axis in (by_kimg, by_pixels, by_images):
        axis.title.set_fontsize(9)
        axis.tick_params(labelsize=7)
    figure.supxlabel(machine, fontsize=7)
    figure.savefig(OUT, metadata={"Date": None})


def main() -> None:
    """Measure, plot and print."""
    from benchmarks.machine import machine

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as scratch,
        ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as process,
    ):

        def write_folder(size: int, count: int) -> str:
            folder = Path(scratch, f"{size}-{count}")
            folder.mkdir()
            process.submit(prepare, str(folder), size, {"a": count, "b": 32}).result()
            return str(folder)

        seconds: dict[int, list[float]] = {}
        for size in SIZES:
            folder = write_folder(size, FEW)
            seconds[size] = [process.submit(measure, folder, kimg).result()[0] for kimg in KIMG]
        gib = [process.submit(measure, write_folder(64, count), KIMG[0]).result()[1] for count in COUNTS]
    named = machine()
    plot(seconds, gib, f"{named.get('gpu', named['cpu'])}, {named['cores']} cores")
    found = {"machine": named, "kimg": KIMG, "seconds": seconds, "images": COUNTS, "peak_memory_gib": gib}
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
