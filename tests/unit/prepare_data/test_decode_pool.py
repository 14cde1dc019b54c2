"""The number of processes that decode images at a time."""

import pytest

from components.prepare_data import decode_pool

GIB = 2**30


@pytest.mark.parametrize(
    ("cpus", "memory", "workers"),
    [(2, 64 * GIB, 2), (64, 4 * GIB, 4), (1, 4 * GIB, 1), (64, 1 * GIB, 1), (64, GIB // 2, 1)],
)
def test_count_workers_fits_cpus_and_memory(monkeypatch: pytest.MonkeyPatch, cpus: int, memory: int, workers: int):
    monkeypatch.setattr(decode_pool, "usable_cpus", lambda: cpus)
    monkeypatch.setattr(decode_pool, "usable_memory_bytes", lambda: memory)
    assert decode_pool.count_workers() == workers
