"""The form of class names: they become file names, pipeline tasks and table cells."""

import re
import unicodedata

CLASS_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,30}")
MAX_CLASS_CHARACTERS = 31
_CONVERTIBLE = re.compile(r"[\w ,.&'’()+/:;–-]+")
_SPELLED = str.maketrans({"ß": "ss", "æ": "ae", "Æ": "Ae", "ø": "o", "Ø": "O", "œ": "oe", "ł": "l", "Ł": "L", "ı": "i"})
"""Latin letters that have no form in ASCII with an accent."""


def safe_class_name(name: str) -> str | None:
    """Return the form of a class name that is used everywhere, or None if there is none.

    Example:
        >>> safe_class_name("Melanoma, NOS")
        'Melanoma_NOS'
    """
    if CLASS_NAME.fullmatch(name):
        return name
    if not _CONVERTIBLE.fullmatch(name) or not name[:1].isalnum():
        return None
    name = name.translate(_SPELLED)
    ascii_ = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    safe = re.sub(r"[^A-Za-z0-9-]+", "_", ascii_).strip("_-")
    if len(safe) > MAX_CLASS_CHARACTERS:
        safe = safe[: MAX_CLASS_CHARACTERS + 1].rpartition("_")[0] or safe[:MAX_CLASS_CHARACTERS]
    lost = sum(c.isalnum() for c in name) - sum(c.isalnum() for c in ascii_)
    return safe if safe and not lost else None
