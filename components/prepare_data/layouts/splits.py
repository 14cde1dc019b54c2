"""Names of splits, as folders, files and columns spell them."""

import re

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
"""Spelling in lower case → split."""


def split_of(name: str) -> str | None:
    """Return the split that a name means, or None.

    Example:
        >>> split_of("Val"), split_of("training_set")
        ('validation', 'train')
    """
    return SPLIT_NAMES.get(re.sub(r"[ _-]?(set|data|dataset|split)$", "", name.strip().lower()))


def split_of_path(path: str) -> str | None:
    """Return the split that a word in a relative path means; None if there is none, or several.

    Example:
        >>> split_of_path("ISIC2018_Task3_Training_GroundTruth.csv")
        'train'
    """
    found = {split for word in re.split(r"[^A-Za-z]+", path) if (split := split_of(word)) is not None}
    return found.pop() if len(found) == 1 else None
