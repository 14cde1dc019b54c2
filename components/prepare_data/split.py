"""Assign lesions to train, validation and test; all photographs of a lesion are in one split."""

import re
from pathlib import Path

import pandas as pd

from components.prepare_data import metadata
from components.shared import storage
from components.shared.errors import UserError
from components.shared.seeds import derive_seed
from components.shared.stores.addresses import is_address

SHARES = {"train": 0.70, "validation": 0.15, "test": 0.15}
MAX_FOLDS = 20
UNUSED = "none"
_NAMES = {name: name for name in (*SHARES, UNUSED)} | {"val": "validation", "valid": "validation"}
FOLD = re.compile(r"\s*(\d{1,6})\s*/\s*(\d{1,6})\s*")


def assign(table: pd.DataFrame, how: str, seed: int, scratch: Path) -> pd.Series:
    """Assign each image to a split.

    Args:
        table: image_id, lesion_id and dx of each image.
        how: `random`, `k/n`, or a CSV file, also in object storage.
        seed: seed of the hash.
        scratch: a folder for downloads.

    Returns:
        (N,) strings with the table's index: `train`, `validation` or `test`; from a file also `none` for an image that
        it excludes, and null for one that it does not name.

    Raises:
        UserError: a class has too few lesions, or the file cannot be used.
    """
    if how.strip() == "random":
        return assign_by_hash(table, seed)
    if fold := FOLD.fullmatch(how):
        return assign_fold(table, int(fold[1]), int(fold[2]), seed)
    path = Path(how)
    if is_address(how):
        path = scratch / "split.csv"
        storage.download_file(how, path)
    elif "://" in how or not path.is_file():
        raise UserError(
            f"data_split is {how!r}",
            "choose random, a fold such as 1/5, or an existing CSV file with the columns image_id and split",
            "split.unknown",
            value=how,
        )
    return table["image_id"].map(read_file(path)).astype(object)


def hash_fraction(seed: int, *names: str) -> float:
    """Return a number in [0, 1) that depends on the seed and the names alone."""
    return derive_seed(seed, *names) / 2**31


def _too_few(dx: object, lesions: int, purpose: str) -> UserError:
    return UserError(
        f"the class {dx} has {lesions} lesion{'s' * (lesions > 1)}, too few to {purpose}",
        "add lesions or remove the class",
        "split.too_few_lesions",
        dx=str(dx),
        lesions=lesions,
    )


def _fill(assigned: dict[str, str], fractions: dict[str, float], split: str) -> None:
    """Ensure that a class has a lesion in a split: the training lesion with the smallest hash moves there.

    Args:
        assigned: lesion → split, of one class; changed.
        fractions: lesion → hash.
        split: `test` or `validation`.
    """
    if split not in assigned.values():
        assigned[min((lesion for lesion in assigned if assigned[lesion] == "train"), key=fractions.__getitem__)] = split


def assign_by_hash(table: pd.DataFrame, seed: int) -> pd.Series:
    """Assign each lesion by a seeded hash of its id: about 70 % train, 15 % validation, 15 % test.

    The split is **stable under growth**: a lesion keeps its split when lesions are added or removed, in its class or in
    others. There is one exception. A class without any lesion below the hash threshold of test (or validation) gets the
    training lesion with the smallest hash there; once another lesion of the class is below the threshold, that lesion
    returns to train. A class of n lesions is in this state with a probability of 0.85ⁿ (4 % for 20 lesions).

    Args:
        table: lesion_id and dx of each image.
        seed: seed of the hash.

    Returns:
        (N,) strings, `train`, `validation` or `test`, with the table's index.

    Raises:
        UserError: a class has fewer than three lesions.
    """
    test, validation = SHARES["test"], SHARES["test"] + SHARES["validation"]
    split = pd.Series("train", index=table.index)
    for dx, rows in table.groupby("dx"):
        fractions = {lesion: hash_fraction(seed, "split", lesion) for lesion in sorted(rows["lesion_id"].unique())}
        if len(fractions) < len(SHARES):
            raise _too_few(dx, len(fractions), "train, validate and test on different ones")
        assigned = {
            lesion: "test" if value < test else "validation" if value < validation else "train"
            for lesion, value in fractions.items()
        }
        _assign_minimum(assigned, fractions)
        split.loc[rows.index] = rows["lesion_id"].map(assigned)
    return split


def _assign_minimum(assigned: dict[str, str], fractions: dict[str, float]) -> None:
    """Ensure that each split has a lesion of a class of three or more."""
    if "train" not in assigned.values():  # the larger of the others gives the lesion with the largest hash
        names = list(assigned.values())
        larger = max(("test", "validation"), key=names.count)
        assigned[max((lesion for lesion in assigned if assigned[lesion] == larger), key=fractions.__getitem__)] = (
            "train"
        )
    for name in ("test", "validation"):
        if name not in assigned.values() and list(assigned.values()).count("train") < 2:
            other = "validation" if name == "test" else "test"
            donors = [lesion for lesion in assigned if assigned[lesion] == other]
            assigned[min(donors, key=fractions.__getitem__)] = name
        _fill(assigned, fractions, name)


def assign_fold(table: pd.DataFrame, k: int, n: int, seed: int) -> pd.Series:
    """Assign fold k of n to test: over k = 1 … n each lesion is tested once. 15 % of the lesions validate.

    A seeded hash of the lesion's id decides its fold, so folds are as stable under growth as `assign_by_hash`.

    Args:
        table: lesion_id and dx of each image.
        k: the fold, from 1.
        n: number of folds, 2 to 20.
        seed: seed of the hash; the same for all folds.

    Returns:
        (N,) strings, `train`, `validation` or `test`, with the table's index.

    Raises:
        UserError: the fold does not exist, or a class has too few lesions.
    """
    if not 2 <= n <= MAX_FOLDS or not 1 <= k <= n:
        raise UserError(
            f"data_split is {k}/{n}",
            f"choose a fold k/n with n from 2 to {MAX_FOLDS} and k from 1 to n",
            "split.unknown_fold",
            k=k,
            n=n,
        )
    split = pd.Series("train", index=table.index)
    for dx, rows in table.groupby("dx"):
        lesions = sorted(rows["lesion_id"].unique())
        folds = _assign_folds(lesions, n, seed)
        rest = [lesion for lesion in lesions if folds[lesion] != k]
        sizes = [list(folds.values()).count(number) for number in range(1, n + 1)]
        if not min(sizes) or len(lesions) - max(sizes) < 2:
            raise _too_few(dx, len(lesions), f"test on another one in each of {n} folds, and train and validate")
        fractions = {lesion: hash_fraction(seed, "validation", f"{k}/{n}", lesion) for lesion in rest}
        limit = SHARES["validation"] * n / (n - 1)
        assigned = {lesion: "validation" if value < limit else "train" for lesion, value in fractions.items()}
        if "train" not in assigned.values():
            assigned[max(rest, key=fractions.__getitem__)] = "train"
        _fill(assigned, fractions, "validation")
        assigned |= {lesion: "test" for lesion in lesions if folds[lesion] == k}
        split.loc[rows.index] = rows["lesion_id"].map(assigned)
    return split


def _assign_folds(lesions: list[str], n: int, seed: int) -> dict[str, int]:
    """Return lesion → fold, by hash.

    If a fold is empty, or another leaves fewer than two lesions for training and validation, the largest passes its
    lesion with the smallest hash to the smallest fold.
    """
    fractions = {lesion: hash_fraction(seed, "folds", lesion) for lesion in lesions}
    folds = {lesion: 1 + int(value * n) for lesion, value in fractions.items()}
    while True:
        sizes = {number: list(folds.values()).count(number) for number in range(1, n + 1)}
        smallest, largest = min(sizes, key=sizes.__getitem__), max(sizes, key=sizes.__getitem__)
        if (sizes[smallest] and sizes[largest] <= len(lesions) - 2) or sizes[largest] - sizes[smallest] < 2:
            return folds
        folds[min((it for it in lesions if folds[it] == largest), key=fractions.__getitem__)] = smallest


def read_file(path: Path) -> dict[str, str]:
    """Read a given split, such as the `splits.csv` of an earlier run, or DermaMNIST-C's.

    Args:
        path: a CSV with the columns image_id and split; other columns are ignored. A split is train, validation (or
            val, valid), test, or none for an image that is not used.

    Returns:
        Image id → `train`, `validation`, `test` or `none`.

    Raises:
        UserError: the file cannot be used.
    """
    header, rows, lines = metadata.csv_rows(path)
    for column in ("image_id", "split"):
        if header.count(column) != 1:
            raise UserError(
                f"{path.name} does not have the column {column} exactly once",
                "add the columns image_id and split, separated by commas",
                "split.missing_column",
                column=column,
            )
    name_at, split_at = header.index("image_id"), header.index("split")
    splits: dict[str, str] = {}
    for row, line in zip(rows, lines, strict=True):
        split = _NAMES.get(row[split_at].lower())
        if split is None:
            raise UserError(
                f"{path.name} has the split {row[split_at][:40]!r} in line {line}",
                "use train, validation, test or none",
                "split.unknown_name",
                line=line,
                value=row[split_at][:40],
            )
        if row[name_at] in splits:
            raise UserError(
                f"{path.name} repeats {row[name_at][:80]} in line {line}",
                "keep one row per image",
                "split.repeated_image",
                line=line,
                image=row[name_at][:80],
            )
        splits[row[name_at]] = split
    return splits
