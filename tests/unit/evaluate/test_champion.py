"""The paired comparison with a champion, what it has seen, and drift."""

import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from components.evaluate import drift
from components.evaluate.champion import DUPLICATE_BITS, METRICS, _is_near, compare, find_seen
from components.evaluate.statistics.metrics import Predictions
from components.shared.records import OTHER_GROUP, Ages, Champion, ChampionRun, Population
from components.shared.sample_metrics import kid
from tests.helpers.example_results import CLASSES
from tests.helpers.published_run import rows_of, simulate

RARE = ("akiec", "df")
ROWS = rows_of("test")
NOT_SEEN = np.zeros(len(ROWS), bool)


def predictions(skill: float, seeds: int = 3, seed: int = 1) -> Predictions:
    probabilities = simulate(ROWS, seeds, skill, seed)
    return Predictions(probabilities, probabilities)


def recall(of: Predictions, seeds: int, kept: np.ndarray) -> float:
    """Return the mean over seeds and rare classes of the recall."""
    predicted = np.array(CLASSES)[of.probabilities[:seeds].argmax(-1)]
    dx = ROWS["dx"].to_numpy()
    return float(np.mean([(predicted[:, kept & (dx == name)] == name).mean() for name in RARE]))


@pytest.mark.parametrize(("skills", "verdict"), [((4.0, 1.0), "improved"), ((1.0, 4.0), "worse")])
def test_compare_measures_the_candidate_minus_the_champion(skills: tuple[float, float], verdict: str):
    candidate, champion = predictions(skills[0], seed=1), predictions(skills[1], seed=2)
    found = compare(ROWS, CLASSES, RARE, candidate, champion, NOT_SEEN, 1)
    assert (found.verdict, found.few, found.seeds, found.excluded_lesions) == (verdict, False, 3, 0)
    assert (found.lesions, found.rare_lesions) == (ROWS["lesion_id"].nunique(), 12)
    assert set(found.figures) == set(METRICS)
    figure = found.figures["rare_recall"]
    assert figure.candidate.value == pytest.approx(recall(candidate, 3, ~NOT_SEEN))
    assert figure.champion.value == pytest.approx(recall(champion, 3, ~NOT_SEEN))
    for metric, it in found.figures.items():
        assert None not in (it.candidate.value, it.champion.value, it.difference.low, it.difference.high), metric
        assert it.difference.value == pytest.approx(it.candidate.value - it.champion.value)  # type: ignore[operator]
    assert found.permutation is not None
    assert (found.permutation.p, found.permutation.passed) == (None, True)


def test_compare_of_the_same_models_is_exactly_zero():
    same = predictions(1.0)
    found = compare(ROWS, CLASSES, RARE, same, same, NOT_SEEN, 1)
    assert found.verdict == "no evidence"
    for figure in found.figures.values():
        assert figure.difference.model_dump() == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_compare_with_fewer_seeds_of_the_champion_uses_as_many_of_the_candidate():
    candidate, champion = predictions(4.0, seeds=3), predictions(1.0, seeds=2, seed=2)
    found = compare(ROWS, CLASSES, RARE, candidate, champion, NOT_SEEN, 1)
    assert found.seeds == 2
    assert found.figures["rare_recall"].candidate.value == pytest.approx(recall(candidate, 2, ~NOT_SEEN))


def test_compare_with_one_seed_establishes_nothing_but_gives_p():
    found = compare(ROWS, CLASSES, RARE, predictions(6.0, 1), predictions(0.0, 1, 2), NOT_SEEN, 1)
    assert found.verdict == "not established"
    assert found.permutation is not None
    assert found.permutation.p is not None
    assert found.permutation.p < 0.05


def test_compare_excludes_seen_images_on_both_sides():
    seen = ROWS["lesion_id"].isin(["test-df-lesion-0", "test-nv-lesion-3"]).to_numpy()
    candidate, champion = predictions(4.0), predictions(1.0, seed=2)
    found = compare(ROWS, CLASSES, RARE, candidate, champion, seen, 1)
    assert (found.excluded_lesions, found.excluded_images, found.rare_lesions) == (2, 4, 11)
    assert found.figures["rare_recall"].candidate.value == pytest.approx(recall(candidate, 3, ~seen))
    assert found.figures["rare_recall"].champion.value == pytest.approx(recall(champion, 3, ~seen))


@pytest.mark.parametrize("left", [{"akiec": 6, "df": 0}, {"akiec": 3, "df": 2}])
def test_compare_with_too_few_lesions_claims_nothing(left: dict[str, int]):
    """A rare class without lesions would change the meaning of the figure."""
    number = ROWS["lesion_id"].str.rpartition("-")[2].astype(int)
    seen = (ROWS["dx"].isin(RARE) & (number >= ROWS["dx"].map(left).fillna(0))).to_numpy()
    found = compare(ROWS, CLASSES, RARE, predictions(6.0), predictions(0.0, seed=2), seen, 1)
    assert found.few
    assert (found.verdict, found.figures, found.permutation) == ("not established", {}, None)
    assert found.rare_lesions == sum(left.values())


# What the champion has seen


def images(**changes: Any) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    rows = pd.DataFrame(
        {
            "image_id": ["a", "b", "c", "d"],
            "lesion_id": ["la", "lb", "lc", "lc"],
            "pixel_sha256": [f"{n}" * 64 for n in range(4)],
            "perceptual_hash": [rng.bytes(32).hex() for _ in range(4)],
            "patient_id": ["pa", "pb", None, None],
        }
    )
    return rows.assign(**changes)


def opened(seen: list[str] = [], split: str = "train", **row: Any) -> Any:  # noqa: B006
    listed = {
        "image_id": "x",
        "lesion_id": "lx",
        "split": split,
        "pixel_sha256": "f" * 64,
        "perceptual_hash": np.random.default_rng(9).bytes(32).hex(),
        "patient_id": None,
    }
    classifier = SimpleNamespace(record=SimpleNamespace(seen=seen))
    return SimpleNamespace(classifiers=(classifier,), listed=pd.DataFrame([listed | row]))


def flip_bits(digest: str, count: int) -> str:
    value = int(digest, 16)
    for bit in range(count):
        value ^= 1 << (10 * bit)
    return f"{value:064x}"


@pytest.mark.parametrize(
    ("champion", "expected"),
    [
        (opened(), ""),
        (opened(seen=[images()["pixel_sha256"][1][:16]]), "b"),
        (opened(pixel_sha256=images()["pixel_sha256"][0]), "a"),
        (opened(lesion_id="lb"), "b"),
        (opened(patient_id="pa"), "a"),
        (opened(perceptual_hash=flip_bits(images()["perceptual_hash"][2], DUPLICATE_BITS)), "cd"),
        (opened(perceptual_hash=flip_bits(images()["perceptual_hash"][2], DUPLICATE_BITS + 1)), ""),
        (opened(lesion_id="lb", split="test"), ""),
        (opened(lesion_id="lb", split="validation"), "b"),
    ],
)
def test_find_seen_marks_all_images_of_a_lesion_that_the_champion_has_seen(champion: Any, expected: str):
    rows = images()
    assert "".join(rows["image_id"][find_seen(champion, rows)]) == expected


def test_find_seen_without_hashes_and_patients_compares_ids_and_pixels():
    rows = images(perceptual_hash=None).drop(columns="patient_id")
    assert find_seen(opened(lesion_id="lc"), rows).tolist() == [False, False, True, True]


def test_find_seen_images_without_a_pattern_match_nothing():
    rows = images(perceptual_hash="0" * 64)
    assert not find_seen(opened(perceptual_hash="0" * 64), rows).any()


def test_is_near_finds_each_pair_in_memory_that_does_not_grow_with_the_champion():
    """Comparing all at once would take 8 bytes for each pair: 160 MB here."""
    rng = np.random.default_rng(1)
    others = rng.integers(0, 2**64, (100_000, 4), np.uint64)
    words = rng.integers(0, 2**64, (200, 4), np.uint64)
    words[[0, 63, 64, 199]] = others[[0, 8191, 8192, 99_999]]
    tracemalloc.start()
    near = _is_near(words, others)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.flatnonzero(near).tolist() == [0, 63, 64, 199]
    assert peak < others.nbytes + 20 * 2**20


# Drift


def test_distance_is_half_the_sum_of_differences():
    assert drift.distance([99, 1], [90, 10]) == pytest.approx(0.09)
    assert drift.distance([1, 0], [0, 5]) == 1.0
    assert drift.distance([0, 0], [0, 5]) == 0.5


def test_chi_square_is_that_of_scipy_without_empty_classes():
    expected = stats.chi2_contingency([[70, 30], [50, 60]], correction=False).pvalue
    assert drift.chi_square([70, 0, 30], [50, 0, 60]) == pytest.approx(expected)
    assert drift.chi_square([70, 0], [50, 0]) is None
    assert drift.chi_square([0, 0], [50, 1]) is None


def population(sex: dict[str, int], site: dict[str, int], median: float | None) -> Population:
    ages = Ages(median=median, low=median, high=median, missing=0)
    return Population(images=10, lesions=5, age=ages, sex=sex, localization=site, dx_type={})


def test_shift_ignores_unrecorded_values_and_joins_spellings():
    assert drift._shift({"male": 5, "female": 5, "Unknown": 90}, {"Male": 8, "female": 2}) == pytest.approx(0.3)
    assert drift._shift({"not recorded": 9}, {"male": 1}) is None


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ({"back": 5, "face": 5}, {"hand": 5, "foot": 5}, 1.0),
        ({"male": 5, "female": 5}, {"male": 10}, 0.5),
        # `face` may be among the others, `hand` was nowhere before; older records call the others `other`.
        ({"back": 5, "face": 5}, {"back": 5, "hand": 3, OTHER_GROUP: 2}, 0.3),
        ({"back": 5, "face": 5}, {"back": 5, "hand": 3, "other": 2}, 0.3),
        ({"back": 5, "face": 3, "other": 2}, {"back": 5, "hand": 4, OTHER_GROUP: 1}, 0.0),
    ],
)
def test_shift_joins_only_values_that_a_shortened_list_may_contain(
    before: dict[str, int], now: dict[str, int], expected: float
):
    assert drift._shift(before, now) == pytest.approx(expected)
    assert drift._shift(now, before) == pytest.approx(expected)


def test_kernel_distance_is_kid_and_detects_a_shift():
    rng = np.random.default_rng(1)
    before, same, moved = rng.normal(0, 1, (40, 8)), rng.normal(0, 1, (30, 8)), rng.normal(1, 1, (30, 8))
    value, p = drift.kernel_distance(before, same, 1)
    assert value == pytest.approx(kid(before, same))
    assert p > 0.05
    value, p = drift.kernel_distance(before, moved, 1)
    assert value == pytest.approx(kid(before, moved))
    assert p == 1 / (1 + drift.PERMUTATIONS)


def test_sample_lesions_takes_one_image_of_each_and_at_most_the_limit(monkeypatch: pytest.MonkeyPatch):
    lesions = np.array(["a", "a", "b", "c", "c", "c"])
    rows = drift._sample_lesions(lesions, 1)
    assert sorted(lesions[rows]) == ["a", "b", "c"]
    monkeypatch.setattr(drift, "MAX_LESIONS", 2)
    assert len(drift._sample_lesions(lesions, 1)) == 2


def test_champion_with_a_part_of_a_comparison_is_invalid(tmp_path: Path):
    run = ChampionRun(place="runs/a", run="a", manifest_sha256="0" * 64, arm="augmented@1")
    with pytest.raises(ValueError, match="missing"):
        Champion(run=run, comparison=None, drift=None)
    assert Champion(run=None, comparison=None, drift=None).run is None
