"""What stands on two sides and must not: a lesion, identical pixels, or one picture in two files."""

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
    """Two images that belong on one side.

    Attributes:
        first, second: their rows.
        why: what they have in common, for a sentence.
    """

    first: int
    second: int
    why: str


LESION, PIXELS, PICTURE = "one lesion", "identical pixels", "the same picture again"


def _equal(values: pd.Series, lesions: pd.Series, why: str) -> list[Pair]:
    """The first row of each value that several lesions share, with each other row of it; with `LESION`, the first row
    of each lesion with each of its other rows."""
    rows = pd.DataFrame({"value": values, "lesion": lesions, "row": np.arange(len(values))})
    first = rows.groupby("value")[["lesion", "row"]].transform("first")
    other = rows["row"] != first["row"]
    if why != LESION:
        other &= rows["lesion"] != first["lesion"]
    return [Pair(int(a), int(b), why) for a, b in zip(first["row"][other], rows["row"][other], strict=True)]


def pairs(rows: pd.DataFrame, thumbnails: np.ndarray, held_out: np.ndarray) -> list[Pair]:
    """The pairs that belong on one side, with at least one image of each that is held out.

    Args:
        rows: lesion_id and pixel_sha256 and perceptual_hash of N images; the index counts from 0.
        thumbnails: (N, 32, 32) uint8.
        held_out: (N,) bool.
    """
    lesions = rows["lesion_id"]
    found = _equal(lesions, lesions, LESION) + _equal(rows["pixel_sha256"], lesions, PIXELS)
    known = {frozenset(pair[:2]) for pair in found}
    asked = np.flatnonzero(held_out)
    near = near_duplicates.pairs(thumbnails[asked], rows["perceptual_hash"].tolist(), thumbnails)
    names = lesions.to_numpy()
    for first, second in {(min(a, b), max(a, b)): None for a, b in zip(asked[near[:, 0]], near[:, 1], strict=True)}:
        if names[first] != names[second] and frozenset((first, second)) not in known:
            found.append(Pair(int(first), int(second), PICTURE))
    return found


def _listed(rows: pd.DataFrame, others: pd.DataFrame, culprits: Sequence[Pair]) -> list[str]:
    """`A (train, lesion L) and B (test, lesion M): identical pixels`, for each pair."""

    def named(row: pd.Series) -> str:
        return f"{printable(row['image_id'][:80])} ({row['split']}, lesion {printable(row['lesion_id'][:80])})"

    return [f"{named(rows.iloc[a])} and {named(others.iloc[b])}: {why}" for a, b, why in culprits]


def _sentence(rows: pd.DataFrame, others: pd.DataFrame, culprits: Sequence[Pair], fault: str, mend: str) -> UserError:
    """The error; says more of the culprits than a sentence can."""
    listed = _listed(rows, others, culprits[:LISTED])
    for line in listed:
        log_line("prepare_data", line)
    if len(culprits) > LISTED:
        log_line("prepare_data", f"and {len(culprits) - LISTED:,} more")
    more = f"; and {len(culprits) - 3:,} more" if len(culprits) > 3 else ""
    return UserError(f"{fault} ({'; '.join(listed[:3])}{more}); {mend}")


def _count(culprits: Sequence[Pair]) -> str:
    return f"{len(culprits):,} pair{'s' * (len(culprits) > 1)} of images"


def mend(rows: pd.DataFrame, thumbnails: np.ndarray, policy: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Sees that the split is clean, or makes it so.

    Args:
        rows: image_id, lesion_id, split, pixel_sha256 and perceptual_hash of N images; the index counts from 0.
        thumbnails: (N, 32, 32) uint8.
        policy: `refuse`, or `move_to_train`: all images of the lesions on two sides go to the training side.

    Returns:
        The rows, and those of them that were moved, as they stood before.

    Raises:
        UserError: with `refuse`, a pair that belongs on one side stands on two.
    """
    split = rows["split"].copy()
    together = pairs(rows, thumbnails, (split != "train").to_numpy())

    def on_two_sides() -> list[Pair]:
        sides = split.to_numpy()
        return [pair for pair in together if sides[pair.first] != sides[pair.second]]

    culprits = on_two_sides()
    if culprits and policy == "refuse":
        raise _sentence(
            rows,
            rows,
            culprits,
            f"the split puts {_count(culprits)} that belong together on two sides",
            "give what is one lesion one lesion_id, give another split, or set duplicates=move_to_train.",
        )
    for line in _listed(rows, rows, culprits[:LISTED]):
        log_line("prepare_data", f"moved to train: {line}")
    # What a moved image belongs together with has to move, too, and so on.
    while culprits:
        of_culprits = rows["lesion_id"].isin({rows["lesion_id"].iloc[row] for pair in culprits for row in pair[:2]})
        split[of_culprits] = "train"
        culprits = on_two_sides()
    return rows.assign(split=split), rows[split != rows["split"]]


def outside(
    rows: pd.DataFrame,
    thumbnails: np.ndarray,
    known: pd.DataFrame,
    known_thumbnails: np.ndarray | None,
    policy: str,
) -> pd.Series:
    """Sees that no image of an external set is one of the run's, in any of its splits.

    Args:
        rows: image_id, lesion_id, split, pixel_sha256 and perceptual_hash of the external images.
        thumbnails: (N, 32, 32) uint8.
        known: the same of the run's images.
        known_thumbnails: (M, 32, 32) uint8; without them the hashes alone decide.
        policy: `refuse`, or `move_to_train`: the lesions of the culprits, which stay where they are in the run, are
            left out of the external set.

    Returns:
        (N,) bool, which images are outside.

    Raises:
        UserError: with `refuse`, an image, its lesion or its picture is the run's.
    """
    culprits = []
    for column, why in (("lesion_id", LESION), ("pixel_sha256", PIXELS)):
        first = {value: row for row, value in reversed(list(enumerate(known[column])))}
        culprits += [Pair(row, first[value], why) for row, value in enumerate(rows[column]) if value in first]
    accused = {pair.first for pair in culprits}
    near = near_duplicates.pairs(thumbnails, known["perceptual_hash"].tolist(), known_thumbnails)
    culprits += [Pair(int(a), int(b), PICTURE) for a, b in near if int(a) not in accused]
    if culprits and policy == "refuse":
        raise _sentence(
            rows,
            known,
            culprits,
            f"{_count(culprits)} of the external set belong to images of this run",
            "leave them out, give other lesions other ids, or set duplicates=move_to_train to have them left out.",
        )
    for line in _listed(rows, known, culprits[:LISTED]):
        log_line("prepare_data", f"left out of the external set: {line}")
    return ~rows["lesion_id"].isin({rows["lesion_id"].iloc[pair.first] for pair in culprits})
