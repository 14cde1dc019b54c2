"""Collects what the phases import as wheels, for a machine without a network: `python -m benchmarks.gpu.wheels`.

With names it collects only those (`… wheels keras namex optree`): what the machine has need not travel.
"""

import argparse
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = Path("build/wheels")
GROUPS = ("train", "page", "report")


def wanted() -> list[str]:
    """What the phases' logic imports: the requirements in pyproject.toml, without a backend for Keras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found = [*project["project"]["dependencies"]]
    for group in GROUPS:
        found += [entry for entry in project["dependency-groups"][group] if isinstance(entry, str)]
    return list(dict.fromkeys(found))


def install() -> None:
    """Installs what is missing here from the wheels, and leaves what is there as it is."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    subprocess.run([*command, f"--find-links={FOLDER}", *wanted()], check=True)


def main() -> None:
    """Fills build/wheels, which git ignores."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.wheels", description=__doc__)
    parser.add_argument("names", nargs="*", help="only these, without what they need")
    parser.add_argument("--python", default="3.12", help="Python of the machine (default: 3.12)")
    given = parser.parse_args()
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--only-binary=:all:", f"--python-version={given.python}", f"--dest={FOLDER}"]
    # A machine with a newer glibc than this takes them, too.
    command += [f"--platform=manylinux{version}_x86_64" for version in ("_2_17", "2014", "_2_27", "_2_28")]
    names = [one for one in wanted() if one.split(">")[0] in given.names]
    names += [name for name in given.names if name not in {one.split(">")[0] for one in names}]
    subprocess.run([*command, *(["--no-deps", *names] if names else wanted())], check=True)
    size = sum(path.stat().st_size for path in FOLDER.iterdir()) / 2**20
    print(f"{len(list(FOLDER.iterdir()))} wheels, {size:.0f} MiB, in {FOLDER}")


if __name__ == "__main__":
    main()
