"""Print a table of the phases' images: `python -m scripts.image_table [SCANS]`, after `make images`.

SCANS  a folder of `<phase>.json`, which `grype --output json` wrote for an image; without it, vulnerabilities are
       not listed
"""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

from counterweight.build_images import PHASES, engine, explain_missing, local_image
from counterweight.exit_codes import run_command

COUNT_PACKAGES = "import importlib.metadata as m; print(len({d.name.lower() for d in m.distributions()}))"
SEVERITIES = ("Critical", "High", "Medium")


def _ask(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def count_vulnerabilities(scan: Path) -> str:
    """Return the numbers of different vulnerabilities by severity that a scan found, as `0 / 2 / 5`."""
    matches = json.loads(scan.read_text(encoding="utf-8"))["matches"]
    found = {match["vulnerability"]["id"]: match["vulnerability"]["severity"] for match in matches}
    counts = Counter(found.values())
    return " / ".join(str(counts[severity]) for severity in SEVERITIES)


def main(scans: Path | None) -> None:
    """Print the table.

    Raises:
        UserError: an image was not built.
    """
    command = engine()
    inspect = [command, "image", "inspect", "--format", "{{.Size}}"]
    found = {it: subprocess.run([*inspect, local_image(it)], capture_output=True, text=True) for it in PHASES}
    if missing := [phase for phase, answer in found.items() if answer.returncode]:
        raise explain_missing(missing)
    heads = ["Image", "Size, MB", "Python packages"]
    if scans:
        heads.append(f"Vulnerabilities ({', '.join(SEVERITIES).lower()})")
    print(f"| {' | '.join(heads)} |\n|:--|{'--:|' * (len(heads) - 1)}")
    for phase in PHASES:
        image = local_image(phase)
        size = int(found[phase].stdout)
        packages = _ask(command, "run", "--rm", "--network=none", "--entrypoint=python3", image, "-c", COUNT_PACKAGES)
        row = [f"`{phase}`", f"{size / 1e6:,.0f}", packages]
        if scans:
            row.append(count_vulnerabilities(scans / f"{phase}.json"))
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    sys.exit(run_command(lambda: main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)))
