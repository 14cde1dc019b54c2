"""The split: by lesion, so that no photograph of a test lesion is ever trained on, and within each class."""

import numpy as np
import pandas as pd

from components.shared.errors import UserError
from components.shared.seeds import seed_of

SHARES = {"train": 0.70, "validation": 0.15, "test": 0.15}


def assign(table: pd.DataFrame, seed: int) -> pd.Series:
    """Gives each image a split: 70 % of each class's lesions train, 15 % validate, 15 % test, at least one each.

    A class's shuffle depends on the seed, its name and its lesions alone: another class more or less moves none of
    them.

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
        lesions = np.sort(rows["lesion_id"].unique())
        if len(lesions) < len(SHARES):
            raise UserError(
                f"the class {dx} has {len(lesions)} lesion{'s' * (len(lesions) > 1)}, too few to train, validate and "
                "test on different ones; add lesions or leave the class out."
            )
        lesions = np.random.default_rng(seed_of(seed, "split", str(dx))).permutation(lesions)
        test = max(1, round(SHARES["test"] * len(lesions)))
        validation = max(1, round(SHARES["validation"] * len(lesions)))
        held_out = dict.fromkeys(lesions[:test], "test")
        held_out |= dict.fromkeys(lesions[test : test + validation], "validation")
        split.loc[rows.index] = rows["lesion_id"].map(held_out).fillna("train")
    return split
