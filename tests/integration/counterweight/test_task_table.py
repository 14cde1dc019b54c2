"""The table of a local run on a real pseudo-terminal, and the lines without one."""

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("small_pipeline.py")
ROOT = PROGRAM.parents[3]
WORDS = ["classifier_seeds=1", "OUT=out"]
NO_TABLE = ("NO_COLOR", "CI", "KUBERNETES_SERVICE_HOST")
SEQUENCE = re.compile(r"\x1b\[(?P<values>[?\d;]*)(?P<letter>[A-Za-z])|(?P<text>[^\x1b\r\n]+)|(?P<move>[\r\n])")


class Screen:
    """What a terminal shows: lines of text, without scrolling, and whether its state was changed.

    Attributes:
        lines: the lines.
        modes: the sequences other than colours, cursor movement and erasure.
        is_styled: whether a colour is set.
    """

    def __init__(self, output: str) -> None:
        self.lines, self.row, self.column = [""], 0, 0
        self.modes: list[str] = []
        self.is_styled = False
        for match in SEQUENCE.finditer(output):
            self._apply(match)

    def _apply(self, match: re.Match[str]) -> None:
        if match["letter"] == "m":
            self.is_styled = match["values"] not in ("", "0")
        elif match["letter"] == "A":
            self.row -= int(match["values"] or 1)
            assert self.row >= 0
        elif match["letter"] == "K":
            assert match["values"] == "2"
            self.lines[self.row] = ""
        elif match["letter"]:
            self.modes.append(match[0])
        elif match["move"] == "\r":
            self.column = 0
        elif match["move"] == "\n":
            self.row += 1
            self.lines += [""] * (self.row + 1 - len(self.lines))
        else:
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[: self.column] + match["text"] + line[self.column + len(match["text"]) :]
            self.column += len(match["text"])

    def find(self, start: str) -> str:
        """Return the last line that starts with a text, with single blanks; empty if there is none."""
        return next((" ".join(line.split()) for line in reversed(self.lines) if line.startswith(start)), "")


class Run:
    """A run of the small pipeline on a pseudo-terminal."""

    def __init__(self, folder: Path, columns: int = 120, rows: int = 40, **environment: str) -> None:
        self.terminal, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.settings = termios.tcgetattr(slave)
        clean = {name: value for name, value in os.environ.items() if name not in (*NO_TABLE, "COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            [sys.executable, PROGRAM, *WORDS],
            cwd=folder,
            env={**clean, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **environment},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        self.slave = slave
        self.output = ""

    def read(self, until: str = "", timeout_s: float = 120) -> Screen:
        """Read the output until a line matches an expression, or until the end."""
        deadline = time.monotonic() + timeout_s
        os.set_blocking(self.terminal, False)
        while time.monotonic() < deadline:
            ended = self.process.poll() is not None
            with contextlib.suppress(BlockingIOError):
                while chunk := os.read(self.terminal, 1 << 16):
                    self.output += chunk.decode()
            if until and any(re.search(until, " ".join(line.split())) for line in Screen(self.output).lines):
                return Screen(self.output)
            if ended:
                assert not until, f"{until!r} is not on the screen:\n{self.output}"
                return Screen(self.output)
            time.sleep(0.05)
        raise AssertionError(f"no {until!r} after {timeout_s} s:\n{self.output}")

    def finish(self) -> Screen:
        """Read the rest, and check that the terminal is in order."""
        screen = self.read()
        assert termios.tcgetattr(self.slave) == self.settings
        assert not screen.modes, "the cursor is hidden, or another mode is set"
        assert not screen.is_styled
        assert screen.column == 0
        for descriptor in (self.terminal, self.slave):
            os.close(descriptor)
        return screen


def test_run_on_a_terminal_shows_one_table_and_then_the_results(tmp_path: Path):
    run = Run(tmp_path)
    screen = run.read("train_gan vasc running .*3.0/12.0")
    assert re.fullmatch(
        r"train_gan vasc running \S+ 3.0/12.0 kimg 410 images/s 1:\d\d 0:0\d", screen.find("train_gan v")
    )
    assert screen.find("generate_images df") == "generate_images df waiting"
    screen = run.finish()
    assert run.process.returncode == 0
    lines = [" ".join(line.split()) for line in screen.lines]
    assert lines[0].startswith("run demo-")
    assert lines[-2:] == ["report: out/report.html", ""]
    assert sum(line.startswith("task state") for line in lines) == 1
    assert re.fullmatch(r"prepare_data done \S+ 1,032/1,032 images 1,743 images/s \d:\d\d", screen.find("prepare_data"))
    assert re.fullmatch(r"train_gan df done \S+ 12.0/12.0 kimg 400 images/s \d:\d\d", screen.find("train_gan df"))
    for label in ("generate_images vasc", "train_classifier baseline, seed 1", "train_classifier oversampled, seed 1"):
        assert screen.find(f"{label} ").startswith(f"{label} done")
    assert [line for line in lines if "warning: the disk is nearly full" in line]

    screen = (again := Run(tmp_path)).finish()
    assert again.process.returncode == 0
    assert screen.find("check_inputs ").startswith("check_inputs done")
    for label in ("prepare_data", "train_gan df", "generate_images vasc", "train_classifier oversampled, seed 1"):
        assert screen.find(f"{label} ") == f"{label} cached"


def test_run_of_a_failing_task_ends_the_table_and_prints_its_last_lines(tmp_path: Path):
    screen = (run := Run(tmp_path, TEST_TASKS="fail")).finish()
    assert run.process.returncode == 1
    assert screen.find("train_gan vasc ").startswith("train_gan vasc failed")
    table, reason = (
        next(number for number, line in enumerate(screen.lines) if text in line)
        for text in ("train_gan vasc ", "ValueError: this GAN fails")
    )
    assert table < reason
    assert screen.find("E external/local_xla")
    assert screen.find("the run failed; the complete log is in runs/.cache/logs/")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_that_is_stopped_leaves_the_terminal_in_order(tmp_path: Path, number: int):
    run = Run(tmp_path, TEST_TASKS="wait")
    run.read("train_gan vasc running .*3.0/12.0")
    run.process.send_signal(number)
    screen = run.finish()
    assert run.process.returncode == 130
    assert screen.find("train_gan vasc ").startswith("train_gan vasc stopped")
    assert [line for line in screen.lines if line][-1] == "stopped; rerun the same command to resume"


def test_run_that_is_killed_leaves_the_terminal_in_order(tmp_path: Path):
    run = Run(tmp_path, TEST_TASKS="wait")
    run.read("train_gan vasc running .*3.0/12.0")
    run.process.kill()
    run.finish()
    assert run.process.returncode == -signal.SIGKILL


def test_run_with_a_user_error_prints_it_without_a_table(tmp_path: Path):
    (tmp_path / "out").touch()
    screen = (run := Run(tmp_path)).finish()
    assert run.process.returncode == 2
    assert [line.partition(":")[0] for line in screen.lines] == ["error", "hint", ""]


def test_run_on_a_small_terminal_keeps_the_running_rows_in_view(tmp_path: Path):
    run = Run(tmp_path, columns=80, rows=9, TEST_TASKS="wait")
    screen = run.read("train_gan vasc running .*3.0/12.0")
    head = next(number for number, line in enumerate(screen.lines) if line.startswith("task"))
    assert len(screen.lines) - head <= 9
    assert all(len(line) <= 80 for line in screen.lines[head:])
    assert re.fullmatch(r"train_gan df running 3.0/12.0 410/s 1:\d\d 0:0\d", screen.find("train_gan df"))
    assert screen.find("and ").endswith("waiting")
    run.process.send_signal(signal.SIGINT)
    assert run.finish().find("publish ") == "publish waiting"


@pytest.mark.parametrize(
    "environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"CI": "true"}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}]
)
def test_run_without_a_capable_terminal_prints_plain_lines(tmp_path: Path, environment: dict[str, str]):
    run = Run(tmp_path, TEST_TASKS="wait", **environment)
    run.read("train_gan vasc: 3.0 of 12.0 kimg, 410 images/s, 1 min 30 s left, loss 0.71")
    run.process.terminate()
    run.finish()
    assert "\x1b" not in run.output
    assert re.search(r"^\[  0:\d\d\] prepare_data: 1,032 of 1,032 images, 1,743 images/s\r$", run.output, re.MULTILINE)


def test_run_in_a_pipe_prints_plain_lines_without_those_of_tensorflow(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, PROGRAM, *WORDS],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert lines[0].startswith("run demo-")
    assert lines[-1] == "report: out/report.html"
    assert lines[1] == "preset demo, chosen for the demo data"
    assert all(re.match(r"\[ +\d+:\d\d\] \w+", line) for line in lines[2:-1])
    (log,) = (tmp_path / "runs/.cache/logs").iterdir()
    for text in ("absl::InitializeLog", "oneDNN custom operations are on"):
        assert text not in done.stdout
        assert text in log.read_text()
