"""Detect leakage between splits: a lesion, identical pixels or a near-duplicate in two of them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from components.prepare_data import near_duplicates
from components.shared.errors import UserError, printable
from components.shared.log import log_line

POLICIES = ("refuse", "move_to_train")
LISTED = 20


class Pair(NamedTuple):
    """Two images that must be in the same split.

    Attributes:
        first, second: their rows.
        why: what they have in common, for messages.
    """

    first: int
    second: int
    why: str


LESION, PIXELS, NEAR = "same lesion", "identical pixels", "near-duplicate"


def _pair_equal(values: pd.Series, lesions: pd.Series, why: str) -> list[Pair]:
    """Pair the first row of each value with the other rows of the same value.

    Only rows of different lesions are paired, unless `why` is `LESION`.
    """
    rows = pd.DataFrame({"value": values, "lesion": lesions, "row": np.arange(len(values))})
    first = rows.groupby("value")[["lesion", "row"]].transform("first")
    other = rows["row"] != first["row"]
    if why != LESION:
        other &= rows["lesion"] != first["lesion"]
    return [Pair(int(a), int(b), why) for a, b in zip(first["row"][other], rows["row"][other], strict=True)]


def pairs(rows: pd.DataFrame, thumbnails: np.ndarray, held_out: np.ndarray) -> list[Pair]:
    """Return the pairs that must be in the same split.

    Images with identical pixels are paired with the first of them, and only that one is compared with others: all pairs
    of thousands of copies would take minutes and gigabytes. Only images that are held out, or whose pixels are, are
    compared with others.

    Args:
        rows: lesion_id, pixel_sha256 and perceptual_hash of N images; the index is 0 … N − 1.
        thumbnails: (N, 32, 32) uint8.
        held_out: (N,) bool.
    """
    lesions = rows["lesion_id"]
    together = _pair_equal(lesions, lesions, LESION) + _pair_equal(rows["pixel_sha256"], lesions, PIXELS)
    known = {frozenset(pair[:2]) for pair in together}
    groups = pd.factorize(lesions)[0]
    images = np.flatnonzero(~rows["pixel_sha256"].duplicated())
    queries = images[pd.Series(held_out).groupby(rows["pixel_sha256"].to_numpy()).transform("any").to_numpy()[images]]
    near = near_duplicates.pairs(
        thumbnails[queries],
        rows["perceptual_hash"].iloc[images].tolist(),
        thumbnails[images],
        groups[queries],
        groups[images],
    )
    found = zip(queries[near[:, 0]].tolist(), images[near[:, 1]].tolist(), strict=True)
    for first, second in {(min(pair), max(pair)): None for pair in found}:
        if frozenset((first, second)) not in known:
            together.append(Pair(first, second, NEAR))
    return together


def _describe_pairs(rows: pd.DataFrame, others: pd.DataFrame, offending: Sequence[Pair]) -> list[str]:
    """Describe each pair, as in `A (train, lesion L) and B (test, lesion M): identical pixels`."""

    def describe(row: pd.Series) -> str:
        return f"{printable(row['image_id'][:80])} ({row['split']}, lesion {printable(row['lesion_id'][:80])})"

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


def resolve(rows: pd.DataFrame, thumbnails: np.ndarray, policy: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Refuse leakage between splits, or move the lesions concerned to train.

    Args:
        rows: image_id, lesion_id, split, pixel_sha256 and perceptual_hash of N images; the index is 0 … N − 1.
        thumbnails: (N, 32, 32) uint8.
        policy: `refuse`, or `move_to_train`: all images of lesions in two splits move to train.

    Returns:
        All rows with their new split, and the moved rows with their former split.

    Raises:
        UserError: with `refuse`, a pair that must stay together is in two splits.
    """
    split = rows["split"].copy()
    together = pairs(rows, thumbnails, (split != "train").to_numpy())

    def find_offending() -> list[Pair]:
        assigned = split.to_numpy()
        return [pair for pair in together if assigned[pair.first] != assigned[pair.second]]

    offending = find_offending()
    if offending and policy == "refuse":
        raise _leakage_error(
            rows,
            rows,
            offending,
            f"{_count_pairs(offending)} that must stay together are in different splits",
            "give images of one lesion the same lesion_id, use another split, or set data_duplicates=move_to_train",
        )
    for line in _describe_pairs(rows, rows, offending[:LISTED]):
        log_line("prepare_data", f"moved to train: {line}")
    # Everything that must stay with a moved image moves as well, and so on.
    while offending:
        of_offending = rows["lesion_id"].isin({rows["lesion_id"].iloc[row] for pair in offending for row in pair[:2]})
        split[of_offending] = "train"
        offending = find_offending()
    return rows.assign(split=split), rows[split != rows["split"]]


def keep_one_lesion(rows: pd.DataFrame) -> pd.Series:
    """Detect held-out images under several lesion ids, which would count several times in all statistics.

    Args:
        rows: lesion_id, split and pixel_sha256 of N images.

    Returns:
        (N,) bool; False for an image that is not in train, with the same pixels as one of another lesion above it.
    """
    first = rows.groupby(["split", "pixel_sha256"])["lesion_id"].transform("first")
    return (rows["split"] == "train") | (rows["lesion_id"] == first)


def external_only(
    rows: pd.DataFrame,
    thumbnails: np.ndarray,
    known: pd.DataFrame,
    known_thumbnails: np.ndarray | None,
    policy: str,
) -> pd.Series:
    """Detect images of an external set that are also in the run, in any of its splits.

    Args:
        rows: image_id, lesion_id, split, pixel_sha256 and perceptual_hash of the external images.
        thumbnails: (N, 32, 32) uint8.
        known: the same columns of the run's images.
        known_thumbnails: (M, 32, 32) uint8; without them, the hashes alone decide.
        policy: `refuse`, or `move_to_train`: the lesions of the offending images are excluded from the external set;
            the run's splits do not change.

    Returns:
        (N,) bool; True for an image that is not in the run.

    Raises:
        UserError: with `refuse`, an image, its lesion or a near-duplicate of it is in the run.
    """
    offending = []
    for column, why in (("lesion_id", LESION), ("pixel_sha256", PIXELS)):
        first = {value: row for row, value in reversed(list(enumerate(known[column])))}
        offending += [Pair(row, first[value], why) for row, value in enumerate(rows[column]) if value in first]
    exact = {pair.first for pair in offending}
    images = np.flatnonzero(~known["pixel_sha256"].duplicated())
    near = near_duplicates.pairs(
        thumbnails,
        known["perceptual_hash"].iloc[images].tolist(),
        None if known_thumbnails is None else known_thumbnails[images],
    )
    offending += [Pair(int(a), int(images[b]), NEAR) for a, b in near if int(a) not in exact]
    if offending and policy == "refuse":
        raise _leakage_error(
            rows,
            known,
            offending,
            f"{_count_pairs(offending)} of the external set and this run show the same lesion",
            "remove them, give different lesions different ids, or set data_duplicates=move_to_train to exclude them",
        )
    for line in _describe_pairs(rows, known, offending[:LISTED]):
        log_line("prepare_data", f"excluded from the external set: {line}")
    return ~rows["lesion_id"].isin({rows["lesion_id"].iloc[pair.first] for pair in offending})
