"""Rank samples, to reject the worst."""

import numpy as np


def rank_best_first(probability: np.ndarray, strangeness: np.ndarray) -> np.ndarray:
    """Return the rows from the best image to the worst.

    The rank of an image is the worse of two: by the probability of its class, and by its distance from real images.

    Args:
        probability: (N,) in [0, 1].
        strangeness: (N,) 0 or more.

    Returns:
        (N,) int64; among equals, the earlier row is first.
    """
    ranks = [np.argsort(np.argsort(values, kind="stable")) for values in (-probability, strangeness)]
    return np.argsort(np.maximum(*ranks), kind="stable")
