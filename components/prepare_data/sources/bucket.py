"""Object storage: the layout of a folder below a prefix."""

import contextlib
from pathlib import Path

from components.prepare_data import layouts
from components.prepare_data.layouts import medmnist, parquet
from components.prepare_data.layouts.inventory import TABLE_SUFFIXES
from components.shared import storage
from components.shared.stores.addresses import is_address

COPIES = {".parquet": parquet.copy_table, ".npz": medmnist.copy_table}
"""Suffix of files that hold images and classes → the function that copies one without its images."""
MAX_LISTED, MAX_PARTS = 200_000, 200
MAX_TABLE_BYTES = 64 * 2**20
"""A listing with more objects or files of many images, or a larger table, is not reproduced: it would take minutes."""


def handles(data: str) -> bool:
    """Handle the addresses of every store."""
    return is_address(data)


def fetch(data: str, scratch: Path) -> Path:
    """Download every object below the prefix and return the folder.

    Raises:
        UserError: the bucket cannot be read, or has no objects below the prefix.
    """
    storage.download_folder(data, scratch)
    return scratch


def copy_names(uri: str, folder: Path, listing: storage.Listing | None = None) -> None:
    """Reproduce the listing of a prefix in a folder: tables with their content, the other files without images.

    Of texts that may list images, the first bytes are copied, which are those that `layouts.inspect` reads.

    Args:
        uri: the prefix.
        folder: an empty folder.
        listing: the listing, if it is known.

    Raises:
        UserError: as in `storage.list_tree`, or `storage.bad_name`.
    """
    listing = storage.list_tree(uri) if listing is None else listing
    texts = [entry.name for entry in listing.objects if Path(entry.name).suffix.lower() in layouts.TEXT_SUFFIXES]
    lists = set(sorted(texts, key=lambda name: name.count("/"))[: layouts.MAX_LISTS])
    for entry in listing.objects:
        path, place = folder / entry.name, f"{uri.rstrip('/')}/{entry.name}"
        with storage.refuse_bad_name(place):
            path.parent.mkdir(parents=True, exist_ok=True)
            if _is_table(path):
                storage.download_file(place, path)
            elif copy_table := COPIES.get(path.suffix.lower()):
                with storage.open_object(place) as file:
                    copy_table(file, path)
            elif entry.name in lists:
                with storage.open_object(place) as file:
                    path.write_bytes(file.read(layouts.START_BYTES))
            else:
                path.touch()
    for name in listing.folders:
        with contextlib.suppress(OSError):  # an object may have the same name
            (folder / name).mkdir(parents=True, exist_ok=True)


def copy_listing(uri: str, folder: Path) -> bool:
    """Reproduce a listing as `copy_names`, if names and small tables reveal the images and classes.

    Returns:
        Whether it was reproduced. It is not if there are images without a suffix, or too much to read.

    Raises:
        UserError: as in `copy_names`.
    """
    listing = storage.list_tree(uri)
    parts = sum(Path(entry.name).suffix.lower() in COPIES for entry in listing.objects)
    if len(listing.objects) > MAX_LISTED or parts > MAX_PARTS or any(_is_opaque(entry) for entry in listing.objects):
        return False
    copy_names(uri, folder, listing)
    return True


def _is_table(path: Path) -> bool:
    return path.suffix.lower() in TABLE_SUFFIXES or (not path.suffix and "metadata" in path.name.lower())


def _is_opaque(entry: storage.ListedObject) -> bool:
    """Return whether only the content of an object reveals what it is."""
    path = Path(entry.name)
    packed = entry.max_bytes > entry.size and path.suffix.lower() in (*COPIES, *layouts.TEXT_SUFFIXES)
    if _is_table(path) or packed:
        return entry.max_bytes > MAX_TABLE_BYTES
    return bool(entry.size) and not path.suffix and not path.name.startswith(".")
