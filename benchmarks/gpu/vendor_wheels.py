"""Download the phases' requirements as wheels, for a machine without a network.

`python -m benchmarks.gpu.vendor_wheels --have FILE` excludes the packages that the machine has: FILE is the output of
`pip list --format=freeze` there.
"""

import argparse
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = Path("build/wheels")
GROUPS = ("images", "train", "page", "report", "storage")


def requirements() -> list[str]:
    """Return the requirements of the phases' logic in pyproject.toml, without a backend for Keras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found = [*project["project"]["dependencies"]]
    for group in GROUPS:
        found += [entry for entry in project["dependency-groups"][group] if isinstance(entry, str)]
    return list(dict.fromkeys(found))


def install() -> None:
    """Install from the wheels the requirements that are missing; others are not changed."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    subprocess.run([*command, f"--find-links={FOLDER}", *requirements()], check=True)


def name_of(line: str) -> str:
    """Return the package name of a requirement or a wheel, as in the names of wheels."""
    return re.sub(r"[-_.]+", "_", re.split(r"[=<>!~;@\[ ]", line.strip())[0]).lower()


def main() -> None:
    """Write the wheels into build/wheels, which git ignores."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.vendor_wheels", description=__doc__)
    parser.add_argument("--have", type=Path, help="list of the packages that the machine has")
    parser.add_argument("--python", default="3.12", help="Python of the machine (default: 3.12)")
    given = parser.parse_args()
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--only-binary=:all:", f"--python-version={given.python}", f"--dest={FOLDER}"]
    # Wheels for an older glibc run on a newer one.
    command += [f"--platform=manylinux{version}_x86_64" for version in ("2014", "_2_17", "_2_27", "_2_28")]
    subprocess.run([*command, *requirements()], check=True)
    had = {name_of(line) for line in given.have.read_text(encoding="utf-8").splitlines()} if given.have else set()
    for path in FOLDER.glob("*.whl"):
        if name_of(path.name.split("-")[0]) in had:
            path.unlink()
    left = list(FOLDER.iterdir())
    print(f"{len(left)} wheels, {sum(path.stat().st_size for path in left) / 2**20:.0f} MiB, in {FOLDER}")


if __name__ == "__main__":
    main()
