"""Measure the time of the statistics of a comparison, at the size of HAM10000's test split."""

import time

import numpy as np
from scipy import special

from components.evaluate.statistics.compare import Fitted, compare
from components.evaluate.statistics.metrics import Predictions, Sample
from components.shared.arms import BASELINE, CONTROL, dose_arm

LESIONS = {"akiec": 34, "bcc": 49, "bkl": 109, "df": 11, "mel": 92, "nv": 810, "vasc": 15}
SEEDS = 5


def example() -> tuple[Sample, dict[str, Predictions]]:
    """Return some 1,500 images of 1,120 lesions, and simulated predictions of three arms and five seeds."""
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(len(LESIONS)), list(LESIONS.values()))
    lesion = np.repeat(np.arange(len(label)), rng.choice([1, 2, 3], len(label), p=[0.73, 0.2, 0.07]))
    sample = Sample(label[lesion], lesion.astype(str), tuple(LESIONS), ("akiec", "bcc", "mel"))
    arms = {}
    for arm in (BASELINE, CONTROL, dose_arm(1.0)):
        logits = rng.normal(0, 1, (SEEDS, len(lesion), len(LESIONS))) + 2 * np.eye(len(LESIONS))[sample.truth]
        probabilities = special.softmax(logits, axis=2)
        alarms = probabilities[..., sample.is_malignant].sum(2) > 0.3
        arms[arm] = Predictions(probabilities, special.softmax(0.8 * logits, axis=2), alarms)
    return sample, arms


def seconds() -> float:
    """Return the seconds for all metrics with their intervals, differences, tests and curves."""
    sample, arms = example()
    started = time.perf_counter()
    compare(
        sample,
        arms,
        dict.fromkeys(arms, Fitted(1.0, [], 1.0)),
        [dx for dx in LESIONS if dx != "nv"],
        range(1, SEEDS + 1),
        1,
    )
    return time.perf_counter() - started


if __name__ == "__main__":
    print(f"{seconds():.1f} s for {len(example()[0].truth):,} images")
