"""A task of a local run: as a process, or as `counterweight.containers` runs it; what they share."""

import contextlib
import ctypes
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Protocol

CHECKPOINTS = "COUNTERWEIGHT_CHECKPOINTS"
"""The variable that tells a task where checkpoints are kept. It is no parameter of the task: that would stand in the
cache's key, and no run could take another's result."""


def phase_of(command: list[str]) -> str:
    """The phase, or the task with a name of its own, that a command of kfp's runs."""
    return command[command.index("--function_to_execute") + 1]


def ended(code: int) -> str:
    """How a task ended: empty for exit code 0; above 128 it is a signal's number, as a shell gives it."""
    if code > 128:
        hint = "; mostly that is for want of memory" if code == 128 + signal.SIGKILL else ""
        return f"killed by signal {code - 128}{hint}"
    return f"exit code {code}" if code else ""


class Task(Protocol):
    """A task that runs, as a process or in a container."""

    lines: Iterator[str]

    def wait(self) -> str:
        """Waits for its end; empty where all went well, else how it ended."""

    def kill(self) -> None:
        """Ends it at once."""


class Process:
    """A task in a process of its own.

    Args:
        command: what kfp wants to be run.
        environment: its variables.
    """

    _libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        # With exec the shell becomes the task's Python, so that what is asked of the child below holds for it.
        python = f"_KFP_RUNTIME=true exec {shlex.quote(sys.executable)} "
        parent = os.getpid()
        self._child = subprocess.Popen(
            [part.replace("_KFP_RUNTIME=true python3 ", python, 1) for part in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            env=environment,
            start_new_session=True,
            preexec_fn=(lambda: self._die_with(parent)) if self._libc else None,
        )
        self.lines = self._lines()

    def _lines(self) -> Iterator[str]:
        assert self._child.stdout is not None
        yield from self._child.stdout
        _, status, usage = os.wait4(self._child.pid, 0)
        self._child.returncode = os.waitstatus_to_exitcode(status)
        # On macOS it is in bytes.
        yield f"{usage.ru_maxrss * (1 if sys.platform == 'darwin' else 1024) / 2**30:.2f} GiB at the peak\n"

    def _die_with(self, parent: int) -> None:
        """Asks Linux to kill this child when the run is killed: an orphan would train on unseen."""
        assert self._libc is not None
        self._libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it was killed before we could ask
            os._exit(1)

    def wait(self) -> str:
        """Waits for its end; empty where all went well, else how it ended."""
        code = self._child.wait()
        return ended(128 - code if code < 0 else code)

    def kill(self) -> None:
        """Ends it and what it started at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
