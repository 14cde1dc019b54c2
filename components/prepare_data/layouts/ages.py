"""Read ages: numbers of years, also with a decimal comma, and ages as in DICOM (`045Y`)."""

import math
import re

import numpy as np
import pandas as pd

from components.prepare_data.layouts.relations import is_placeholder

_AGE = re.compile(r"\s*(\d+(?:[.,]\d+)?)\s*(y|yrs?|years?|m|w|d)?\.?\s*", re.IGNORECASE)
_PER_YEAR = {"m": 12, "w": 52, "d": 365}


def read_one(text: str) -> float:
    """Return an age in years; NaN if it is none.

    Example:
        >>> read_one("55,5"), read_one("045Y"), read_one("018M"), read_one("old")
        (55.5, 45.0, 1.5, nan)
    """
    found = _AGE.fullmatch(text)
    if not found:
        return math.nan
    return float(found[1].replace(",", ".")) / _PER_YEAR.get((found[2] or "").lower(), 1)


def read(texts: pd.Series, notes: list[str]) -> pd.Series:
    """Return ages in years; NaN for missing ones and for values that are no age.

    Args:
        texts: (N,) strings, None if missing.
        notes: sentences for log and pages; extended in place.
    """
    ages = pd.to_numeric(texts, errors="coerce").astype(float)
    ages = ages.where(np.isfinite(ages))  # `inf` is missing as well
    odd = texts.notna() & ages.isna()
    if odd.any():
        values = {text: read_one(text) for text in texts[odd].unique()}
        ages[odd] = texts[odd].map(values).astype(float)
        unread = [text for text, age in values.items() if math.isnan(age) and not is_placeholder(text)]
        if unread:
            count = int(texts[odd].isin(unread).sum())
            notes.append(f"{count:,} ages are not numbers, such as {unread[0][:40]!r}: they count as missing")
    return ages
