"""The search for similar hashes finds the pairs that a comparison of all finds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.prepare_data.hamming import HammingIndex, compare_all


def pairs(found):
    return [(int(n), int(m)) for some, others in found for n, m in zip(some, others, strict=True)]


def by_definition(queries, hashes, bits):
    apart = np.bitwise_count(queries[:, None] ^ hashes)
    return sorted((int(n), int(m)) for n, m in zip(*np.nonzero(apart <= bits), strict=True))


def clustered(rng, count, clusters, flipped):
    """Return hashes near a few centres: `flipped` random bits differ from them."""
    hashes = rng.choice(rng.integers(0, 2**64, clusters, np.uint64), count)
    for _ in range(flipped):
        hashes = hashes ^ (np.uint64(1) << rng.integers(0, 64, count).astype(np.uint64))
    return hashes


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 3000),
    clusters=st.sampled_from((1, 3, 1000)),
    flipped=st.integers(0, 20),
    bits=st.sampled_from((3, 12, 16)),
)
def test_find_is_the_comparison_of_all(seed: int, count: int, clusters: int, flipped: int, bits: int):
    rng = np.random.default_rng(seed)
    hashes = clustered(rng, count, clusters, flipped)
    queries = np.concatenate([hashes[:40], rng.integers(0, 2**64, 10, np.uint64)])
    expected = by_definition(queries, hashes, bits)
    assert sorted(pairs(HammingIndex(hashes, bits, min_sorted=0).find(queries))) == expected
    assert sorted(pairs(HammingIndex(hashes, bits).find(queries))) == expected
    assert sorted(pairs(compare_all(queries, hashes, bits))) == expected


@pytest.mark.parametrize("part", range(4))
def test_find_of_hashes_with_equal_parts_finds_each_pair_once(part: int):
    """Hashes whose other parts are equal: the look-ups of those parts return all of them."""
    rng = np.random.default_rng(part)
    hashes = rng.integers(0, 2**16, 40_000).astype(np.uint64) << np.uint64(16 * part)
    queries = hashes[:20] ^ np.uint64(0b1011 << 16 * (3 - part))
    found = pairs(HammingIndex(hashes, 12).find(queries))
    assert len(found) == len(set(found))
    assert sorted(found) == by_definition(queries, hashes, 12)


def test_find_without_hashes_or_queries_yields_nothing():
    some = np.arange(5, dtype=np.uint64)
    for hashes, queries in ((some[:0], some), (some, some[:0])):
        assert pairs(HammingIndex(hashes, 12, min_sorted=0).find(queries)) == []
