"""Assign groups of images, such as lesions, to train, validation and test; all images of a group are in one split."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import pandas as pd

from components.prepare_data.layouts.inventory import strip_suffixes
from components.prepare_data.layouts.splits import split_of
from components.prepare_data.layouts.tables import normalise, read_table
from components.prepare_data.texts import map_different
from components.shared import storage
from components.shared.errors import UserError, printable
from components.shared.parameters import FOLD, MAX_FOLDS
from components.shared.seeds import derive_seed
from components.shared.stores.addresses import is_address

SHARES = {"train": 0.70, "validation": 0.15, "test": 0.15}
MIN_GROUPS_OF_FOLDS = 4
"""Groups of a class with which two folds leave one for training and one for validation."""
UNUSED = "none"
SPLITS = pd.CategoricalDtype([*SHARES, UNUSED])
"""Splits of many images, in one byte each."""
ROUNDS = 10
"""Rounds in which groups of several classes are assigned again; more are not needed in practice."""
V = TypeVar("V")


def assign(table: pd.DataFrame, how: str, seed: int, scratch: Path, unit: str = "lesion") -> pd.Series:
    """Assign each image to a split.

    Args:
        table: image_id, group_id and dx of each image, and split, if the data states one.
        how: `random`, `k/n`, or a CSV file, also in object storage.
        seed: seed of the hash.
        scratch: a folder for downloads.
        unit: what a group usually is, for messages: lesion, patient or image.

    Returns:
        (N,) strings with the table's index: `train`, `validation` or `test`; from a file also `none` for an image that
        it excludes, and null for one that it does not name. `random` keeps the split that the data states.

    Raises:
        UserError: a class has too few groups, or the file cannot be used.
    """
    if how.strip() == "random":
        if "split" in table and table["split"].notna().all():
            return complete_given(table, seed, unit)
        return assign_by_hash(table, seed, unit)
    if fold := FOLD.fullmatch(how):
        return assign_fold(table, int(fold[1]), int(fold[2]), seed, unit)
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
    splits = read_file(path)
    splits = {strip_suffixes(name): split for name, split in splits.items()} | splits
    assigned = table["image_id"].map(splits).astype(object)
    if len(table) and splits and assigned.isna().all():
        name, first = how.rpartition("/")[2], printable(table["image_id"].iloc[0][:80])
        raise UserError(
            f"{name} lists none of the {len(table):,} images, such as {first}; it has ids such as "
            f"{printable(next(iter(splits))[:80])}",
            "use the image ids of the data in the file of data_split",
            "split.other_names",
            file=name,
            id=first,
            count=len(table),
        )
    return assigned


def hash_fraction(seed: int, *names: str) -> float:
    """Return a number in [0, 1) that depends on the seed and the names alone."""
    return derive_seed(seed, *names) / 2**31


def _too_few(dx: object, groups: int, purpose: str, unit: str) -> UserError:
    return UserError(
        f"the class {dx} has {groups} {unit}{'s' * (groups > 1)}, too few {purpose}",
        f"add {unit}s or remove the class",
        "split.too_few_lesions",
        dx=str(dx),
        lesions=groups,
    )


def _groups_by_class(table: pd.DataFrame) -> dict[str, list[str]]:
    """Return class → its groups, sorted; a group with images of several classes is listed for each."""
    return {str(dx): sorted(groups.unique()) for dx, groups in table["group_id"].groupby(table["dx"])}


def _fill(assigned: dict[str, str], fractions: dict[str, float], split: str) -> None:
    """Ensure that a class has a group in a split: the training group with the smallest hash moves there.

    Args:
        assigned: group → split, of one class; changed.
        fractions: group → hash.
        split: `test` or `validation`.
    """
    if split not in assigned.values():
        assigned[min((group for group in assigned if assigned[group] == "train"), key=fractions.__getitem__)] = split


def assign_by_hash(table: pd.DataFrame, seed: int, unit: str = "lesion") -> pd.Series:
    """Assign each group by a seeded hash of its id: about 70 % train, 15 % validation, 15 % test.

    The split is **stable under growth**: a group keeps its split when groups are added or removed, in its class or in
    others. There is one exception. A class without any group below the hash threshold of test (or validation) gets the
    training group with the smallest hash there; once another group of the class is below the threshold, that group
    returns to train. A class of n groups is in this state with a probability of 0.85ⁿ (4 % for 20 groups).

    Args:
        table: group_id and dx of each image.
        seed: seed of the hash.
        unit: what a group usually is, for messages.

    Returns:
        (N,) strings, `train`, `validation` or `test`, with the table's index.

    Raises:
        UserError: a class has fewer than three groups.
    """
    test, validation = SHARES["test"], SHARES["test"] + SHARES["validation"]
    by_class = _groups_by_class(table)
    for dx, groups in by_class.items():
        if len(groups) < len(SHARES):
            raise _too_few(dx, len(groups), f"for separate train, validation and test {unit}s", unit)
    fractions = {group: hash_fraction(seed, "split", group) for group in table["group_id"].unique()}
    assigned = {
        group: "test" if value < test else "validation" if value < validation else "train"
        for group, value in fractions.items()
    }
    _adjust(by_class, assigned, lambda of_class: _assign_minimum(of_class, fractions))
    _refuse_incomplete(by_class, assigned, tuple(SHARES))
    return map_different(table["group_id"], assigned.__getitem__)


def _adjust(by_class: Mapping[str, list[str]], assigned: dict[str, V], adjust: Callable[[dict[str, V]], None]) -> None:
    """Adjust the assignment of each class until nothing changes; a group of several classes needs several rounds."""
    for _ in range(ROUNDS):
        before = dict(assigned)
        for groups in by_class.values():
            of_class = {group: assigned[group] for group in groups}
            adjust(of_class)
            assigned |= of_class
        if assigned == before:
            return


def _unassigned(dx: str, splits: str) -> UserError:
    """Return the error for a class that lacks a split although it has enough groups: other classes share them."""
    return UserError(
        f"no images of the class {dx} could be assigned to {splits}, because its groups also have other classes",
        "use another random_seed, or a split file as data_split",
        "split.unassigned",
        dx=dx,
    )


def _refuse_incomplete(by_class: Mapping[str, list[str]], assigned: Mapping[str, str], splits: Sequence[str]) -> None:
    """Raise if a class has no group in one of the splits.

    Raises:
        UserError: `split.unassigned`.
    """
    for dx, groups in by_class.items():
        missing = [split for split in splits if split not in {assigned[group] for group in groups}]
        if missing:
            raise _unassigned(dx, " and ".join(missing))


def complete_given(table: pd.DataFrame, seed: int, unit: str) -> pd.Series:
    """Return the split that the data states; without a validation split, a part of the training images becomes it.

    Args:
        table: group_id, dx and split of each image.
        seed: seed of the hash by which groups move to validation.
        unit: what a group usually is, for messages.

    Raises:
        UserError: a class has fewer than two groups in train.
    """
    split = table["split"]
    if (split == "validation").any():
        return split
    train = table[split == "train"]
    by_class = _groups_by_class(train)
    for dx, groups in by_class.items():
        if len(groups) < 2:
            raise _too_few(dx, len(groups), f"for separate train and validation {unit}s", unit)
    fractions = {group: hash_fraction(seed, "validation", group) for group in train["group_id"].unique()}
    limit = SHARES["validation"] / (SHARES["validation"] + SHARES["train"])
    assigned = {group: "validation" if value < limit else "train" for group, value in fractions.items()}

    def complete(of_class: dict[str, str]) -> None:
        if "train" not in of_class.values():
            of_class[max(of_class, key=fractions.__getitem__)] = "train"
        _fill(of_class, fractions, "validation")

    _adjust(by_class, assigned, complete)
    _refuse_incomplete(by_class, assigned, ("train", "validation"))
    return split.where(split != "train", map_different(table["group_id"], assigned.get))


def _assign_minimum(assigned: dict[str, str], fractions: dict[str, float]) -> None:
    """Ensure that each split has a group of a class of three or more."""
    if "train" not in assigned.values():  # the larger of the others gives the group with the largest hash
        names = list(assigned.values())
        larger = max(("test", "validation"), key=names.count)
        assigned[max((group for group in assigned if assigned[group] == larger), key=fractions.__getitem__)] = "train"
    for name in ("test", "validation"):
        if name not in assigned.values() and list(assigned.values()).count("train") < 2:
            other = "validation" if name == "test" else "test"
            donors = [group for group in assigned if assigned[group] == other]
            assigned[min(donors, key=fractions.__getitem__)] = name
        _fill(assigned, fractions, name)


def assign_fold(table: pd.DataFrame, k: int, n: int, seed: int, unit: str = "lesion") -> pd.Series:
    """Assign fold k of n to test: over k = 1 … n each group is tested once. 15 % of the groups validate.

    A seeded hash of the group's id decides its fold, so folds are as stable under growth as `assign_by_hash`.

    Args:
        table: group_id and dx of each image.
        k: the fold, from 1.
        n: number of folds, 2 to 20.
        seed: seed of the hash; the same for all folds.
        unit: what a group usually is, for messages.

    Returns:
        (N,) strings, `train`, `validation` or `test`, with the table's index.

    Raises:
        UserError: the fold does not exist, or a class has too few groups.
    """
    if not 2 <= n <= MAX_FOLDS or not 1 <= k <= n:
        raise UserError(
            f"data_split is {k}/{n}",
            f"choose a fold k/n with n from 2 to {MAX_FOLDS} and k from 1 to n",
            "split.unknown_fold",
            k=k,
            n=n,
        )
    by_class = _groups_by_class(table)
    order = {group: hash_fraction(seed, "folds", group) for group in table["group_id"].unique()}
    folds = {group: 1 + int(value * n) for group, value in order.items()}
    _adjust(by_class, folds, lambda of_class: _even_folds(of_class, order, n))
    for dx, groups in by_class.items():
        sizes = _fold_sizes({group: folds[group] for group in groups}, n).values()
        if not min(sizes) or len(groups) - max(sizes) < 2:
            if len(groups) >= max(n, MIN_GROUPS_OF_FOLDS):
                raise _unassigned(dx, f"each of {n} folds")
            raise _too_few(dx, len(groups), f"for {n} folds with separate train and validation {unit}s", unit)
    fractions = {group: hash_fraction(seed, "validation", f"{k}/{n}", group) for group in order}
    limit = SHARES["validation"] * n / (n - 1)
    assigned = {
        group: "test" if folds[group] == k else "validation" if value < limit else "train"
        for group, value in fractions.items()
    }

    def complete(of_class: dict[str, str]) -> None:
        rest = [group for group in of_class if folds[group] != k]
        if "train" not in of_class.values():
            of_class[max(rest, key=fractions.__getitem__)] = "train"
        _fill(of_class, fractions, "validation")

    _adjust(by_class, assigned, complete)
    _refuse_incomplete(by_class, assigned, tuple(SHARES))
    return map_different(table["group_id"], assigned.__getitem__)


def _fold_sizes(folds: Mapping[str, int], n: int) -> dict[int, int]:
    """Return fold → number of groups."""
    return {number: list(folds.values()).count(number) for number in range(1, n + 1)}


def _even_folds(folds: dict[str, int], fractions: Mapping[str, float], n: int) -> None:
    """Adjust the folds of a class.

    If a fold is empty, or another leaves fewer than two groups for training and validation, the largest passes its
    group with the smallest hash to the smallest fold.
    """
    while True:
        sizes = _fold_sizes(folds, n)
        smallest, largest = min(sizes, key=sizes.__getitem__), max(sizes, key=sizes.__getitem__)
        if (sizes[smallest] and sizes[largest] <= len(folds) - 2) or sizes[largest] - sizes[smallest] < 2:
            return
        folds[min((it for it in folds if folds[it] == largest), key=fractions.__getitem__)] = smallest


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
    table = read_table(path)
    header = [normalise(name) for name in table.header]
    for column in ("image_id", "split"):
        if header.count(column) != 1:
            raise UserError(
                f"{path.name} does not have the column {column} exactly once",
                "add the columns image_id and split",
                "split.missing_column",
                column=column,
            )
    names, given = (table.columns[header.index(column)] for column in ("image_id", "split"))
    splits: dict[str, str] = {}
    for name, value, line in zip(names, given, table.lines, strict=True):
        split = UNUSED if value.lower() == UNUSED else split_of(value)
        if split is None:
            raise UserError(
                f"{path.name} has the split {value[:40]!r} in line {line}",
                "use train, validation, test or none",
                "split.unknown_name",
                line=line,
                value=value[:40],
            )
        if name in splits:
            raise UserError(
                f"{path.name} repeats {name[:80]} in line {line}",
                "keep one row per image",
                "split.repeated_image",
                line=line,
                image=name[:80],
            )
        splits[name] = split
    return splits
