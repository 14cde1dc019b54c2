"""Degradations and planted copies of the sample-quality benchmark."""

import numpy as np
import pytest

from benchmarks.sample_quality import COPIES, DEGRADATIONS, SIZE, degrade


@pytest.mark.parametrize("name", sorted(COPIES | DEGRADATIONS))
def test_degrade_changes_images_slightly(name: str):
    rng = np.random.default_rng(0)
    images = np.kron(rng.integers(40, 200, (16, 8, 8, 3), np.uint8), np.ones((1, SIZE // 8, SIZE // 8, 1), np.uint8))
    made = degrade(images, (COPIES | DEGRADATIONS)[name])
    assert (made.shape, made.dtype) == (images.shape, np.uint8)
    changed = (made != images).any(axis=(1, 2, 3))
    assert changed.sum() == {"exact": 0, "flipped and rotated": 14}.get(name, 16)
    # An image's own mean stays nearer to what it was than images' means are to each other's.
    assert np.abs(made.mean((1, 2)) - images.mean((1, 2))).mean() < 25
