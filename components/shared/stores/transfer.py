"""Threads that make requests, and a watch that ends a call if one of them makes no progress."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from components.shared.log import Progress

TIMEOUT_S = 10
"""How long one attempt of a request may receive nothing, or send no block of its body."""
STALL_S = 16
"""How long a thread may make no progress, over all attempts, before the whole call fails."""
POLL_S = 0.2
"""How often progress is printed and stalls are detected."""
RETRY_DELAY_S = 0.3
"""Before the second attempt of a request; doubles for each further one, up to MAX_RETRY_DELAY_S."""
MAX_RETRY_DELAY_S = 2.0
MAX_PARALLEL_REQUESTS = 8
CHUNK_BYTES = 8 << 20
"""Part of a large file that is kept in memory and sent again after an error."""
SLOWEST_BYTES_PER_S = 50_000
"""A block whose sending cannot be observed may take this long in addition to STALL_S."""
MAX_UPLOAD_ATTEMPTS = 3
"""Uploads of one file if the server lost or damaged what it received."""

CLOCK = time.monotonic


class StalledError(Exception):
    """No progress for STALL_S."""


class StoppedError(Exception):
    """Stops a thread whose call has failed."""


class Watch:
    """Progress of the threads of one call.

    Args:
        clock: returns seconds; tests replace it.
    """

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self.clock = clock or CLOCK
        self.bytes = 0
        self.stopped = False
        self.error: Exception | None = None
        """The last error that was followed by another attempt."""
        self.since: dict[int, float] = {}
        """Active thread → time of its last progress."""
        self._sent: dict[int, int] = {}
        """Thread → bytes of the current request's body that were sent in any attempt."""
        self._extra_s: dict[int, float] = {}
        """Thread → seconds that its current attempt may take in addition to STALL_S."""
        self._lock = threading.Lock()

    def step(self, count: int = 0) -> None:
        """Record progress of the calling thread: received bytes, or a finished request."""
        self._record_progress(count)
        self._sent[threading.get_ident()] = 0

    def expect(self, count: int) -> None:
        """Record that the calling thread attempts to send this many bytes, which cannot be observed.

        The attempt itself is no progress: otherwise a store that is down would be asked forever.
        """
        self.check()
        self._extra_s[threading.get_ident()] = count / SLOWEST_BYTES_PER_S

    def sent(self, position: int) -> None:
        """Record how much of a request's body is sent; what an earlier attempt sent is no progress."""
        before = self._sent.get(threading.get_ident(), 0)
        if position > before:
            self._record_progress(position - before)
            self._sent[threading.get_ident()] = position

    def _record_progress(self, count: int) -> None:
        self.check()
        with self._lock:
            self.bytes += count
        self.since[threading.get_ident()] = self.clock()
        self._extra_s.pop(threading.get_ident(), None)

    def stalled(self) -> bool:
        """Return whether a thread has made no progress for STALL_S."""
        now, extra_s = self.clock(), self._extra_s.copy()
        since = [time_s + extra_s.get(thread, 0) for thread, time_s in self.since.copy().items()]
        return now - min(since, default=now) > STALL_S

    def failed(self, error: Exception) -> None:
        """Record an error that is followed by another attempt."""
        self.check()
        self.error = error
        self._extra_s.pop(threading.get_ident(), None)

    def check(self) -> None:
        """Stop the calling thread if the call has failed."""
        if self.stopped:
            raise StoppedError


def run(watch: Watch, jobs: Sequence[Callable[[], Any]], label: str = "", total: int = 0) -> list[Any]:
    """Run jobs in threads and return their results; the first error stops all.

    Args:
        watch: the jobs report their progress to it.
        jobs: make requests.
        label: start of each progress line; empty for no progress.
        total: bytes of all jobs.

    Raises:
        StalledError: a thread has made no progress for STALL_S.
    """
    todo = queue.SimpleQueue[tuple[int, Callable[[], Any]]]()
    for numbered in enumerate(jobs):
        todo.put(numbered)
    results: dict[int, Any] = {}
    finished = queue.SimpleQueue[BaseException | None]()

    def work() -> None:
        error: BaseException | None = None
        try:
            while not todo.empty():
                watch.step()
                number, job = todo.get_nowait()
                results[number] = job()
        except queue.Empty:  # another thread took the last job
            pass
        except BaseException as raised:
            error = raised
        watch.since.pop(threading.get_ident(), None)
        finished.put(error)

    watch.bytes, watch.error = 0, None
    progress = Progress(label, total / 1e6, "MB")
    # Daemons: a thread that hangs in a system call must not keep the process alive.
    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(MAX_PARALLEL_REQUESTS, len(jobs)))]
    for thread in threads:
        thread.start()
    try:
        running = len(threads)
        while running:
            try:
                error = finished.get(timeout=POLL_S)
            except queue.Empty:
                if watch.stalled():
                    raise StalledError from watch.error
                if label and watch.bytes < total:
                    progress.update(watch.bytes / 1e6)
                continue
            if error:
                raise error
            running -= 1
    except BaseException:
        watch.stopped = True
        for thread in threads:
            thread.join(0.05)
        raise
    if label and jobs:
        progress.update(progress.total)
    return [results[number] for number in range(len(jobs))]
