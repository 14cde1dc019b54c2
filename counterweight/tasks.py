"""Run a task of a local run in a process; `counterweight.containers` runs it in a container."""

import contextlib
import functools
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from components.container_images import PHASE_OF
from components.placement import placement
from components.shared.machine_limits import SHARE
from components.shared.processes import die_with
from components.shared.workflow_size import Packs

FAILED_CLASS = "COUNTERWEIGHT_FAILED_CLASS"
"""Environment variable with the option `failed_class`, for the task that trains GANs; not part of the cache key."""
CHECKPOINTS = "COUNTERWEIGHT_CHECKPOINTS"
"""Environment variable with the folder of the checkpoints, or with the option `checkpoints` if it is not `auto`.

It is not a parameter of the task: a parameter would be part of the cache key, so that runs could not share results."""


def variables(task: str, command: list[str], checkpoints: Mapping[str, Path], packs: Packs) -> dict[str, str]:
    """Return the environment variables of a task that writes checkpoints, or runs beside others; none for another one.

    Args:
        task: its name.
        command: the command from kfp.
        checkpoints: phase → the folder of its checkpoints.
        packs: the classifiers of the run's tasks.
    """
    folder = checkpoints.get(PHASE_OF.get(task, task))
    if folder is None:
        return {}
    options = placement().options
    place = str(folder) if options.checkpoints == "auto" else options.checkpoints
    share = {SHARE: str(_share(command, packs))} if task == "train_classifier" else {}
    return {CHECKPOINTS: place, FAILED_CLASS: options.failed_class, **share}


def _share(command: list[str], packs: Packs) -> float:
    """Return the share of the machine of a task that trains classifiers: kfp runs two tasks of a loop at a time."""
    given = json.loads(command[command.index("--executor_input") + 1])["inputs"]["parameterValues"]
    loop = packs.synthetic if given["pack"] in packs.synthetic else packs.real
    return 1 / min(2, len(loop))


def phase_of(command: list[str]) -> str:
    """Return the name of the component that one of kfp's commands runs: a phase or, for example, `pretrain_gan`."""
    return command[command.index("--function_to_execute") + 1]


def describe_failure(code: int) -> str:
    """Return why a task failed, from its exit code; empty for 0.

    Codes above 128 stand for signals, as in a shell.

    Example:
        >>> describe_failure(139)
        'killed by signal 11'
    """
    if code > 128:
        hint = "; the usual cause is a lack of memory" if code == 128 + signal.SIGKILL else ""
        return f"killed by signal {code - 128}{hint}"
    return f"exit code {code}" if code else ""


class Task(Protocol):
    """A running task.

    Attributes:
        lines: its output, line by line, while it runs.
    """

    lines: Iterator[str]

    def wait(self) -> str:
        """Wait until the task finishes, and return why it failed; empty if it succeeded."""

    def kill(self) -> None:
        """Kill the task."""


class Process:
    """A task in a separate process.

    Args:
        command: the command from kfp, `sh -c` and its arguments.
        environment: all environment variables of the process.
    """

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        # With exec the shell becomes the task's Python, so that the parent-death signal below applies to it.
        python = f"_KFP_RUNTIME=true exec {shlex.quote(sys.executable)} "
        self._child = subprocess.Popen(
            [part.replace("_KFP_RUNTIME=true python3 ", python, 1) for part in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            env=environment,
            start_new_session=True,
            preexec_fn=functools.partial(die_with, os.getpid()),
        )
        self.lines = self._lines()

    def _lines(self) -> Iterator[str]:
        assert self._child.stdout is not None
        yield from self._child.stdout
        _, status, usage = os.wait4(self._child.pid, 0)
        self._child.returncode = os.waitstatus_to_exitcode(status)
        # ru_maxrss is in bytes on macOS and in KiB elsewhere.
        yield f"{usage.ru_maxrss * (1 if sys.platform == 'darwin' else 1024) / 2**30:.2f} GiB at the peak\n"

    def wait(self) -> str:
        """Wait until the process finishes, and return why it failed; empty if it succeeded."""
        code = self._child.wait()
        return describe_failure(128 - code if code < 0 else code)

    def kill(self) -> None:
        """Kill the process and its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
