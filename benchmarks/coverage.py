"""How often the interval holds the truth and the verdict is wrong, by simulation: the table of docs/statistics.md.

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

# Standard deviations of a latent score: what a lesion is like, how an arm takes to it, how a model does, one picture.
LESION, ARM_AND_LESION, MODEL_AND_LESION, IMAGE = 1.0, 0.5, 0.7, 0.5


@dataclass(frozen=True)
class Case:
    """A world in which the truth is known.

    Attributes:
        lesions: of each rare class.
        seeds: models of an arm.
        recall: of the control.
        effect: what the augmented arm has more.
        training: standard deviation, on the latent scale, of what training anew does to a class's recall; 0.3 moves a
            recall of .5 by about .08.
        steadier: by what factor that is smaller in the baseline.
    """

    lesions: tuple[int, ...]
    seeds: int
    recall: float
    effect: float
    training: float = 0.0
    steadier: float = 1.0


def draw(case: Case, rng: np.random.Generator) -> tuple[Sample, dict[str, Predictions], float]:
    """Test lesions of one to three images, what the arms say of them, and the true difference in mean recall.

    All arms see the same lesions, and all models of an arm share how it takes to a lesion. With one seed the truth is
    that of the two models at hand, which is all that one seed can speak of.
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
    said = {}
    for arm in ARMS:
        chances = np.eye(other + 1)[np.where(np.concatenate(hits[arm]).T, labels, other)]
        said[arm] = Predictions(chances, chances)
    return sample, said, float(means["augmented"] - means["oversampled"]) / other


def trial(case: Case, rng: np.random.Generator, draws: int = 200) -> tuple[bool, str, float]:
    """Whether the interval holds the truth, the verdict, and the interval's width."""
    sample, arms, true = draw(case, rng)
    bootstrap = Bootstrap(sample, arms, sample.classes[:-1], int(rng.integers(2**31)), draws)
    found = bootstrap.difference("rare_recall", "augmented", "oversampled")
    weighted = weight_differences(sample, arms, sample.classes[:-1])
    p, _ = inference.sign_flip(weighted, int(rng.integers(2**31)))
    verdict = decide_verdict(found["low"], found["high"], p, float(weighted.sum()), case.seeds)
    covered = found["low"] - 1e-9 <= true <= found["high"] + 1e-9
    return covered, verdict, found["high"] - found["low"]


def measure(case: Case, trials: int, seed: int = 0, draws: int = 200) -> dict[str, float]:
    """Shares of trials: covered, improved, worse; and the mean width."""
    rng = np.random.default_rng(seed)
    found = [trial(case, rng, draws) for _ in range(trials)]
    return {
        "covered": float(np.mean([covered for covered, _, _ in found])),
        "improved": float(np.mean([said == "improved" for _, said, _ in found])),
        "worse": float(np.mean([said == "worse" for _, said, _ in found])),
        "width": float(np.mean([width for *_, width in found])),
    }


def cases() -> Iterator[Case]:
    """Rare classes as small and as many as HAM10000's test split and a fold of all of it have."""
    for lesions in ((9,), (20,), (90,), (11, 15, 34), (34, 49, 109, 11, 92, 15)):
        for seeds, training in ((1, 0.0), (3, 0.3), (5, 0.3)):
            for recall, effect in ((0.6, 0.0), (0.7, 0.1)):
                yield Case(lesions, seeds, recall, effect, training)
    yield Case((90,), 5, 0.6, 0.0, 0.3, steadier=5.0)


def row(case: Case, trials: int) -> str:
    """A row of the table."""
    found = measure(case, trials)
    named = (", ".join(map(str, case.lesions)), case.seeds, case.training, f"{case.effect:+.1f}")
    shown = (f"{found[name]:.3f}" for name in ("covered", "improved", "worse", "width"))
    return f"| {' | '.join(map(str, [*named, *shown]))} |"


def main(words: Sequence[str]) -> None:
    """Prints the table."""
    trials = int(words[0]) if words else 300
    print("| lesions of the rare classes | seeds | training | effect | covered | improved | worse | mean width |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for case in cases():
        print(row(case, trials), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
