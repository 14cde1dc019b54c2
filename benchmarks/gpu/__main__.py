"""Measure the speed and compare recipes, in several calls if needed: `python -m benchmarks.gpu`; see README.md."""

import argparse
import hashlib
import multiprocessing
import shutil
import sys
from pathlib import Path

from benchmarks.gpu.profile_step import work

RESULTS = Path("docs/results")
EXIT_UNFINISHED = 3
"""Exit code if steps remain."""


def version(*folders: str) -> str:
    """Return a hash of the Python files: steps and checkpoints of other code are not used."""
    digest = hashlib.sha256()
    for path in sorted(path for folder in folders for path in Path(folder).rglob("*.py")):
        digest.update(f"{path}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:8]


def main() -> int:
    """Do steps until all are done or the time is used up."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--scale", choices=("auto", "full", "cpu", "smoke"), default="auto")
    parser.add_argument("--data", default="demo", help="demo, or a folder in HAM10000's layout")
    parser.add_argument("--work", type=Path, default=Path("build/gpu"), help="folder of the steps")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    parser.add_argument("--minutes", type=float, help="stop after this time; the same command continues")
    parser.add_argument("--wheels", action="store_true", help="install what is missing from build/wheels first")
    given = parser.parse_args()
    if given.wheels:
        from benchmarks.gpu import vendor_wheels

        vendor_wheels.install()
    scale = given.scale
    if scale == "auto":
        scale = "full" if shutil.which("nvidia-smi") else "cpu"
    folder = given.work / f"{scale}-{Path(given.data).name}-{version('components', 'benchmarks')}"
    folder.mkdir(parents=True, exist_ok=True)
    process = multiprocessing.get_context("spawn").Process(target=work, args=(scale, given.data, folder, given.out))
    process.start()
    process.join(60 * given.minutes if given.minutes else None)
    if process.is_alive():
        process.kill()  # training resumes from its checkpoints, other steps are repeated
        process.join()
        print(f"stopped after {given.minutes:g} minutes; the same command continues")
        return EXIT_UNFINISHED
    if not process.exitcode:
        print(f"done: {given.out}/{scale}.json")
    return 1 if process.exitcode else 0


if __name__ == "__main__":
    sys.exit(main())
