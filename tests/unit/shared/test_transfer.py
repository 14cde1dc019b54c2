"""The watch over the threads of a transfer, with a clock that tests set."""

import pytest

from components.shared.stores.transfer import SLOWEST_BYTES_PER_S, STALL_S, Watch

BLOCK_BYTES = 100 * SLOWEST_BYTES_PER_S
"""May take 100 s in addition to STALL_S."""


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(clock: Clock) -> Watch:
    watch = Watch(clock)
    watch.step()
    return watch


def test_attempt_may_take_as_long_as_its_block(clock: Clock, watch: Watch):
    watch.expect(BLOCK_BYTES)
    clock.now = STALL_S + 99
    assert not watch.stalled()
    clock.now = STALL_S + 101
    assert watch.stalled()


def test_failed_attempts_are_no_progress(clock: Clock, watch: Watch):
    """Regression: each attempt counted as progress, and a publication to a store that is down never ended."""
    for _ in range(int(STALL_S) + 1):
        watch.expect(BLOCK_BYTES)
        clock.now += 1
        watch.failed(OSError("no connection"))
    assert watch.stalled()


def test_success_ends_the_extra_time(clock: Clock, watch: Watch):
    watch.expect(BLOCK_BYTES)
    watch.step(BLOCK_BYTES)
    clock.now = STALL_S + 1
    assert watch.stalled()
