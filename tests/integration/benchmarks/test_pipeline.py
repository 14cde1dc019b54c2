"""A benchmark's runs of the pipeline."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from components.shared.errors import ExitCode

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_before_the_benchmark(tmp_path: Path, number: signal.Signals) -> None:
    program = "from pathlib import Path; from benchmarks.pipeline import run_pipeline; run_pipeline(Path('out'), {})"
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    while "prepare_data" not in (line := process.stdout.readline()):
        assert line, "the run ended"
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert "stopped; rerun the same command to resume" in output
    assert process.returncode == ExitCode.INTERRUPTED
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
