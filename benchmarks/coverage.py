"""Simulate how often the intervals cover the truth and the verdict is wrong, the choices on validation included.

`python -m benchmarks.coverage [effect|remedies] [trials]`; 300 trials of all cases take an hour and a half on one core.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from components.evaluate.statistics import inference
from components.evaluate.statistics.compare import (
    choose,
    compare_all,
    decide_verdict,
    lesion_differences,
    weight_differences,
)
from components.evaluate.statistics.inference import LEVEL, Bootstrap
from components.evaluate.statistics.metrics import Predictions, Sample
from components.shared.arms import BASELINE, CONTROL, CONTROLS, dose_arm, share_of
from components.shared.records import Difference

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
        steadier: factor by which that is smaller in the baseline and, beside augmented arms, in the other controls.
        controls: number of arms beside the baseline, the control and the augmented ones.
        doses: number of augmented arms, one of which is chosen on validation; with 0, a control is compared with the
            baseline.
        shared_luck: correlation between the luck of a training on validation and on test; 1 is the worst case.
        gain: true difference of the control to the baseline.
        lead: true difference of the first further control to the control.
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
    gain: float = 0.0
    lead: float = 0.0

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of all arms."""
        return (
            BASELINE,
            CONTROL,
            *list(CONTROLS)[2 : 2 + self.controls],
            *(dose_arm(round((number + 1) / self.doses, 2)) for number in range(self.doses)),
        )

    def recall_of(self, arm: str) -> float:
        """Return the true recall of an arm."""
        if share_of(arm) is not None:
            return self.recall + self.effect
        further = self.controls > 0 and arm == self.arms[2]
        return self.recall - self.gain * (arm == BASELINE) + self.lead * further


class Found(NamedTuple):
    """Results of one trial.

    Attributes:
        covered: the interval of the effect contains the truth.
        verdict: the verdict.
        width: width of that interval.
        gains_covered: the intervals of the gains of all arms contain their truths.
        beyond_covered: the interval of the difference to the best control contains the truth; true without doses.
        beyond: that interval excludes zero.
        gain_found: the interval of the gain of the best control is above zero.
        best_found: no other control has a higher true recall than the best control.
    """

    covered: bool
    verdict: str
    width: float
    gains_covered: bool
    beyond_covered: bool
    beyond: bool
    gain_found: bool
    best_found: bool


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
            recall = case.recall_of(arm)
            is_steady = arm == BASELINE or (case.doses > 0 and arm != CONTROL and share_of(arm) is None)
            training = case.training / (case.steadier if is_steady else 1)
            luck = rng.normal(0, training, case.seeds)
            skill = stats.norm.ppf(recall) * np.hypot(rest, training)
            trained = skill + luck
            other_luck = rng.normal(0, training, case.seeds)
            losses[arm] -= skill + (case.shared_luck * luck + np.sqrt(1 - case.shared_luck**2) * other_luck).mean()
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


def _covers(found: Difference, truth: float) -> bool:
    return found.low is not None and found.high is not None and found.low - 1e-9 <= truth <= found.high + 1e-9


def trial(case: Case, rng: np.random.Generator, draws: int = 200) -> Found:
    """Simulate one evaluation."""
    sample, arms, losses, recalls = simulate(case, rng)
    chosen, rare, seed = choose(losses), sample.classes[:-1], int(rng.integers(2**31))
    bootstrap = Bootstrap(sample, arms, rare, seed, draws)
    arm, reference, count = chosen.arm, chosen.reference, len(chosen.candidates)
    found = bootstrap.difference("rare_recall", arm, reference, level=LEVEL / count)
    weighted = weight_differences(sample, lesion_differences(sample, arms[arm], arms[reference]), rare)
    p, _ = inference.sign_flip(weighted, int(rng.integers(2**31)))
    assert found.low is not None  # all classes have lesions
    assert found.high is not None
    gains = {it.arm: it for it in compare_all(bootstrap, case.arms[1:], BASELINE)}
    beyond = bootstrap.difference("rare_recall", arm, chosen.control, level=LEVEL / (count * len(chosen.controls)))
    return Found(
        covered=_covers(found, recalls[arm] - recalls[reference]),
        verdict=decide_verdict(found.low, found.high, p * count, float(weighted.sum()), case.seeds),
        width=found.high - found.low,
        gains_covered=all(_covers(gain, recalls[arm] - recalls[BASELINE]) for arm, gain in gains.items()),
        beyond_covered=_covers(beyond, recalls[arm] - recalls[chosen.control]),
        beyond=not _covers(beyond, 0.0),
        gain_found=(gains[chosen.control].low or 0.0) > 0,
        best_found=case.recall_of(chosen.control) == max(map(case.recall_of, chosen.controls)),
    )


def measure(case: Case, trials: int, seed: int = 0, draws: int = 200) -> dict[str, float]:
    """Return shares of trials with each property of `Found` and with each verdict; and the mean width."""
    rng = np.random.default_rng(seed)
    found = [trial(case, rng, draws) for _ in range(trials)]
    shares = {name: float(np.mean([getattr(it, name) for it in found])) for name in Found._fields if name != "verdict"}
    return shares | {it: float(np.mean([one.verdict == it for one in found])) for it in ("improved", "worse")}


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
    yield from choices_of_remedy()


def choices_of_remedy() -> Iterator[Case]:
    """Yield cases without synthetic images, in which one of several remedies is compared with the baseline."""
    for seeds in (3, 5):
        for gain in (0.0, 0.1):
            yield Case((34, 49, 109, 11, 92, 15), seeds, 0.6, 0.0, 0.3, controls=4, doses=0, gain=gain)
        yield Case((20,), seeds, 0.6, 0.0, 0.3, controls=4, doses=0)
        yield Case((90,), seeds, 0.6, 0.0, 0.3, controls=1, doses=0)
        yield Case((90,), seeds, 0.6, 0.0, 0.3, steadier=5.0, controls=4, doses=0)


def remedy_cases() -> Iterator[Case]:
    """Yield cases with several controls, one of which is chosen on validation."""
    for lesions in ((90,), (34, 49, 109, 11, 92, 15)):
        for seeds in (3, 5):  # with one seed, no remedy is recommended
            for gain, lead in ((0.0, 0.0), (0.15, 0.0), (0.1, 0.1)):
                yield Case(lesions, seeds, 0.6, 0.0, 0.3, controls=4, doses=3, gain=gain, lead=lead)
    yield Case((34, 49, 109, 11, 92, 15), 3, 0.6, 0.0, 0.3, steadier=5.0, controls=4, doses=3)
    yield Case((34, 49, 109, 11, 92, 15), 3, 0.6, 0.0, 0.3, controls=4, doses=3, shared_luck=0.0, gain=0.1, lead=0.1)


def row(case: Case, trials: int) -> str:
    """Return a row of the table of effects."""
    found = measure(case, trials)
    training = f"{case.training}" + f", others 1/{case.steadier:g}" * (case.steadier > 1)
    choices, effect = f"{1 + case.controls} remedies", case.gain
    if case.doses:
        training += f", {case.controls} more controls" * (case.controls > 0)
        choices, effect = str(case.doses), case.effect
    named = (", ".join(map(str, case.lesions)), choices, case.seeds, training, f"{effect:+.1f}")
    shown = (f"{found[name]:.3f}" for name in ("covered", "improved", "worse", "width"))
    return f"| {' | '.join(map(str, [*named, *shown]))} |"


def remedy_row(case: Case, trials: int) -> str:
    """Return a row of the table of remedies."""
    found = measure(case, trials)
    luck = "shared" if case.shared_luck == 1 else "independent"
    luck += f", others 1/{case.steadier:g}" * (case.steadier > 1)
    named = (", ".join(map(str, case.lesions)), case.seeds, luck, f"{case.gain:+.2f}", f"{case.lead:+.1f}")
    shown = ("gains_covered", "gain_found", "best_found", "beyond_covered", "beyond")
    return f"| {' | '.join(map(str, [*named, *(f'{found[name]:.3f}' for name in shown)]))} |"


def main(words: Sequence[str]) -> None:
    """Print the tables."""
    numbers = [int(word) for word in words if word.isdecimal()]
    trials = numbers[0] if numbers else 300
    if "remedies" not in words:
        print(
            "| lesions of the rare classes | shares | seeds | training | effect | covered | improved | worse | width |"
        )
        print("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
        for case in cases():
            print(row(case, trials), flush=True)
    if "effect" not in words:
        print(
            "| lesions of the rare classes | seeds | luck | gain | lead | gains covered | gain found | best found "
            "| difference to the best covered | excludes 0 |"
        )
        print("|---|--:|---|--:|--:|--:|--:|--:|--:|--:|")
        for case in remedy_cases():
            print(remedy_row(case, trials), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
