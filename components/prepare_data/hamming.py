"""Find all 64-bit hashes that differ from others in few bits, without comparing each with each.

The hashes are sorted by each of their four 16-bit parts. Two hashes with at most 12 different bits have at most `r` of
them in one part, where `r` may be chosen for each part as long as the four add up to 9, so it suffices to compare a
hash with those whose part is so similar (M. Norouzi, A. Punjani and D. Fleet, "Fast search in Hamming space with
multi-index hashing", CVPR 2012). The hashes of similar images share parts, so the cheapest `r` are chosen for each
hash (J. Qin et al., "GPH: similarity search in Hamming space", ICDE 2018). The result is that of comparing all.

Libraries with this search, such as faiss, are larger than all other dependencies of the phase.
"""

from collections.abc import Iterator
from itertools import combinations, product

import numpy as np

PARTS, PART_BITS = 4, 16
MIN_SORTED = 2**15
"""Fewer hashes are compared one by one, which is as fast."""
MAX_RADIUS = 4
"""Maximum `r` of a part: its 2,517 similar values are looked up."""
LOOKUP_COST, COMPARISON_COST = 2.0, 0.2
"""Duration of a look-up, and of a comparison of all hashes in order, in terms of the comparison of a looked-up hash."""
LOOKUPS, CANDIDATES, COMPARED = 2**18, 2**18, 2**13
"""Look-ups and comparisons at a time; they bound the memory, and their results fit into the CPU cache."""


def _masks(radius: int) -> np.ndarray:
    """Return all (R,) uint16 values with at most `radius` bits."""
    bits = [sum(1 << bit for bit in some) for n in range(radius + 1) for some in combinations(range(PART_BITS), n)]
    return np.array(bits, np.uint16)


def _count_similar(counts: np.ndarray) -> np.ndarray:
    """Return for each value of a part how many hashes have a part within 0 … `MAX_RADIUS` bits of it.

    Args:
        counts: (65,536,) number of hashes with each value.

    Returns:
        (MAX_RADIUS + 1, 65,536) int64.
    """
    at_distance = np.zeros((MAX_RADIUS + 1, len(counts)), np.int64)
    at_distance[0] = counts
    values = np.arange(len(counts))
    for bit in range(PART_BITS):
        at_distance[1:] += at_distance[:-1, values ^ (1 << bit)]
    return at_distance.cumsum(axis=0)


def compare_all(queries: np.ndarray, hashes: np.ndarray, bits: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the (P,) positions in `queries` and in `hashes` of pairs that differ in at most `bits` bits.

    Args:
        queries: (Q,) uint64.
        hashes: (M,) uint64.
        bits: maximum distance.
    """
    for start in range(0, len(hashes), COMPARED):  # a block's intermediate results fit into the CPU cache
        block = hashes[start : start + COMPARED]
        for n, query in enumerate(queries):
            near = np.flatnonzero(np.bitwise_count(query ^ block) <= bits)
            if len(near):
                yield np.full(len(near), n), start + near


class HammingIndex:
    """Hashes that were sorted for searches within a distance; each needs 56 bytes. Several threads may search."""

    def __init__(self, hashes: np.ndarray, bits: int, min_sorted: int = MIN_SORTED) -> None:
        """Sort hashes.

        Args:
            hashes: (M,) uint64.
            bits: maximum distance of the searches.
            min_sorted: number of hashes from which they are sorted.
        """
        self._hashes, self._bits, self._is_sorted = hashes, bits, len(hashes) >= min_sorted
        if not self._is_sorted:
            return
        self._orders, self._sorted, self._starts, costs = [], [], [], []
        for part in range(PARTS):
            values = self._values(hashes, part)
            order = np.argsort(values, kind="stable").astype(np.uint32)
            counts = np.bincount(values, minlength=2**PART_BITS)
            self._orders.append(order)
            self._sorted.append(hashes[order])
            self._starts.append(np.concatenate([[0], np.cumsum(counts)]))
            costs.append(_count_similar(counts))
        self._masks = [_masks(radius) for radius in range(MAX_RADIUS + 1)]
        lookups = np.array([len(masks) for masks in self._masks])[:, None] * LOOKUP_COST
        free = np.zeros((1, 2**PART_BITS))  # radius −1: the part is not looked up
        self._costs = [np.concatenate([free, cost + lookups]).astype(np.float32) for cost in costs]
        choices = product(range(-1, MAX_RADIUS + 1), repeat=PARTS)
        self._choices = np.array([radii for radii in choices if sum(radii) == bits - PARTS + 1])

    @staticmethod
    def _values(hashes: np.ndarray, part: int) -> np.ndarray:
        return ((hashes >> np.uint64(PART_BITS * part)) & np.uint64(2**PART_BITS - 1)).astype(np.uint16)

    def find(self, queries: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the (P,) positions of queries and of hashes that differ in at most `bits` bits, each pair once.

        Args:
            queries: (Q,) uint64.
        """
        if not self._is_sorted:
            yield from compare_all(queries, self._hashes, self._bits)
            return
        values = [self._values(queries, part) for part in range(PARTS)]
        best = np.full(len(queries), COMPARISON_COST * len(self._hashes), np.float32)
        choice = np.full(len(queries), -1)
        by_part = [cost[:, value] for cost, value in zip(self._costs, values, strict=True)]
        for number, radii in enumerate(self._choices + 1):
            cost = sum(by_part[part][radius] for part, radius in enumerate(radii.tolist()))
            choice[cost < best] = number
            best = np.minimum(best, cost)
        all_of_them = np.flatnonzero(choice < 0)
        for n, m in compare_all(queries[all_of_them], self._hashes, self._bits):
            yield all_of_them[n], m
        radii = self._choices[choice]
        for part in range(PARTS):
            for radius in range(MAX_RADIUS + 1):
                chosen = np.flatnonzero((choice >= 0) & (radii[:, part] == radius))
                for n, m in self._look_up(queries[chosen], values[part][chosen], part, radius):
                    n = chosen[n]
                    new = self._not_in_parts_before(queries[n] ^ self._hashes[m], radii[n], part)
                    yield n[new], m[new]

    def _not_in_parts_before(self, different: np.ndarray, radii: np.ndarray, part: int) -> np.ndarray:
        """Return which pairs were not found through an earlier part: (P,) bool."""
        new = np.ones(len(different), bool)
        for before in range(part):
            new &= np.bitwise_count(self._values(different, before)) > radii[:, before]
        return new

    def _look_up(
        self, queries: np.ndarray, values: np.ndarray, part: int, radius: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the pairs that differ in at most `radius` bits in one part, and in at most `bits` in all."""
        masks, starts = self._masks[radius], self._starts[part]
        # Neighbouring look-ups read neighbouring memory.
        order = np.argsort(values, kind="stable")
        values = values[order]
        step = max(1, LOOKUPS // max(1, len(values)))
        for first in range(0, len(masks), step):
            looked_up = (masks[first : first + step, None] ^ values).ravel()
            begin = starts[looked_up]
            count = starts[looked_up.astype(np.int64) + 1] - begin
            full = np.flatnonzero(count)
            begin, count, query = begin[full], count[full], order[full % len(values)]
            end = np.cumsum(count)
            cuts = np.searchsorted(end, np.arange(0, end[-1] if len(end) else 0, CANDIDATES), "left")
            cuts = np.unique(np.append(cuts, len(count)))
            for low, high in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
                yield from self._compare(queries, query[low:high], begin[low:high], count[low:high], part)

    def _compare(
        self, queries: np.ndarray, query: np.ndarray, begin: np.ndarray, count: np.ndarray, part: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Compare queries with ranges of the hashes that are sorted by a part."""
        end = np.cumsum(count)
        at = np.repeat(begin - end + count, count)
        at += np.arange(len(at))
        different = np.repeat(queries[query], count)
        different ^= self._sorted[part].take(at)
        near = np.flatnonzero(np.bitwise_count(different) <= self._bits)
        if len(near):
            yield query[np.searchsorted(end, near, "right")], self._orders[part][at[near]].astype(np.int64)
