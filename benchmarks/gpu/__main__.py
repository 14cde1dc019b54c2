"""Speed and the whole experiment, recipe against recipe, in pieces: `python -m benchmarks.gpu`; see README.md."""

import argparse
import multiprocessing
import os
import shutil
import sys
from pathlib import Path

RESULTS = Path("benchmarks/results")
AGAIN = 3
"""Exit status where there is more to do."""


def work(scale_name: str, data: str, folder: Path, out: Path) -> None:
    """Does what is not done yet."""
    os.environ.setdefault("KERAS_BACKEND", "jax" if scale_name == "full" else "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Several processes share the GPU's memory in the speed table; what was compiled once serves the next piece, too.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str((folder / "compiled").resolve()))

    from benchmarks import speed
    from benchmarks.gpu import results
    from benchmarks.gpu.experiment import SCALES, Experiment
    from benchmarks.gpu.steps import Steps

    steps, scale = Steps(folder), SCALES[scale_name]
    table = {}
    if scale_name == "full":
        table = steps.once("speed", speed.measure, gan_steps=200, classifier_steps=64, side=8192)
    rare = Experiment(steps, scale).run(data)
    results.write(scale_name, scale, Path(data).name, rare, folder, out, table)


def main() -> int:
    """A piece of the work."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--scale", choices=("auto", "full", "cpu", "smoke"), default="auto")
    parser.add_argument("--data", default="demo", help="demo, or a folder in HAM10000's layout")
    parser.add_argument("--work", type=Path, default=Path("build/gpu"), help="where the pieces meet")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the results go")
    parser.add_argument("--minutes", type=float, help="stop after so many; the same command goes on")
    parser.add_argument("--wheels", action="store_true", help="install what is missing from build/wheels first")
    given = parser.parse_args()
    if given.wheels:
        from benchmarks.gpu import wheels

        wheels.install()
    scale = given.scale
    if scale == "auto":
        scale = "full" if shutil.which("nvidia-smi") else "cpu"
    folder = given.work / scale
    folder.mkdir(parents=True, exist_ok=True)
    process = multiprocessing.get_context("spawn").Process(target=work, args=(scale, given.data, folder, given.out))
    process.start()
    process.join(60 * given.minutes if given.minutes else None)
    if process.is_alive():
        process.kill()  # every step stands it: GANs go on from their checkpoints
        process.join()
        print(f"stopped after {given.minutes:g} minutes; the same command goes on")
        return AGAIN
    if not process.exitcode:
        print(f"done: {given.out}/{scale}.json")
    return 1 if process.exitcode else 0


if __name__ == "__main__":
    sys.exit(main())
