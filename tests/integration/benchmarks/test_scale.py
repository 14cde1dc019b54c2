"""The memory that prepare_data needs for each image."""

from benchmarks.scale import measure

FEW, MANY = 10_000, 60_000


def test_prepare_needs_little_memory_for_each_image():
    mib = measure(MANY)["mib"] - measure(FEW)["mib"]
    assert mib * 2**20 / (MANY - FEW) < 400  # bytes; Python strings in lists and dictionaries needed 600
