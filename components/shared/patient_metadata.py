"""Age, sex and site of an image's patient as numbers: the second input of classifiers that get it (late fusion).

The columns are those of `image_set.METADATA`; `localization` is the site. Others never enter: `dx_type`, how a
diagnosis was confirmed, would reveal it, because most benign lesions are not excised.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from components.shared.errors import UserError
from components.shared.image_set import METADATA
from components.shared.records import MAX_AGE_YEARS, MAX_CATEGORIES, MetadataEncoding

MAX_NAME = 60
"""Characters of a value; longer ones are cut."""
UNKNOWN = frozenset(("", "unknown", "nan", "none", "n/a"))
"""Values, in lower case, that stand for a missing one."""


def normalise(values: Iterable[Any]) -> list[str | None]:
    """Return texts in lower case with single blanks, at most `MAX_NAME` characters; None for a missing value.

    Example:
        >>> normalise(["Lower  Extremity", "Unknown", None])
        ['lower extremity', None, None]
    """
    texts = [None if pd.isna(value) else " ".join(str(value).split()).lower()[:MAX_NAME] for value in values]
    return [None if text is None or text in UNKNOWN else text for text in texts]


def _ages(table: pd.DataFrame) -> np.ndarray:
    """Return (N,) float64 ages in years; NaN for one that is missing or impossible."""
    ages = pd.to_numeric(table["age"], errors="coerce").to_numpy(np.float64, na_value=np.nan)
    return np.where((ages >= 0) & (ages <= MAX_AGE_YEARS), ages, np.nan)


def require(table: pd.DataFrame) -> None:
    """Raise if no image has an age, a sex or a site.

    Args:
        table: the `METADATA` of the images.

    Raises:
        UserError: `metadata.no_patients`.
    """
    if np.isnan(_ages(table)).all() and not any(any(normalise(table[name])) for name in METADATA[1:]):
        raise UserError(
            "the data has no age, sex or site, which the arm or option metadata requires",
            "add one of the columns age, sex and localization, name them in data_columns as in age:COLUMN, or omit "
            "metadata",
            "metadata.no_patients",
        )


def fit(table: pd.DataFrame) -> MetadataEncoding:
    """Return the encoding for the metadata of training images.

    Args:
        table: the `METADATA` of the real training images.

    Raises:
        UserError: `metadata.no_patients`.
    """
    require(table)
    ages = _ages(table)
    ages = ages[~np.isnan(ages)]
    return MetadataEncoding(
        age_mean=float(ages.mean()) if len(ages) else 0.0,
        age_deviation=max(1.0, float(ages.std())) if len(ages) else 1.0,
        sex=_most_common(table["sex"]),
        localization=_most_common(table["localization"]),
    )


def _most_common(values: pd.Series) -> list[str]:
    """Return the most common values, at most `MAX_CATEGORIES`, in alphabetical order."""
    counts = Counter(sorted(value for value in normalise(values) if value))
    return sorted(value for value, _ in counts.most_common(MAX_CATEGORIES))


def inputs(encoding: MetadataEncoding) -> list[str]:
    """Return a name for each number of an encoded image.

    Example:
        >>> inputs(MetadataEncoding(age_mean=50.0, age_deviation=9.0, sex=["female"], localization=["back"]))
        ['age', 'age missing', 'sex: female', 'sex missing', 'localization: back', 'localization missing']
    """
    names = ["age", "age missing"]
    for column in METADATA[1:]:
        names += [f"{column}: {value}" for value in getattr(encoding, column)] + [f"{column} missing"]
    return names


def encode(encoding: MetadataEncoding, table: pd.DataFrame) -> np.ndarray:
    """Return the metadata of images as numbers.

    An age that is impossible, and a sex or site that no training image has, count as missing.

    Args:
        encoding: from `fit`.
        table: the `METADATA` of N images.

    Returns:
        (N, D) float32 in the order of `inputs`: the standardised age, 0 if it is missing; 1 for the value of sex and
        site; 1 for each of the three that is missing.
    """
    ages, width = _ages(table), len(inputs(encoding))
    codes, column = np.zeros((len(table), width), np.float32), 2
    codes[:, 1] = np.isnan(ages)
    codes[:, 0] = np.where(np.isnan(ages), 0, (ages - encoding.age_mean) / encoding.age_deviation)
    for name in METADATA[1:]:
        categories = getattr(encoding, name)
        numbers: dict[str | None, int] = {category: number for number, category in enumerate(categories)}
        hot = [numbers.get(value, len(categories)) for value in normalise(table[name])]  # the last one is missing
        codes[np.arange(len(table)), column + np.array(hot, np.int64)] = 1
        column += len(categories) + 1
    return codes


def encode_missing(encoding: MetadataEncoding, count: int) -> np.ndarray:
    """Return (count, D) float32, the code of images without metadata."""
    return encode(encoding, pd.DataFrame(None, range(count), METADATA, dtype=object))


def describe(encoding: MetadataEncoding, table: pd.DataFrame) -> list[str]:
    """Return what a classifier gets of the metadata of one image.

    Example:
        >>> encoding = MetadataEncoding(age_mean=50.0, age_deviation=9.0, sex=["female"], localization=["back"])
        >>> describe(encoding, table_of([{"age": 41, "sex": "Female", "localization": "arm"}]))
        ['age: 41', 'sex: female', 'localization missing']
    """
    (age,), (codes,) = _ages(table), encode(encoding, table)
    known = [] if np.isnan(age) else [f"age: {age:g}"]
    return known + [name for name, code in zip(inputs(encoding)[1:], codes[1:], strict=True) if code]


def encode_optional(encoding: MetadataEncoding | None, table: pd.DataFrame) -> np.ndarray | None:
    """Return the metadata of images for a classifier, as `encode`; None for a classifier of images alone."""
    return None if encoding is None else encode(encoding, table)


def fill_synthetic(table: pd.DataFrame, labels: np.ndarray, is_real: np.ndarray, seed: int) -> pd.DataFrame:
    """Return metadata in which each synthetic image has those of a real image of its class.

    Synthetic images have no patient. Were their metadata missing, a missing value would indicate a rare class; as it
    is, a class has the same distribution of metadata as in arms that repeat its real images.

    Args:
        table: the `METADATA` of N images.
        labels: (N,) int, their classes.
        is_real: (N,) bool.
        seed: decides which real image; each is used equally often, except for one.
    """
    sources = np.arange(len(table))
    for label in np.unique(labels[~is_real]):
        real, synthetic = np.flatnonzero(is_real & (labels == label)), np.flatnonzero(~is_real & (labels == label))
        if len(real):
            order = np.random.default_rng([seed, int(label)]).permutation(real)
            sources[synthetic] = np.resize(order, len(synthetic))
    return table.iloc[sources].reset_index(drop=True)


def table_of(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the `METADATA` of images from a dictionary for each, in which columns may be missing."""
    return pd.DataFrame(list(rows), range(len(rows)), METADATA, dtype=object)
