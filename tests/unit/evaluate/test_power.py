"""The effect that a planned run can detect, compared with the simulated intervals of docs/concepts/statistics.md."""

import numpy as np
import pytest

from components.evaluate.statistics import power
from components.evaluate.statistics.power import Design, detectable_effect, needed_lesions

SIX = (34, 49, 109, 11, 92, 15)


@pytest.mark.parametrize(
    ("lesions", "seeds", "shares", "width"),
    [
        ((20,), 3, 1, 0.624),
        ((20,), 5, 1, 0.418),
        ((90,), 3, 1, 0.435),
        ((90,), 5, 1, 0.278),
        (SIX, 3, 1, 0.233),
        (SIX, 5, 1, 0.156),
        (SIX, 3, 3, 0.347),
        (SIX, 5, 3, 0.202),
    ],
)
def test_width_of_the_interval_is_that_of_the_simulated_procedure(
    lesions: tuple[int, ...], seeds: int, shares: int, width: float
):
    """The widths are rows of `benchmarks.coverage` without an effect; 250 trials determine them to some percent."""
    half = power._half_widths(Design(lesions, seeds, shares), np.random.default_rng(1))
    assert 2 * half.mean() == pytest.approx(width, rel=0.1)


def test_detectable_effect_is_found_in_80_percent_of_trials():
    design = Design(SIX, seeds=5, comparisons=3)
    effect = detectable_effect(design)
    assert effect is not None
    rng = np.random.default_rng(7)
    deviation = np.sqrt(design.seed_variance / 5 + design.lesion_variance)
    found = effect + rng.normal(0, deviation, power.TRIALS) > power._half_widths(design, rng)
    assert found.mean() == pytest.approx(0.8, abs=4 * np.sqrt(0.16 / power.TRIALS) * np.sqrt(2))


def test_detectable_effect_shrinks_with_seeds_lesions_and_folds_and_grows_with_shares():
    def effect(lesions: int = 40, seeds: int = 5, shares: int = 1, folds: int = 1) -> float:
        found = detectable_effect(Design((lesions, lesions), seeds, shares, folds))
        assert found is not None
        return found

    assert effect() > effect(seeds=10)
    assert effect() > effect(lesions=400)
    assert effect() > effect(folds=5)
    assert effect() < effect(shares=3)
    # With any number of lesions, the variance between trainings remains.
    assert effect(lesions=10**6) == pytest.approx(effect(lesions=10**7), rel=0.01)
    assert effect(lesions=10**7) > 0.05


@pytest.mark.parametrize("design", [Design((90,), 1), Design((), 3), Design((0, 90), 3), Design((1,), 2, 3)])
def test_detectable_effect_is_none_where_nothing_can_be_established(design: Design):
    assert detectable_effect(design) is None


def test_needed_lesions_is_none_until_the_seeds_suffice():
    assert needed_lesions(Design((1,), 1)) is None
    assert needed_lesions(Design((1,), 3)) is None
    many = needed_lesions(Design((1,), 20))
    # By hand: 0.10 / (0.10² / (2.024 + 0.851)² − 2 · 0.08² / 20); the disagreement is at least the effect, 0.10.
    assert many == pytest.approx(176, abs=1)
    assert needed_lesions(Design((1,), 20, folds=5)) < many
