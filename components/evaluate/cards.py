"""Model card and data sheet in Markdown: what TRIPOD+AI (Collins et al., BMJ 2024) and CLAIM (Tejani et al., Radiology:
AI 2024) ask, in the form of Mitchell et al. 2019 and Gebru et al. 2021.

Filled from the run alone. What a run can't know (who was photographed, where, with whose consent) is said to be not
recorded; nothing is guessed from a data set's name.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from components.evaluate.report import environment, view
from components.shared.image_set import read_rows

VALUES = 8
"""Different values of a metadata column that are named; the rest is summed up as `other`."""


def _values(column: pd.Series) -> dict[str, int]:
    """The commonest values with their number, then `other` and `not recorded`."""
    counts = column.dropna().astype(str).value_counts()
    named = {str(name): int(number) for name, number in counts.head(VALUES).items()}
    rest = {"other": int(counts.iloc[VALUES:].sum()), "not recorded": int(column.isna().sum())}
    return named | {name: number for name, number in rest.items() if number}


def population(sets: Mapping[str, str | Path]) -> dict[str, Any]:
    """Who is in the data, as far as its metadata say, for `results["population"]`; an image counts one.

    Args:
        sets: split → image set.

    Returns:
        Split → images, lesions, age (median, low, high, missing), and how often which sex, localization and dx_type.
    """
    found = {}
    for split, path in sets.items():
        rows = read_rows(path, split, ["lesion_id", "age", "sex", "localization", "dx_type"])
        ages = rows["age"].dropna()
        measures = {"median": ages.median(), "low": ages.min(), "high": ages.max()}
        found[split] = {
            "images": len(rows),
            "lesions": int(rows["lesion_id"].nunique()),
            "age": {name: float(value) if len(ages) else None for name, value in measures.items()}
            | {"missing": len(rows) - len(ages)},
            **{name: _values(rows[name]) for name in ("sex", "localization", "dx_type")},
        }
    return found


def model_card(results: dict[str, Any]) -> str:
    """What the classifiers are, what they were made from, how well they do and what they are not for.

    Args:
        results: in the form of `metrics.json`.
    """
    return environment.get_template("model_card.md.j2").render(view(results))


def data_sheet(results: dict[str, Any]) -> str:
    """What is in the data, real and synthetic, and what is not known about it.

    Args:
        results: in the form of `metrics.json`.
    """
    return environment.get_template("data_sheet.md.j2").render(view(results))
