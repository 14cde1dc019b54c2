"""Simulate how often the interval covers the truth and the verdict is wrong.

`python -m benchmarks.coverage [trials]`; 300 trials of all cases take an hour on one core.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from components.evaluate import inference
from components.evaluate.compare import decide_verdict, weight_differences
from components.evaluate.inference import Bootstrap
from components.evaluate.metrics import Predictions, Sample
from components.shared.records import ARMS

# Standard deviations of a latent score: what a lesion is like, how an arm handles it, how a model does, one image.
LESION, ARM_AND_LESION, MODEL_AND_LESION, IMAGE = 1.0, 0.5, 0.7, 0.5


@dataclass(frozen=True)
class Case:
    """A simulated world with a known truth.

    Attributes:
        lesions: of each rare class.
        seeds: models of an arm.
        recall: of the control.
        effect: true difference of the augmented arm.
        training: standard deviation, on the latent scale, of the effect of a seed on a class's recall; 0.3 moves a
            recall of .5 by about .08.
        steadier: factor by which that is smaller in the baseline.
    """

    lesions: tuple[int, ...]
    seeds: int
    recall: float
    effect: float
    training: float = 0.0
    steadier: float = 1.0


def simulate(case: Case, rng: np.random.Generator) -> tuple[Sample, dict[str, Predictions], float]:
    """Return test lesions of one to three images, the arms' predictions, and the true difference in mean recall.

    All arms have the same lesions, and all models of an arm share how it handles a lesion. With one seed the truth is
    that of the two models, since one seed allows no other statement.
    """
    rest = np.sqrt(LESION**2 + ARM_AND_LESION**2 + MODEL_AND_LESION**2 + IMAGE**2)
    truth: list[np.ndarray] = []
    lesion: list[str] = []
    hits: dict[str, list[np.ndarray]] = {arm: [] for arm in ARMS}
    means = dict.fromkeys(ARMS, 0.0)
    for label, count in enumerate(case.lesions):
        images = np.repeat(np.arange(count), rng.choice([1, 2, 3], count, p=[0.6, 0.25, 0.15]))
        truth.append(np.full(len(images), label))
        lesion += [f"{label}-{number}" for number in images]
        of_lesion = rng.normal(0, LESION, (count, 1))
        for arm in ARMS:
            recall = case.recall + case.effect * (arm == "augmented")
            training = case.training / (case.steadier if arm == "baseline" else 1)
            trained = stats.norm.ppf(recall) * np.hypot(rest, training) + rng.normal(0, training, case.seeds)
            score = trained + of_lesion + rng.normal(0, ARM_AND_LESION, (count, 1))
            score = score + rng.normal(0, MODEL_AND_LESION, (count, case.seeds))
            hits[arm].append(score[images] + rng.normal(0, IMAGE, (len(images), case.seeds)) > 0)
            means[arm] += stats.norm.cdf(trained / rest).mean() if case.seeds == 1 else recall
    labels, other = np.concatenate(truth), len(case.lesions)
    sample = Sample(labels, np.array(lesion), tuple(f"c{label}" for label in range(other + 1)))
    predictions = {}
    for arm in ARMS:
        probabilities = np.eye(other + 1)[np.where(np.concatenate(hits[arm]).T, labels, other)]
        predictions[arm] = Predictions(probabilities, probabilities)
    return sample, predictions, float(means["augmented"] - means["oversampled"]) / other


def trial(case: Case, rng: np.random.Generator, draws: int = 200) -> tuple[bool, str, float]:
    """Return whether the interval covers the truth, the verdict, and the interval's width."""
    sample, arms, true = simulate(case, rng)
    bootstrap = Bootstrap(sample, arms, sample.classes[:-1], int(rng.integers(2**31)), draws)
    found = bootstrap.difference("rare_recall", "augmented", "oversampled")
    weighted = weight_differences(sample, arms, sample.classes[:-1])
    p, _ = inference.sign_flip(weighted, int(rng.integers(2**31)))
    verdict = decide_verdict(found["low"], found["high"], p, float(weighted.sum()), case.seeds)
    covered = found["low"] - 1e-9 <= true <= found["high"] + 1e-9
    return covered, verdict, found["high"] - found["low"]


def measure(case: Case, trials: int, seed: int = 0, draws: int = 200) -> dict[str, float]:
    """Return shares of trials: covered, improved, worse; and the mean width."""
    rng = np.random.default_rng(seed)
    found = [trial(case, rng, draws) for _ in range(trials)]
    return {
        "covered": float(np.mean([covered for covered, _, _ in found])),
        "improved": float(np.mean([verdict == "improved" for _, verdict, _ in found])),
        "worse": float(np.mean([verdict == "worse" for _, verdict, _ in found])),
        "width": float(np.mean([width for *_, width in found])),
    }


def cases() -> Iterator[Case]:
    """Yield cases of the sizes that the rare classes of HAM10000's test split and folds have."""
    for lesions in ((9,), (20,), (90,), (11, 15, 34), (34, 49, 109, 11, 92, 15)):
        for seeds, training in ((1, 0.0), (3, 0.3), (5, 0.3)):
            for recall, effect in ((0.6, 0.0), (0.7, 0.1)):
                yield Case(lesions, seeds, recall, effect, training)
    yield Case((90,), 5, 0.6, 0.0, 0.3, steadier=5.0)


def row(case: Case, trials: int) -> str:
    """Return a row of the table."""
    found = measure(case, trials)
    named = (", ".join(map(str, case.lesions)), case.seeds, case.training, f"{case.effect:+.1f}")
    shown = (f"{found[name]:.3f}" for name in ("covered", "improved", "worse", "width"))
    return f"| {' | '.join(map(str, [*named, *shown]))} |"


def main(words: Sequence[str]) -> None:
    """Print the table."""
    trials = int(words[0]) if words else 300
    print("| lesions of the rare classes | seeds | training | effect | covered | improved | worse | mean width |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for case in cases():
        print(row(case, trials), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
