"""Calls run in several processes, which end with the first error and with their parent."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from components.shared import processes
from components.shared.errors import UserError


def _fail() -> None:
    raise UserError("wrong", "correct it", "test.wrong", value=3)


def _end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_an_error_of_a_call_ends_the_others():
    """The error keeps its hint, code and fields; a call that would take a minute is killed."""
    started = time.monotonic()
    with pytest.raises(UserError) as raised:
        processes.run_all([partial(time.sleep, 60), _fail], 2)
    assert (raised.value.hint, raised.value.code, raised.value.fields) == ("correct it", "test.wrong", {"value": 3})
    assert time.monotonic() - started < 30


def test_a_killed_worker_is_an_error_that_may_not_recur():
    """The system kills a process if memory is short."""
    with pytest.raises(UserError) as raised:
        processes.run_all([_end, _end], 2)
    assert (raised.value.code, raised.value.retryable) == ("process.killed", True)


def test_mapped_images_are_mapped_by_the_workers(tmp_path):
    """A worker gets the values of a mapped array and of a part of one."""
    array = np.lib.format.open_memmap(tmp_path / "array.npy", "w+", np.int64, (100,))
    array[:] = range(100)
    processes.run_all([partial(_check, array, True, 4950), partial(_check, array[50:], False, 3725)], 2)


def _check(array: np.ndarray, is_mapped: bool, total: int) -> None:
    assert isinstance(array, np.memmap) == is_mapped
    assert array.sum() == total


SLEEPING_WORKERS = """
import sys, time
from functools import partial
from components.shared.processes import run_all
if __name__ == "__main__":
    run_all([partial(time.sleep, 300)] * 2, 2)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no signal for the death of a parent")
def test_workers_die_with_their_task(tmp_path: Path):
    """A killed task leaves no process behind."""
    script = tmp_path / "sleeping.py"
    script.write_text(SLEEPING_WORKERS)
    task = subprocess.Popen([sys.executable, script], env={**os.environ, "PYTHONPATH": str(Path.cwd())})
    children = Path(f"/proc/{task.pid}/task/{task.pid}/children")
    started = time.monotonic()
    while len(found := children.read_text().split()) < 3 and time.monotonic() - started < 60:  # and a resource tracker
        time.sleep(0.1)
    time.sleep(2)  # until the workers have asked to die
    task.kill()
    task.wait()
    started = time.monotonic()
    while any(Path(f"/proc/{pid}").exists() for pid in found) and time.monotonic() - started < 30:
        time.sleep(0.1)
    assert len(found) == 3
    assert not [pid for pid in found if Path(f"/proc/{pid}").exists()]
