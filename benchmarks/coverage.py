"""Simulate how often the interval covers the truth and the verdict is wrong, the choice of a share included.

`python -m benchmarks.coverage [trials]`; 300 trials of all cases take an hour on one core.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from components.evaluate.statistics import inference
from components.evaluate.statistics.compare import choose, decide_verdict, lesion_differences, weight_differences
from components.evaluate.statistics.inference import LEVEL, Bootstrap
from components.evaluate.statistics.metrics import Predictions, Sample
from components.shared.arms import BASELINE, CONTROL, CONTROLS, dose_arm, share_of

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
        steadier: factor by which that is smaller in the baseline and in the other controls.
        controls: number of arms beside the baseline, the control and the augmented ones.
        doses: number of augmented arms, one of which is chosen on validation.
        shared_luck: correlation between the luck of a training on validation and on test; 1 is the worst case.
    """

    lesions: tuple[int, ...]
    seeds: int
    recall: float
    effect: float
    training: float = 0.0
    steadier: float = 1.0
    controls: int = 0
    doses: int = 1
    shared_luck: float = 1.0

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of all arms."""
        return (
            BASELINE,
            CONTROL,
            *list(CONTROLS)[2 : 2 + self.controls],
            *(dose_arm(round((number + 1) / self.doses, 2)) for number in range(self.doses)),
        )


def simulate(case: Case, rng: np.random.Generator) -> tuple[Sample, dict[str, Predictions], dict[str, float], Any]:
    """Return test lesions of one to three images, the arms' predictions, losses on validation, and true recalls.

    All arms have the same lesions, and all models of an arm share how it handles a lesion. With one seed the truth is
    that of the two models, since one seed allows no other statement.
    """
    rest = np.sqrt(LESION**2 + ARM_AND_LESION**2 + MODEL_AND_LESION**2 + IMAGE**2)
    truth: list[np.ndarray] = []
    lesion: list[str] = []
    hits: dict[str, list[np.ndarray]] = {arm: [] for arm in case.arms}
    means, losses = dict.fromkeys(case.arms, 0.0), dict.fromkeys(case.arms, 0.0)
    for label, count in enumerate(case.lesions):
        images = np.repeat(np.arange(count), rng.choice([1, 2, 3], count, p=[0.6, 0.25, 0.15]))
        truth.append(np.full(len(images), label))
        lesion += [f"{label}-{number}" for number in images]
        of_lesion = rng.normal(0, LESION, (count, 1))
        for arm in case.arms:
            recall = case.recall + case.effect * (share_of(arm) is not None)
            training = case.training / (case.steadier if arm != CONTROL and share_of(arm) is None else 1)
            luck = rng.normal(0, training, case.seeds)
            trained = stats.norm.ppf(recall) * np.hypot(rest, training) + luck
            other_luck = rng.normal(0, training, case.seeds)
            losses[arm] -= (case.shared_luck * luck + np.sqrt(1 - case.shared_luck**2) * other_luck).mean()
            score = trained + of_lesion + rng.normal(0, ARM_AND_LESION, (count, 1))
            score = score + rng.normal(0, MODEL_AND_LESION, (count, case.seeds))
            hits[arm].append(score[images] + rng.normal(0, IMAGE, (len(images), case.seeds)) > 0)
            means[arm] += stats.norm.cdf(trained / rest).mean() if case.seeds == 1 else recall
    labels, other = np.concatenate(truth), len(case.lesions)
    sample = Sample(labels, np.array(lesion), tuple(f"c{label}" for label in range(other + 1)))
    predictions = {}
    for arm in case.arms:
        probabilities = np.eye(other + 1)[np.where(np.concatenate(hits[arm]).T, labels, other)]
        predictions[arm] = Predictions(probabilities, probabilities)
    return sample, predictions, losses, {arm: mean / other for arm, mean in means.items()}


def trial(case: Case, rng: np.random.Generator, draws: int = 200) -> tuple[bool, str, float]:
    """Return whether the interval covers the truth, the verdict, and the interval's width."""
    sample, arms, losses, recalls = simulate(case, rng)
    chosen = choose(losses)
    true = recalls[chosen.augmented] - recalls[CONTROL]
    bootstrap = Bootstrap(sample, arms, sample.classes[:-1], int(rng.integers(2**31)), draws)
    found = bootstrap.difference("rare_recall", chosen.augmented, CONTROL, level=LEVEL / case.doses)
    differences = lesion_differences(sample, arms[chosen.augmented], arms[CONTROL])
    weighted = weight_differences(sample, differences, sample.classes[:-1])
    p, _ = inference.sign_flip(weighted, int(rng.integers(2**31)))
    verdict = decide_verdict(found.low, found.high, p * case.doses, float(weighted.sum()), case.seeds)
    assert found.low is not None  # all classes have lesions
    assert found.high is not None
    return found.low - 1e-9 <= true <= found.high + 1e-9, verdict, found.high - found.low


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
    for seeds in (1, 3, 5):
        for effect in (0.0, 0.1):
            yield Case((34, 49, 109, 11, 92, 15), seeds, 0.6, effect, 0.3, doses=3)
    yield Case((90,), 3, 0.6, 0.0, 0.3, steadier=5.0, doses=5)
    yield Case((90,), 5, 0.6, 0.0, 0.3, steadier=5.0, doses=5)
    yield Case((90,), 5, 0.6, 0.0, 0.3, steadier=5.0, controls=4, doses=3)


def row(case: Case, trials: int) -> str:
    """Return a row of the table."""
    found = measure(case, trials)
    training = f"{case.training}" + f", others 1/{case.steadier:g}" * (case.steadier > 1)
    training += f", {case.controls} more controls" * (case.controls > 0)
    named = (", ".join(map(str, case.lesions)), case.doses, case.seeds, training, f"{case.effect:+.1f}")
    shown = (f"{found[name]:.3f}" for name in ("covered", "improved", "worse", "width"))
    return f"| {' | '.join(map(str, [*named, *shown]))} |"


def main(words: Sequence[str]) -> None:
    """Print the table."""
    trials = int(words[0]) if words else 300
    print("| lesions of the rare classes | shares | seeds | training | effect | covered | improved | worse | width |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for case in cases():
        print(row(case, trials), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
