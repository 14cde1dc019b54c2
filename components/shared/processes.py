"""Calls in several processes, each with a share of the CPUs."""

import ctypes
import mmap
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np

from components.shared.errors import UserError
from components.shared.machine_limits import divide_share, limit_threads, usable_cpus

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def run_all(calls: Sequence[Callable[[], None]], workers: int) -> None:
    """Run calls one after another, or in processes; the first error ends the others.

    Args:
        calls: must be picklable if there are several workers, which map the memory-mapped arrays in them.
        workers: number of calls at a time. Each gets the same share of the CPUs, at least one thread.

    Raises:
        UserError: `process.killed`; or any error of a call.
    """
    if workers == 1:
        for call in calls:
            call()
        return
    initial = os.getpid(), workers
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker, initial)
    try:
        with explain_killed():
            for future in as_completed([pool.submit(call) for call in calls]):
                future.result()
    except BaseException:
        for process in multiprocessing.active_children():
            process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def explain_killed() -> Iterator[None]:
    """Raise a user error if a process of a pool is killed.

    Raises:
        UserError: `process.killed`; the task may be repeated.
    """
    try:
        yield
    except BrokenProcessPool:
        error = UserError(
            "a process of the task was killed; the usual cause is a lack of memory",
            "give the task more memory",
            "process.killed",
        )
        error.retryable = True
        raise error from None


def _start_worker(parent: int, workers: int) -> None:
    die_with(parent)
    divide_share(workers)
    limit_threads(usable_cpus())


def die_with(parent: int) -> None:
    """Have Linux kill this process when its parent dies; otherwise it would continue, or block, unnoticed.

    Args:
        parent: id of the parent process.
    """
    if _LIBC is not None:
        _LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # the parent died before the call above
            os._exit(1)


def _reduce_memmap(array: np.memmap) -> tuple[Any, ...]:
    """Return how a process gets this array: it maps the same file. Parts of a mapped array are copied."""
    if isinstance(array.base, mmap.mmap):
        return np.memmap, (array.filename, array.dtype, "r", array.offset, array.shape)
    return np.asarray(array).__reduce__()  # type: ignore[return-value]


ForkingPickler.register(np.memmap, _reduce_memmap)
