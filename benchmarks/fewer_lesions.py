"""HAM10000 with fewer training lesions of its rare classes."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from components.prepare_data.split import assign_by_hash, hash_fraction

TABLE = "HAM10000_metadata.csv"
LARGEST = "nv"


class Reduced(NamedTuple):
    """A set from which training lesions of the rare classes are taken.

    Attributes:
        table: image_id, lesion_id, dx and the other columns of all images that have a file.
        files: image id → its file.
        removed: whether each row is taken out; none of validation and test is.
        lesions: rare class → number of its training lesions that stay.
    """

    table: pd.DataFrame
    files: dict[str, Path]
    removed: pd.Series
    lesions: dict[str, int]


def reduce(source: Path, kept: float, seed: int) -> Reduced:
    """Choose the training lesions of each rare class that stay; those of a share also stay in a larger share.

    Args:
        source: HAM10000: `HAM10000_metadata.csv`, and images named by id in any folder below.
        kept: share of the lesions of each class that stay, above 0 and at most 1, rounded to whole lesions, at least 1.
        seed: seed of the choice, and of the random split, which the remaining lesions keep.
    """
    table = pd.read_csv(source / TABLE)
    files = {path.stem: path.resolve() for path in source.rglob("*.jpg")}
    table = table[table["image_id"].isin(list(files))]
    split = assign_by_hash(table.assign(group_id=table["lesion_id"]), seed)
    is_rare = (split == "train") & (table["dx"] != LARGEST)
    staying: dict[str, list[str]] = {}
    for dx, lesions in table.loc[is_rare, "lesion_id"].groupby(table["dx"]):
        ordered = sorted(lesions.unique(), key=lambda lesion: hash_fraction(seed, "kept", lesion))
        staying[str(dx)] = ordered[: max(1, round(kept * len(ordered)))]
    stays = table["lesion_id"].isin([lesion for of_class in staying.values() for lesion in of_class])
    return Reduced(table, files, is_rare & ~stays, {dx: len(of_class) for dx, of_class in staying.items()})


def link(file: Path, folder: Path, name: str) -> None:
    """Make a hard link to an image in a folder, unless it exists: a call that was killed may have made it."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (path := folder / f"{name}.jpg").exists():
        path.hardlink_to(file)
