"""Batches of rows in the order in which training uses them."""

from collections.abc import Iterator

import numpy as np


def endless_batches(repeat: np.ndarray, batch: int, seed: int) -> Iterator[np.ndarray]:
    """Yield batches of row numbers without end, from shuffled passes over rows that count `repeat` times.

    All batches have the same size; a batch may contain the end of one pass and the start of the next.

    Args:
        repeat: (N,) int, occurrences of each row in a pass; at least one is positive.
        batch: rows per batch.
        seed: seed of the order.

    Yields:
        (batch,) int64 row numbers.
    """
    rows = np.repeat(np.arange(len(repeat)), repeat)
    rng = np.random.default_rng(seed)
    remaining = np.empty(0, np.int64)
    while True:
        while len(remaining) < batch:
            remaining = np.concatenate([remaining, rng.permutation(rows)])
        yield remaining[:batch]
        remaining = remaining[batch:]
