"""The split: by lesion, so that no photograph of a test lesion is ever trained on, and within each class."""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from components.prepare_data import metadata
from components.shared import storage
from components.shared.errors import UserError
from components.shared.seeds import derive_seed

SHARES = {"train": 0.70, "validation": 0.15, "test": 0.15}
MAX_FOLDS = 20
UNUSED = "none"
_NAMES = {name: name for name in (*SHARES, UNUSED)} | {"val": "validation", "valid": "validation"}
FOLD = re.compile(r"\s*(\d{1,6})\s*/\s*(\d{1,6})\s*")


def assign(table: pd.DataFrame, how: str, seed: int, scratch: Path) -> pd.Series:
    """Gives each image a split.

    Args:
        table: image_id, lesion_id and dx of each image.
        how: `random`; `k/n`; a CSV file, or one at `gs://…`.
        seed: of the shuffle.
        scratch: a folder for what has to be downloaded.

    Returns:
        (N,) strings with the table's index: `train`, `validation` or `test`; from a file also `none`, for an image that
        it leaves out, and null for one that it does not name.

    Raises:
        UserError: a class has too few lesions, or the file can't be used.
    """
    if how.strip() == "random":
        return at_random(table, seed)
    if fold := FOLD.fullmatch(how):
        return fold_of(table, int(fold[1]), int(fold[2]), seed)
    path = Path(how)
    if how.startswith("gs://"):
        path = scratch / "split.csv"
        storage.download_file(how, path)
    elif "://" in how or not path.is_file():
        raise UserError(
            f"split is {how!r}; write random, a fold such as 1/5, or a CSV file that exists, with the columns image_id "
            "and split."
        )
    return table["image_id"].map(read_file(path)).astype(object)


def _shuffled(rows: pd.DataFrame, *seed: str | int) -> np.ndarray:
    """A class's lesions in an order that depends on the seed, the class and these lesions alone: another class more or
    less moves none of them."""
    first, *names = seed
    lesions = np.sort(rows["lesion_id"].unique())
    return np.random.default_rng(derive_seed(int(first), *map(str, names))).permutation(lesions)


def _too_few(dx: object, lesions: int, what: str) -> UserError:
    return UserError(
        f"the class {dx} has {lesions} lesion{'s' * (lesions > 1)}, too few to {what}; add lesions or leave the class "
        "out."
    )


def at_random(table: pd.DataFrame, seed: int) -> pd.Series:
    """70 % of each class's lesions train, 15 % validate, 15 % test, at least one each.

    Args:
        table: lesion_id and dx of each image.
        seed: of the shuffle.

    Returns:
        (N,) strings, `train`, `validation` or `test`, with the table's index.

    Raises:
        UserError: a class has fewer than three lesions.
    """
    split = pd.Series("train", index=table.index)
    for dx, rows in table.groupby("dx"):
        lesions = _shuffled(rows, seed, "split", str(dx))
        if len(lesions) < len(SHARES):
            raise _too_few(dx, len(lesions), "train, validate and test on different ones")
        test = max(1, round(SHARES["test"] * len(lesions)))
        validation = max(1, round(SHARES["validation"] * len(lesions)))
        held_out = dict.fromkeys(lesions[:test], "test")
        held_out |= dict.fromkeys(lesions[test : test + validation], "validation")
        split.loc[rows.index] = rows["lesion_id"].map(held_out).fillna("train")
    return split


def fold_of(table: pd.DataFrame, k: int, n: int, seed: int) -> pd.Series:
    """Fold k of n is tested on: over k = 1 … n each lesion is, once. 15 % of each class's lesions, out of the other
    folds, validate, at least one.

    Args:
        table: lesion_id and dx of each image.
        k: the fold, from 1.
        n: the number of folds, 2 to 20.
        seed: of the shuffle; the same for all folds.

    Returns:
        (N,) strings, `train`, `validation` or `test`, with the table's index.

    Raises:
        UserError: no such fold, or a class has too few lesions.
    """
    if not 2 <= n <= MAX_FOLDS or not 1 <= k <= n:
        raise UserError(f"split is {k}/{n}; choose a fold k/n with n from 2 to {MAX_FOLDS} and k from 1 to n.")
    split = pd.Series("train", index=table.index)
    for dx, rows in table.groupby("dx"):
        lesions = _shuffled(rows, seed, "folds", str(dx))
        if len(lesions) < n or len(lesions) - -(-len(lesions) // n) < 2:
            raise _too_few(dx, len(lesions), f"test on another one in each of {n} folds, and train and validate")
        # Where the folds of a class can't have the same size, the larger ones differ from class to class.
        fold = (np.arange(len(lesions)) + derive_seed(seed, "first fold", str(dx))) % n + 1
        rest = np.random.default_rng(derive_seed(seed, "validation", str(dx), str(k), str(n))).permutation(
            lesions[fold != k]
        )
        validation = max(1, round(SHARES["validation"] * len(lesions)))
        held_out = dict.fromkeys(lesions[fold == k], "test") | dict.fromkeys(rest[:validation], "validation")
        split.loc[rows.index] = rows["lesion_id"].map(held_out).fillna("train")
    return split


def read_file(path: Path) -> dict[str, str]:
    """A given split, such as the `splits.csv` of an earlier run, or DermaMNIST-C's.

    Args:
        path: a CSV with the columns image_id and split; others are passed over. A split is train, validation (or val,
            valid), test, or none for an image that is not to be used.

    Returns:
        Image id → `train`, `validation`, `test` or `none`.

    Raises:
        UserError: the file can't be used.
    """
    header, rows, lines = metadata.csv_rows(path)
    for column in ("image_id", "split"):
        if header.count(column) != 1:
            raise UserError(f"{path.name} needs the columns image_id and split, each once; add them, comma-separated.")
    name_at, split_at = header.index("image_id"), header.index("split")
    found: dict[str, str] = {}
    for row, line in zip(rows, lines, strict=True):
        split = _NAMES.get(row[split_at].lower())
        if split is None:
            raise UserError(
                f"{path.name} has the split {row[split_at][:40]!r} in line {line}; write train, validation, test or "
                "none."
            )
        if row[name_at] in found:
            raise UserError(f"{path.name} names {row[name_at][:80]} again in line {line}; keep one row for each image.")
        found[row[name_at]] = split
    return found
