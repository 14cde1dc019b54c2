"""Open the file of weights that a network starts from; it may come from anyone."""

from pathlib import Path

import h5py  # type: ignore[import-untyped]

from components.shared.errors import UserError
from components.shared.files import file_sha256
from components.shared.initial_weights import InitialWeights, other_hash, unreadable
from components.shared.storage import download_file
from components.shared.stores.addresses import is_address

MAX_BYTES = 500_000_000
"""Limit of the weights that a file declares; ConvNeXt-Tiny has 112 MB."""


def open_weights(weights: InitialWeights, scratch: Path) -> Path:
    """Return the local path of a file of weights, after a check of its content.

    Args:
        weights: the file.
        scratch: folder to download a remote one to.

    Raises:
        UserError: `weights.other_hash`, `weights.too_large`, `weights.unreadable`, or as in `download_file`.
    """
    path = Path(weights.place)
    if is_address(weights.place):
        path = scratch / ("initial.weights.h5" if weights.place.endswith(".weights.h5") else "initial.h5")
        download_file(weights.place, path)
    if (found := file_sha256(path)) != weights.sha256:
        raise other_hash(weights.place, found)
    if _declared_bytes(path, weights.place) > MAX_BYTES:
        raise UserError(
            f"the file of weights {weights.place} declares more than {MAX_BYTES // 10**6:,} MB of weights",
            "give the weights of the body of the network, as keras.applications saves them",
            "weights.too_large",
            place=weights.place,
        )
    return path


def _declared_bytes(path: Path, place: str) -> int:
    """Return the size of the arrays in a file of HDF5, which may be small and declare any size."""
    sizes: list[int] = []

    def count(_: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            sizes.append(MAX_BYTES + 1 if item.is_virtual else item.nbytes)

    try:
        with h5py.File(path) as file:
            file.visititems(count)
    except (OSError, ValueError, RuntimeError) as error:
        raise unreadable(place, "a damaged file of HDF5") from error
    return sum(sizes)
