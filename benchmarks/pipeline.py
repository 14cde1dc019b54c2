"""Whole runs of the pipeline, for benchmarks that compare their results."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from components.shared.records import Results, load_record


def run_pipeline(out: Path, settings: Mapping[str, str]) -> Results:
    """Run the pipeline, or resume a run, and return its results; end this program with its exit code if it fails.

    Args:
        out: folder of the results.
        settings: DATA, PRESET and parameters, as for `counterweight run`.
    """
    named = [f"{name}={value}" for name, value in settings.items()]
    done = subprocess.run([sys.executable, "-m", "counterweight", "run", f"OUT={out}", *named])
    if done.returncode:
        sys.exit(done.returncode)
    return load_record(out / "metrics.json", Results)
