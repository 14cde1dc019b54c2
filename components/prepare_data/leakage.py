"""Detect leakage between splits: a lesion, identical pixels or a near-duplicate in two of them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from components.prepare_data import near_duplicates
from components.prepare_data.texts import first_rows
from components.shared.errors import UserError, printable
from components.shared.log import log_line

LISTED = 20
MIN_SYSTEMATIC_PAIRS, MAX_NEAR_RATE = 5, 0.01
"""With this many near-duplicates, and this share of the held-out images in one, copies are no exception.

Those that are found are a sample then: others were changed too much. HAM10000 has 1 pair among 3,000 held-out images.
"""


class Pair(NamedTuple):
    """Two images that must be in the same split.

    Attributes:
        first, second: their rows.
        why: what they have in common, for messages.
    """

    first: int
    second: int
    why: str


GROUP, PIXELS, NEAR = "same lesion or patient", "identical pixels", "near-duplicate"


class Pairs(NamedTuple):
    """Many pairs of images that must be in the same split.

    Attributes:
        first, second: (P,) int64 rows.
        near: number of near-duplicates, which are the last.
        groups: number of pairs of one group, which are the first.
    """

    first: np.ndarray
    second: np.ndarray
    groups: int
    near: int

    def list(self, chosen: np.ndarray) -> "list[Pair]":
        """Return the pairs with these positions."""
        last = len(self.first) - self.near
        why = [GROUP if at < self.groups else NEAR if at >= last else PIXELS for at in chosen.tolist()]
        return [Pair(int(self.first[at]), int(self.second[at]), of) for at, of in zip(chosen, why, strict=True)]


def _pair_equal(values: pd.Series, groups: pd.Series | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Pair the first row of each value with the other rows of the same value; of other groups only, if given."""
    first = first_rows(values)
    other = first != np.arange(len(first))
    if groups is not None:
        of_row = pd.factorize(groups)[0]
        other &= of_row != of_row[first]
    return first[other], np.flatnonzero(other)


def pairs(rows: pd.DataFrame, thumbnails: np.ndarray, held_out: np.ndarray) -> Pairs:
    """Return the pairs that must be in the same split.

    Images with identical pixels are paired with the first of them, and only that one is compared with others: all pairs
    of thousands of copies would take minutes and gigabytes. Only images that are held out, or whose pixels are, are
    compared with others.

    Args:
        rows: group_id, pixel_sha256, perceptual_hash and file of N images; the index is 0 … N − 1.
        thumbnails: (F, 32, 32) uint8, of each file.
        held_out: (N,) bool.
    """
    of_group, of_pixels = _pair_equal(rows["group_id"]), _pair_equal(rows["pixel_sha256"], rows["group_id"])
    groups = pd.factorize(rows["group_id"])[0]
    images = np.flatnonzero(~rows["pixel_sha256"].duplicated())
    of_image = pd.factorize(rows["pixel_sha256"])[0]
    queries = images[pd.Series(held_out).groupby(of_image).transform("any").to_numpy()[images]]
    file = rows["file"].to_numpy()
    near = near_duplicates.pairs(
        thumbnails,
        rows["perceptual_hash"].iloc[images],
        thumbnails,
        groups[queries],
        groups[images],
        file[queries],
        file[images],
    )
    # Two held-out images find each other.
    both = np.sort(np.stack([queries[near[:, 0]], images[near[:, 1]]], axis=1), axis=1)
    both = both[np.sort(np.unique(both, axis=0, return_index=True)[1])]
    return Pairs(
        np.concatenate([of_group[0], of_pixels[0], both[:, 0]]),
        np.concatenate([of_group[1], of_pixels[1], both[:, 1]]),
        groups=len(of_group[0]),
        near=len(both),
    )


def _describe_pairs(rows: pd.DataFrame, others: pd.DataFrame, offending: Sequence[Pair]) -> list[str]:
    """Describe each pair, as in `A (train, lesion L) and B (test, lesion M): identical pixels`."""

    def describe(row: pd.Series) -> str:
        lesion = f", lesion {printable(row['lesion_id'][:80])}" if row["lesion_id"] != row["image_id"] else ""
        return f"{printable(row['image_id'][:80])} ({row['split']}{lesion})"

    return [f"{describe(rows.iloc[a])} and {describe(others.iloc[b])}: {why}" for a, b, why in offending]


def _leakage_error(
    rows: pd.DataFrame, others: pd.DataFrame, offending: Sequence[Pair], fault: str, hint: str
) -> UserError:
    """Return the error; log the offending pairs, since the message can list only a few."""
    listed = _describe_pairs(rows, others, offending[:LISTED])
    for line in listed:
        log_line("prepare_data", line)
    if len(offending) > LISTED:
        log_line("prepare_data", f"and {len(offending) - LISTED:,} more")
    more = f"; and {len(offending) - 3:,} more" if len(offending) > 3 else ""
    return UserError(f"{fault} ({'; '.join(listed[:3])}{more})", hint, "leakage.found", listed=listed[:100])


def _count_pairs(offending: Sequence[Pair]) -> str:
    return f"{len(offending):,} pair{'s' * (len(offending) > 1)} of images"


def refuse_divided_groups(rows: pd.DataFrame, policy: str) -> None:
    """Refuse groups in two splits, before any image is opened; see `resolve` for the policy.

    Args:
        rows: image_id, lesion_id, group_id and split of N images.

    Raises:
        UserError: `leakage.found`.
    """
    first, second = _pair_equal(rows["group_id"])
    splits = pd.factorize(rows["split"])[0]
    offending = np.flatnonzero(splits[first] != splits[second])
    if len(offending) and policy == "refuse":
        raise _divided_error(rows, Pairs(first, second, len(first), 0).list(offending))


def _divided_error(rows: pd.DataFrame, offending: Sequence[Pair]) -> UserError:
    return _leakage_error(
        rows,
        rows,
        offending,
        f"{_count_pairs(offending)} that must stay together are in different splits",
        "give images of one lesion the same lesion_id, use another split, or set data_duplicates=move_to_train",
    )


def resolve(rows: pd.DataFrame, thumbnails: np.ndarray, policy: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Refuse leakage between splits, or move the lesions concerned to train.

    Args:
        rows: image_id, lesion_id, group_id, split, pixel_sha256, perceptual_hash and file of N images; the index is
            0 … N − 1.
        thumbnails: (F, 32, 32) uint8, of each file.
        policy: `refuse`, or `move_to_train`: all images of groups in two splits move to train.

    Returns:
        All rows with their new split, and the moved rows with their former split.

    Raises:
        UserError: with `refuse`, a pair that must stay together is in two splits; with both, near-duplicates are so
            frequent that others must have been missed.
    """
    split = rows["split"].copy()
    held_out = (split != "train").to_numpy()
    together = pairs(rows, thumbnails, held_out)

    def find_offending() -> np.ndarray:
        assigned = pd.factorize(split)[0]
        return np.flatnonzero(assigned[together.first] != assigned[together.second])

    offending = find_offending()
    if len(offending):
        _refuse_systematic(rows, together, held_out)
    if len(offending) and policy == "refuse":
        raise _divided_error(rows, together.list(offending))
    for line in _describe_pairs(rows, rows, together.list(offending[:LISTED])):
        log_line("prepare_data", f"moved to train: {line}")
    # Everything that must stay with a moved image moves as well, and so on.
    groups = rows["group_id"].to_numpy()
    while len(offending):
        of_offending = set(groups[together.first[offending]]) | set(groups[together.second[offending]])
        split[rows["group_id"].isin(of_offending)] = "train"
        offending = find_offending()
    return rows.assign(split=split), rows[split != rows["split"]]


def _refuse_systematic(rows: pd.DataFrame, together: Pairs, held_out: np.ndarray) -> None:
    """Raise if the share of held-out images with a near-duplicate shows that the data contains copies in general.

    Moving the pairs that were found would leave those that were not in two splits.
    """
    near = together.list(np.arange(len(together.first) - together.near, len(together.first)))
    copied = {row for pair in near for row in pair[:2] if held_out[row]}
    if len(near) < MIN_SYSTEMATIC_PAIRS or len(copied) <= MAX_NEAR_RATE * held_out.sum():
        return
    raise _leakage_error(
        rows,
        rows,
        near,
        f"{len(copied) / held_out.sum():.0%} of the held-out images have a near-duplicate under another id, so the "
        "data contains changed copies, and more of them than were found",
        "remove the copies, or give a copy and its original the same lesion_id; moving the pairs that were found "
        "leaves the others",
    )


def keep_one_lesion(rows: pd.DataFrame) -> pd.Series:
    """Detect held-out images under several lesion ids, which would count several times in all statistics.

    Args:
        rows: lesion_id, split and pixel_sha256 of N images.

    Returns:
        (N,) bool; False for an image that is not in train, with the same pixels as one of another lesion above it.
    """
    splits, names = pd.factorize(rows["split"])
    first = first_rows(pd.factorize(rows["pixel_sha256"])[0] * len(names) + splits)
    lesions = pd.factorize(rows["lesion_id"])[0]
    return (rows["split"] == "train") | (lesions == lesions[first])


def external_only(
    rows: pd.DataFrame,
    thumbnails: np.ndarray,
    known: pd.DataFrame,
    known_thumbnails: np.ndarray | None,
    policy: str,
    compare_ids: bool = True,
) -> pd.Series:
    """Detect images of an external set that are also in the run, in any of its splits.

    Args:
        rows: image_id, lesion_id, split, pixel_sha256, perceptual_hash and file of the external images.
        thumbnails: (F, 32, 32) uint8, of each file.
        known: the same columns of the run's images; without file if there are no thumbnails.
        known_thumbnails: (G, 32, 32) uint8; without them, the hashes alone decide.
        policy: `refuse`, or `move_to_train`: the lesions and patients of the offending images are excluded from the
            external set; the run's splits do not change.
        compare_ids: whether equal lesion ids mean the same lesion; names of files, which stand in for missing ids,
            repeat in other data.

    Returns:
        (N,) bool; True for an image that is not in the run.

    Raises:
        UserError: with `refuse`, an image, its lesion or patient, or a near-duplicate of it is in the run.
    """
    exact: dict[int, Pair] = {}
    lesions, rows = _given_lesions(rows), rows.assign(given_lesion=_given_lesions(rows))
    known = known.assign(given_lesion=_given_lesions(known))
    columns = [("given_lesion", "same lesion")] * compare_ids + [("pixel_sha256", PIXELS)]
    if compare_ids and "patient_id" in known:
        columns.append(("patient_id", "same patient"))
    for column, why in columns:
        first = {value: row for row, value in reversed(list(enumerate(known[column]))) if isinstance(value, str)}
        for row, value in enumerate(rows[column]):
            if value in first:
                exact.setdefault(row, Pair(row, first[value], why))
    images = np.flatnonzero(~known["pixel_sha256"].duplicated())
    near = near_duplicates.pairs(
        thumbnails,
        known["perceptual_hash"].iloc[images],
        known_thumbnails,
        rows=rows["file"].to_numpy(),
        known_rows=None if known_thumbnails is None else known["file"].to_numpy()[images],
    )
    offending = [*exact.values(), *(Pair(int(a), int(images[b]), NEAR) for a, b in near if int(a) not in exact)]
    if offending and policy == "refuse":
        raise _leakage_error(
            rows,
            known,
            offending,
            f"{_count_pairs(offending)} of the external set and this run show the same lesion or patient",
            "remove them, give different lesions and patients different ids, or exclude them: "
            "data_duplicates=move_to_train, or duplicates=move_to_train in make evaluate",
        )
    for line in _describe_pairs(rows, known, offending[:LISTED]):
        log_line("prepare_data", f"excluded from the external set: {line}")
    excluded = lesions.isin({lesions.iloc[pair.first] for pair in offending})
    if "patient_id" in rows:  # the patient of a copy is one of the run's, even if the ids differ
        patients = rows["patient_id"]
        excluded |= patients.notna() & patients.isin(patients[excluded])
    return ~excluded


def _given_lesions(rows: pd.DataFrame) -> pd.Series:
    """Return the lesion ids as given: of a lesion with several classes, without the class that was added."""
    ids = [lesion.removesuffix(f" {dx}") for lesion, dx in zip(rows["lesion_id"], rows["dx"], strict=True)]
    return pd.Series(ids, rows.index, dtype=object)
