"""Whole runs of the pipeline, for benchmarks that compare their results."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

from components.shared.errors import UserError
from components.shared.parameters import split_names
from components.shared.records import Results, load_record


def choose(option: str, text: str, choices: Collection[str]) -> list[str]:
    """Return the names in a comma-separated list, each once; all choices if it is empty.

    Args:
        option: name of the option, for the error message.
        text: its value.
        choices: the names that it may list.

    Raises:
        UserError: `benchmark.unknown_choice`.
    """
    chosen = list(dict.fromkeys(split_names(text))) if text else list(choices)
    if unknown := [name for name in chosen if name not in choices]:
        raise UserError(
            f"{option} lists {', '.join(unknown)}",
            f"choose from {', '.join(choices)}",
            "benchmark.unknown_choice",
            names=unknown,
        )
    return chosen


def run_pipeline(out: Path, settings: Mapping[str, str], log: Path | None = None) -> Results:
    """Run the pipeline, or resume a run, and return its results; end this program with its exit code if it fails.

    Ctrl-C and SIGTERM end the run first.

    Args:
        out: folder of the results.
        settings: DATA, PRESET and parameters, as for `counterweight run`.
        log: file to which its output is appended; printed if not given.
    """
    named = [f"{name}={value}" for name, value in settings.items()]
    with log.open("a") if log else contextlib.nullcontext() as file:
        process = subprocess.Popen([sys.executable, "-m", "counterweight", "run", f"OUT={out}", *named], stdout=file)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C reaches the run, too, and ends it
    if exit_code := process.wait():
        sys.exit(exit_code)
    return load_record(out / "metrics.json", Results)
