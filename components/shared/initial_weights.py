"""The file from which the body of a network of `keras.applications` starts: the option `weights`.

Its hash is part of the option. So the file cannot change unnoticed, and a cached result belongs to one content.
"""

import re
from dataclasses import dataclass

from components.shared.errors import UserError

NONE = "none"
NETWORKS = ("efficientnet", "convnext")
"""Networks whose body is one of `keras.applications`."""
MARK = "#sha256="
FORM = f"a file of Keras ending in .h5, followed by {MARK} and its hash"
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class InitialWeights:
    """A file of weights.

    Attributes:
        place: path or address.
        sha256: hash of its content.
    """

    place: str
    sha256: str


def other_hash(place: str, found: str) -> UserError:
    """Return the error for a file with another hash than that in the option."""
    return UserError(
        f"the file of weights {place} has the SHA-256 {found}",
        f"give the file whose hash is in the option, or write {MARK}{found}",
        "weights.other_hash",
        place=place,
        sha256=found,
    )


def unreadable(place: str, reason: str) -> UserError:
    """Return the error for a file that Keras did not write."""
    return UserError(
        f"the file of weights {place} cannot be used: {reason}",
        "give a file that Keras wrote, ending in .h5",
        "weights.unreadable",
        place=place,
    )


def parse_weights(text: str) -> InitialWeights | None:
    """Return the file that the option `weights` names; None for `none`.

    Raises:
        ValueError: the text has another form.

    Example:
        >>> parse_weights("none")
    """
    if text == NONE:
        return None
    place, mark, digest = text.rpartition(MARK)
    if not mark or not _HASH.fullmatch(digest):
        raise ValueError(f"{MARK} and the 64 digits that sha256sum prints are missing at its end")
    if not place.endswith(".h5"):
        raise ValueError("the file does not end in .h5")
    return InitialWeights(place, digest)


def check_network(weights: str, classifier: str) -> None:
    """Check that a network can start from weights.

    Raises:
        UserError: `weights.other_network`.
    """
    if weights != NONE and classifier not in NETWORKS:
        raise UserError(
            f"weights is given, but the network {classifier} starts from random weights only",
            f"set classifier to {' or '.join(NETWORKS)}, or weights to {NONE}",
            "weights.other_network",
            classifier=classifier,
        )
