"""Read a published run back and compare every file with its manifest: `python -m scripts.verify_published PLACE`.

    PLACE  a folder or an address of object storage that contains manifest.json, or has it one level below

Exit codes: 0 all files are there with their hashes; 1 a file is missing or differs, or there is no manifest.
"""

import sys
import tempfile
from pathlib import Path

from components.publish.publish import MANIFEST
from components.shared.errors import exit_on_user_error
from components.shared.files import file_sha256
from components.shared.records import Manifest, load_record
from components.shared.storage import download_folder
from components.shared.stores.addresses import is_address


def verify(folder: Path) -> list[str]:
    """Return what is wrong with a published run: one text for each file."""
    files = load_record(folder / MANIFEST, Manifest).files
    problems = []
    for name, entry in files.items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif file_sha256(path) != entry.sha256:
            problems.append(f"{name} differs from the manifest")
    return problems


def main(place: str) -> int:
    """Verify all runs at a place and return the exit code."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch if is_address(place) else place)
        if is_address(place):
            download_folder(place, folder)
        runs = sorted(path.parent for path in (*folder.glob(MANIFEST), *folder.glob(f"*/{MANIFEST}")))
        problems = [problem for run in runs for problem in verify(run)]
        if not runs:
            problems = [f"{place} has no {MANIFEST}"]
        for problem in problems:
            print(f"error: {problem}")
        if not problems:
            print(f"verified: {len(runs)} run{'s' * (len(runs) > 1)} in {place}")
        return bool(problems)


if __name__ == "__main__":
    with exit_on_user_error():
        sys.exit(main(sys.argv[1]))
