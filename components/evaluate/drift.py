"""Drift: how the training data of a run differs from that of the champion's run, from what the latter published."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from components.evaluate.predict.neighbours import decode_table
from components.evaluate.predict.published import Run, load_training_images
from components.evaluate.predict.reference import TrainingImages
from components.shared.errors import UserError
from components.shared.image_set import iter_tables, read_rows
from components.shared.patient_metadata import normalise
from components.shared.records import OTHER_GROUP, Drift, Population, Reference, Results, load_record
from components.shared.seeds import derive_seed

MAX_LESIONS = 500
"""Maximum number of lesions of each side whose images are compared; their kernel needs 8 MB."""
PERMUTATIONS = 999
OLD_OTHER, NOT_RECORDED = "other", "not recorded"
"""Entries of a `Population` of older records that are no values; now they are `OTHER_GROUP` and `UNKNOWN_GROUP`."""
_REFERENCE = ("reference.json", "reference.parquet", "models/features.keras")


def distance(before: Sequence[float], now: Sequence[float]) -> float:
    """Return the total variation distance of two distributions over the same values, given as counts, in [0, 1]."""
    first, second = (np.asarray(counts, float) / max(1.0, float(np.sum(counts))) for counts in (before, now))
    return float(np.clip(np.abs(first - second).sum() / 2, 0, 1))


def chi_square(before: Sequence[int], now: Sequence[int]) -> float | None:
    """Return the p-value of Pearson's test that two samples have the same distribution; None if it is undefined.

    Args:
        before, now: counts of independent units, by value. Units that are in both samples make the test conservative.
    """
    table = np.array([before, now], float)
    table = table[:, table.sum(0) > 0]
    if table.shape[1] < 2 or not table.sum(1).all():
        return None
    return float(stats.chi2_contingency(table, correction=False).pvalue)


def _shift(before: Mapping[str, int], now: Mapping[str, int]) -> float | None:
    """Return the smallest distance of two listed distributions that is possible; None if a side has no recorded value.

    A list with `OTHER_GROUP` has the most common values only: a value that it does not name may be among the others, so
    that the two are compared as one. A value that a complete list does not name has no images.
    """
    sides = [_join_spellings(side) for side in (before, now)]
    if not all(sum(side.values()) for side in sides):
        return None
    listed = (sides[0].keys() | sides[1].keys()) - {OTHER_GROUP}
    names = sorted(name for name in listed if all(name in side or OTHER_GROUP not in side for side in sides))
    counts = [[side.get(name, 0) for name in names] for side in sides]
    rest = [sum(side.values()) - sum(of_side) for side, of_side in zip(sides, counts, strict=True)]
    return distance([*counts[0], rest[0]], [*counts[1], rest[1]])


def _join_spellings(counts: Mapping[str, int]) -> Counter[str]:
    """Return the recorded values, as `patient_metadata.normalise` spells them, and `OTHER_GROUP`, with their counts."""
    joined: Counter[str] = Counter()
    for name, (value, count) in zip(normalise(counts), counts.items(), strict=True):
        if name is not None and value != NOT_RECORDED:
            joined[OTHER_GROUP if name == OLD_OTHER else name] += count
    return joined


def _ages(before: Population, now: Population) -> list[float | None] | None:
    ages = [before.age.median, now.age.median]
    return None if None in ages else ages


def kernel_distance(before: np.ndarray, now: np.ndarray, seed: int) -> tuple[float, float]:
    """Return the Kernel Inception Distance of two samples, see `sample_metrics.kid`, and its permutation p-value.

    Args:
        before, now: (M, d) and (N, d) features of independent units, M, N ≥ 2.
        seed: seed of the permutations.
    """
    points = np.concatenate([before, now]).astype(np.float64)
    kernel = (points @ points.T / points.shape[1] + 1) ** 3
    np.fill_diagonal(kernel, 0)
    first, second = len(before), len(now)

    def statistics(inside: np.ndarray) -> np.ndarray:
        """Return the distance for each assignment, (P, M + N) float64 of 1 for the first sample and 0."""
        of_first = inside @ kernel
        within, between = (of_first * inside).sum(1), (of_first * (1 - inside)).sum(1)
        rest = kernel.sum() - within - 2 * between
        return within / (first * (first - 1)) + rest / (second * (second - 1)) - 2 * between / (first * second)

    observed = np.arange(len(points)) < first
    rng = np.random.default_rng(seed)
    value = float(statistics(observed[None].astype(float))[0])
    others = statistics(np.stack([rng.permutation(observed) for _ in range(PERMUTATIONS)]).astype(float))
    # Rounding must not make an equal distance count as smaller.
    return value, float((1 + (others >= value - 1e-12).sum()) / (1 + PERMUTATIONS))


def _sample_lesions(lesions: np.ndarray, seed: int) -> np.ndarray:
    """Return the numbers of the rows of one image of each of at most `MAX_LESIONS` lesions, sorted."""
    order = np.random.default_rng(seed).permutation(len(lesions))
    _, first = np.unique(lesions[order], return_index=True)
    rows = order[first]
    return np.sort(np.random.default_rng(seed + 1).permutation(rows)[:MAX_LESIONS])


def _iter_features(known: TrainingImages, train_set: Path, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Yield (n, d) features of some rows of an image set; a row group is decoded at a time."""
    begin = 0
    for table in iter_tables(train_set):
        inside = rows[(rows >= begin) & (rows < begin + table.num_rows)] - begin
        begin += table.num_rows
        if len(inside):
            yield known.extract(np.stack(decode_table(table.take(inside))))


def _appearance(run: Run, listed: pd.DataFrame, train_set: Path, seed: int) -> tuple[float, float] | None:
    """Return the distance of the images of new lesions to those of the run, and its p-value.

    Lesions that are in both would make the samples dependent: the distance would be too small, and the test blind.

    Returns:
        None if there are no new lesions, or the run does not have features of all its images.

    Raises:
        UserError: `reference.invalid`, `features.invalid`.
    """
    if set(_REFERENCE) - set(run.files):
        return None
    record = load_record(run.file(_REFERENCE[0]), Reference)
    if record.images != record.train_images:  # a part that is balanced by class is not comparable
        return None
    known = load_training_images(run)
    lesion_of = dict(zip(listed["image_id"], listed["lesion_id"], strict=True))
    lesions = np.array([lesion_of.get(name, name) for name in known.names], str)
    before = known.features[_sample_lesions(lesions, derive_seed(seed, "drift before"))]
    own = read_rows(train_set, "train", ["lesion_id"])["lesion_id"].to_numpy(str)
    new = np.flatnonzero(~np.isin(own, lesions))
    chosen = new[_sample_lesions(own[new], derive_seed(seed, "drift now"))]
    if len(before) < 2 or len(chosen) < 2:
        return None
    now = np.concatenate(list(_iter_features(known, train_set, chosen)))
    with np.errstate(over="ignore", invalid="ignore"):  # the published features may be any numbers
        found = kernel_distance(before, now, derive_seed(seed, "drift"))
    if not math.isfinite(found[0]):
        raise UserError(
            f"{run.name}: the features of its training images are too large to be compared",
            "use the unchanged files of one run",
            "features.invalid",
        )
    return found


def measure(run: Run, listed: pd.DataFrame, results: Results, train_set: Path, seed: int) -> Drift:
    """Return how the training data of a run differs from that of the champion's run.

    Args:
        run: the champion's run.
        listed: image_id and lesion_id of its images.
        results: of this run.
        train_set: image set of this run.
        seed: seed of the samples and permutations.

    Raises:
        UserError: as in `load_training_images`.
    """
    sides = [it.splits["train"] for it in (run.results, results)]
    images, lesions = (
        [[getattr(of[dx], what) if dx in of else 0 for dx in results.classes] for of in sides]
        for what in ("images", "lesions")
    )
    shares = [np.asarray(counts) / max(1, sum(counts)) for counts in images]
    people = [(it.population or {}).get("train") for it in (run.results, results)]
    before, now = people
    appearance = _appearance(run, listed, train_set, seed)
    return Drift(
        images=[sum(counts) for counts in images],
        classes={dx: [float(share[n]) for share in shares] for n, dx in enumerate(results.classes)},
        class_distance=distance(*images),
        class_p=chi_square(*lesions),
        sex_distance=_shift(before.sex, now.sex) if before and now else None,
        site_distance=_shift(before.localization, now.localization) if before and now else None,
        median_age=_ages(before, now) if before and now else None,
        appearance=appearance[0] if appearance else None,
        appearance_p=appearance[1] if appearance else None,
    )
