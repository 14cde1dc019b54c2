"""Select samples: the order in which they are taken until there are enough."""

import numpy as np
import pandas as pd

from components.generate_images.separability import log_density_ratios
from components.shared.arms import REALISM, Selection

BAND = (0.5, 1.5)
"""Limits of `strangeness` for the selection by distance: nearer samples are almost copies, farther ones outliers."""


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


def select(
    selection: Selection, rows: pd.DataFrame, features: np.ndarray, real: np.ndarray, lesions: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the samples in the order in which a selection takes them, and whether each meets its condition.

    The conditions read training images only. Samples that meet one are taken as they come, since the most confident
    ones would have less variety; the others follow, the best first, so that there are always enough. In proportion to
    the density means without replacement (Efraimidis & Spirakis 2006), by ratios that are at most 1.

    Args:
        selection: value of the option `synthetic_selection`.
        rows: of N samples, see `Samples`.
        features: (N, 224) their features.
        real: (M, 224) features of the real training images of the class.
        lesions: (M,) their lesions.
        seed: seed of random choices.

    Returns:
        (N,) int64 rows; (N,) bool, or None for a selection without a condition.
    """
    probability, strangeness = rows["probability"].to_numpy(), rows["strangeness"].to_numpy()
    if selection == REALISM:
        return rank_best_first(probability, strangeness), None
    if selection == "label":
        meets, badness = rows["is_first"].to_numpy(bool), -probability
    elif selection == "distance":
        badness = np.maximum(BAND[0] - strangeness, strangeness - BAND[1])
        meets = badness <= 0
    else:
        ratios = np.minimum(log_density_ratios(real, lesions, features), 0)
        noise = np.random.default_rng(seed).gumbel(size=len(ratios))
        return np.argsort(-(ratios + noise), kind="stable"), None
    return np.argsort(np.where(meets, -np.inf, badness), kind="stable"), meets
