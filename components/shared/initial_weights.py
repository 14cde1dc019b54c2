"""The file from which the body of a network of `keras.applications` starts: the option `weights`.

Its hash is part of the option. So the file cannot change unnoticed, and a cached result belongs to one content.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from components.shared.errors import UserError
from components.shared.files import file_sha256
from components.shared.stores.addresses import is_address

NONE = "none"
NETWORKS = ("efficientnet", "convnext")
"""Networks whose body is one of `keras.applications`."""
MARK = "#sha256="
FORM = f"a file of Keras ending in .h5, followed by {MARK} and its hash"
_HASH = re.compile(r"[0-9a-f]{64}")
MAX_BYTES = 500_000_000
"""Limit of the weights that a file declares; ConvNeXt-Tiny has 112 MB."""
_HDF5 = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class InitialWeights:
    """A file of weights.

    Attributes:
        place: path or address.
        sha256: hash of its content.
    """

    place: str
    sha256: str

    def open(self, scratch: Path) -> Path:
        """Return the local path of the file, after a check of its content; a remote one is downloaded into a folder.

        Raises:
            UserError: `weights.other_hash`, `weights.too_large`, or the file cannot be read.
        """
        from components.shared import storage  # its libraries are not in all images

        path = Path(self.place)
        if is_address(self.place):
            path = scratch / ("initial.weights.h5" if self.place.endswith(".weights.h5") else "initial.h5")
            storage.download_file(self.place, path)
        if (found := file_sha256(path)) != self.sha256:
            raise other_hash(self.place, found)
        _refuse_large(path, self.place)
        return path


def other_hash(place: str, found: str) -> UserError:
    """Return the error for a file with another hash than that in the option."""
    return UserError(
        f"the file of weights {place} has the SHA-256 {found}",
        f"give the file whose hash is in the option, or write {MARK}{found}",
        "weights.other_hash",
        place=place,
        sha256=found,
    )


def _refuse_large(path: Path, place: str) -> None:
    """Raise if a file of HDF5 declares more data than networks have: a small one may declare any amount.

    Raises:
        UserError: `weights.too_large`, or `weights.unreadable`.
    """
    import h5py  # type: ignore[import-untyped]  # a dependency of Keras

    sizes: list[int] = []

    def count(_: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            sizes.append(MAX_BYTES + 1 if item.is_virtual else item.nbytes)

    try:
        with h5py.File(path) as file:
            file.visititems(count)
    except (OSError, ValueError, RuntimeError) as error:
        raise _unreadable(place, "a damaged file of HDF5") from error
    if sum(sizes) > MAX_BYTES:
        raise UserError(
            f"the file of weights {place} declares more than {MAX_BYTES // 10**6:,} MB of weights",
            "give the weights of the body of the network, as keras.applications saves them",
            "weights.too_large",
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


def _unreadable(place: str, reason: str) -> UserError:
    return UserError(
        f"the file of weights {place} cannot be used: {reason}",
        "give a file that Keras wrote, ending in .h5",
        "weights.unreadable",
        place=place,
    )


def _open(place: str) -> BinaryIO:
    from components.shared import storage

    return storage.open_object(place) if is_address(place) else Path(place).open("rb")


def check_file(weights: InitialWeights) -> None:
    """Check that a file of weights exists and is one of HDF5, without reading the rest of it.

    Raises:
        UserError: `weights.unreadable`, or as in `storage.open_object`.
    """
    try:
        with _open(weights.place) as file:
            start = file.read(len(_HDF5))
        reason = "" if start == _HDF5 else "no file of HDF5"
    except OSError as error:
        reason = error.strerror or type(error).__name__
    if reason:
        raise _unreadable(weights.place, reason)
