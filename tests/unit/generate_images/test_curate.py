"""The order in which samples are selected."""

import numpy as np
import pandas as pd
import pytest

from components.generate_images.curate import select
from components.generate_images.separability import log_density_ratios
from components.shared.arms import REALISM, SELECTIONS, Selection

ROWS = pd.DataFrame(
    {
        "probability": [0.4, 0.9, 0.2, 0.3, 0.6],
        "is_first": [True, True, False, False, True],
        "strangeness": [1.0, 0.1, 1.5, 2.0, 0.5],
    }
)
NONE = np.empty((0, 3)), np.empty(0, str)


@pytest.mark.parametrize(
    ("selection", "order", "meets"),
    [
        ("label", [0, 1, 4, 3, 2], [True, True, False, False, True]),
        ("distance", [0, 2, 4, 1, 3], [True, False, True, False, True]),
    ],
)
def test_select_takes_samples_that_meet_the_condition_as_they_come_then_the_best_others(
    selection: Selection, order: list[int], meets: list[bool]
) -> None:
    found, met = select(selection, ROWS, np.zeros((5, 3)), *NONE, 1)
    assert found.tolist() == order
    assert met is not None
    assert met.tolist() == meets


def test_select_without_a_condition_uses_all_samples_once() -> None:
    for selection in (REALISM, "density"):
        order, met = select(selection, ROWS, np.zeros((5, 3)), *NONE, 1)
        assert sorted(order) == [0, 1, 2, 3, 4]
        assert met is None
    assert select(REALISM, ROWS, np.zeros((5, 3)), *NONE, 1)[0].tolist() == [1, 4, 0, 2, 3]


def test_select_by_density_prefers_samples_like_real_images_and_depends_on_its_seed_only() -> None:
    """Half of the samples have the distribution of the real images, the others are 3 deviations away in a value."""
    rng = np.random.default_rng(0)
    real, features = rng.normal(size=(200, 4)), rng.normal(size=(300, 4))
    features[::2, 0] += 3
    rows = pd.DataFrame({"probability": np.zeros(300), "is_first": False, "strangeness": np.zeros(300)})
    lesions = np.arange(200).astype(str)
    ratios = log_density_ratios(real, lesions, features)
    assert np.median(ratios[1::2]) > 0 > np.median(ratios[::2])
    order, _ = select("density", rows, features, real, lesions, 1)
    assert (order[:100] % 2).mean() > 0.6  # .5 by chance, with a deviation of .04; the regularised ratio gives about .7
    again, other = (select("density", rows, features, real, lesions, seed)[0] for seed in (1, 2))
    assert order.tolist() == again.tolist() != other.tolist()


def test_log_density_ratios_of_too_few_images_are_equal() -> None:
    rng = np.random.default_rng(0)
    assert log_density_ratios(rng.normal(size=(19, 2)), np.arange(19).astype(str), rng.normal(size=(50, 2))).any() == 0


def test_selections_besides_the_default_have_a_description() -> None:
    assert set(SELECTIONS) == {"label", "density", "distance"}
