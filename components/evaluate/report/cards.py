"""Render model card and data sheet in Markdown.

They answer the items of TRIPOD+AI (Collins et al., BMJ 2024) and CLAIM (Tejani et al., Radiology: AI 2024), in the form
of Mitchell et al. 2019 and Gebru et al. 2021. They are filled from the run only. Information that a run does
not have (who was photographed, where, with whose consent) is “not recorded”; nothing is inferred from the name of a
dataset.
"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from components.evaluate.report.page import environment, view
from components.shared.image_set import read_rows
from components.shared.patient_metadata import normalise
from components.shared.records import OTHER_GROUP, UNKNOWN_GROUP, Ages, Population, Results, Split

MAX_VALUES = 8
"""Distinct values of a metadata column that are listed; the rest is counted as `OTHER_GROUP`."""


def _count_values(column: pd.Series) -> dict[str, int]:
    """Return the most common values with their counts, then `OTHER_GROUP` and `UNKNOWN_GROUP`."""
    is_missing = pd.Series(normalise(column), column.index, dtype=object).isna()
    counts = column[~is_missing].astype(str).value_counts()
    named = {str(name): int(number) for name, number in counts.head(MAX_VALUES).items()}
    rest = {OTHER_GROUP: int(counts.iloc[MAX_VALUES:].sum()), UNKNOWN_GROUP: int(is_missing.sum())}
    return named | {name: number for name, number in rest.items() if number}


def population(sets: Mapping[Split, str | Path]) -> dict[Split, Population]:
    """Return split → its population according to the metadata, counted by image.

    Args:
        sets: split → image set.
    """
    by_split = {}
    for split, path in sets.items():
        rows = read_rows(path, split, ["lesion_id", "age", "sex", "localization", "dx_type"])
        ages = rows["age"].dropna()
        measures = {"median": ages.median(), "low": ages.min(), "high": ages.max()}
        by_split[split] = Population(
            images=len(rows),
            lesions=int(rows["lesion_id"].nunique()),
            age=Ages(
                **{name: float(value) if len(ages) else None for name, value in measures.items()},
                missing=len(rows) - len(ages),
            ),
            **{name: _count_values(rows[name]) for name in ("sex", "localization", "dx_type")},
        )
    return by_split


def model_card(results: Results) -> str:
    """Return the model card: what the classifiers are, their data, performance and limitations."""
    return environment.get_template("model_card.md.j2").render(view(results))


def data_sheet(results: Results) -> str:
    """Return the data sheet: the content of the data, real and synthetic, and what is not known about it."""
    return environment.get_template("data_sheet.md.j2").render(view(results))
