"""Sort the files of a raw folder by what they are: images, masks, tables, Parquet, arrays, archives, others."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from components.prepare_data import image_reader, scan
from components.prepare_data.layouts import tables
from components.prepare_data.texts import Paths, release_memory
from components.shared.errors import UserError, printable
from components.shared.places import ARCHIVES

TABLE_SUFFIXES = (".csv", ".tsv", ".tab")
RESULTS, BESIDE_RESULTS = "metrics.json", ("manifest.json", "predictions.parquet", "splits.csv")
"""A folder with the first and one of the other files holds the results of a run, which are no data."""

_MASK = re.compile(r"(.+?)[_-](mask|segmentation|seg|ground_?truth|gt|superpixels|attribute_[a-z_]+)([_-]?\d+)?", re.I)
_MASK_WORD = (
    r"(masks?|seg|segmented|segmentations?|ground ?truth|gt|contours?|outlines?|labels?|overlays?|rois?|annotated|"
    r"annotations?|superpixels)"
)
_BESIDE = (
    re.compile(rf"(?P<of>.+?)[ ._-]+{_MASK_WORD}([ ._-]?\d+)?", re.IGNORECASE),
    re.compile(rf"{_MASK_WORD}[ ._-]+(?P<of>.+)", re.IGNORECASE),
)
"""Names of masks that are less usual, so that the image must be beside them."""
_MASK_FOLDER = re.compile(r"mask|seg|ground_?truth|annotation|superpixel|attribute", re.I)
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF")


def strip_suffixes(name: str) -> str:
    """Return a file name without the suffixes of image formats, as often as they are repeated.

    Example:
        >>> strip_suffixes("ISIC_0024306.jpg.JPG")
        'ISIC_0024306'
    """
    while True:
        stem, suffix = os.path.splitext(name)  # noqa: PTH122 (a path object takes three times as long)
        if suffix.lower() not in image_reader.SUFFIXES:
            return name
        name = stem


def split_suffix(name: str) -> tuple[str, str]:
    """Return a file name without its last suffix, and this suffix, of which `.nii.gz` is one.

    Example:
        >>> split_suffix("scan.1.nii.gz")
        ('scan.1', '.nii.gz')
    """
    stem, suffix = os.path.splitext(name)  # noqa: PTH122
    inner, packed = os.path.splitext(stem)  # noqa: PTH122
    return (inner, packed + suffix) if (packed + suffix).lower() == ".nii.gz" else (stem, suffix)


def _begins_as_image(path: Path) -> bool:
    """Return whether a file without a suffix begins as the formats that are read."""
    try:
        with path.open("rb") as file:
            return file.read(8).startswith(_MAGIC)
    except OSError:
        return False


@dataclass(frozen=True)
class Inventory:
    """The files below a folder, each in one list, sorted.

    Attributes:
        folder: the folder.
        images: paths of images by their suffix, or by their content if they have none; without masks.
        masks: paths of images whose name is that of another image and a word such as `mask`, beside it or in a folder
            of masks.
        tables: text tables.
        parquet: Parquet files.
        arrays: NumPy archives, `.npz`.
        archives: packed files.
        others: all other files.
        closed: folders that were not entered, see `scan.Tree`.
        broken: links with the name of an image that lead to nothing.
        empty: folders without a file at any depth.
        results: folder with the results of a run → number of files in it, which are not listed.
        compare: whether images of one name may be opened to see whether they are equal.
    """

    folder: Path
    images: Sequence[str] = field(default_factory=Paths)
    masks: list[str] = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)
    parquet: list[Path] = field(default_factory=list)
    arrays: list[Path] = field(default_factory=list)
    archives: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    closed: list[Path] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    results: Counter[Path] = field(default_factory=Counter)
    compare: bool = True

    def name(self, path: str | Path) -> str:
        """Return a path relative to the folder, for messages."""
        if (text := str(path)).startswith(f"{self.folder}/"):  # ten times as fast, for the paths of images
            return printable(text.removeprefix(f"{self.folder}/"))
        relative = os.path.relpath(path, self.folder)
        return printable(relative if not relative.startswith("..") else str(path))

    @cached_property
    def _read_headers(self) -> tuple[dict[Path, list[str]], list[UserError]]:
        headers, errors = {}, []
        for path in self.tables:
            try:
                headers[path] = tables.read_header(path)
            except UserError as error:
                errors.append(error)
        return headers, errors

    @property
    def headers(self) -> dict[Path, list[str]]:
        """The columns of each table that can be read."""
        return self._read_headers[0]

    @property
    def unreadable(self) -> list[UserError]:
        """The errors of the other tables."""
        return self._read_headers[1]

    def images_per_folder(self) -> dict[str, int]:
        """Return folder → number of images directly in it."""
        counts = Counter(os.path.dirname(path) for path in self.images)  # noqa: PTH120
        return {self.name(folder): count for folder, count in counts.items()}


def base_name(path: str) -> str:
    """Return the last part of a path; a path object takes five times as long."""
    return path.rpartition("/")[2]


def _kind(path: str) -> str:
    name = base_name(path).lower()
    suffix = split_suffix(name)[1].rstrip(".")
    if suffix in image_reader.SUFFIXES:
        return "images"
    if suffix in TABLE_SUFFIXES or (not suffix and "metadata" in name):
        return "tables"
    if suffix == ".parquet":
        return "parquet"
    if suffix == ".npz":
        return "arrays"
    if suffix in ARCHIVES:
        return "archives"
    return "images" if not suffix and _begins_as_image(Path(path)) else "others"


def _masks(images: Iterable[str]) -> set[str]:
    """Return images that are masks: the image of their name is beside them, or they are in a folder of masks."""
    named = {path: of[1] for path in images if (of := _MASK.fullmatch(strip_suffixes(base_name(path))))}
    places: dict[str, set[Path]] = {name: set() for name in named.values()}
    for path in images if named else ():
        if (name := strip_suffixes(base_name(path))) in places:
            places[name].add(Path(path).parent)
    return {
        path
        for path, name in named.items()
        if Path(path).parent in places[name] or (places[name] and _MASK_FOLDER.search(Path(path).parent.name))
    }


def _masks_beside(images: Iterable[str]) -> set[str]:
    """Return images whose name is that of an image beside them and a word that may mean a mask."""
    named: dict[str, str] = {}
    for path in images:
        name = strip_suffixes(base_name(path))
        found = next((of for pattern in _BESIDE if (of := pattern.fullmatch(name))), None)
        if found is not None:
            named[path] = f"{path.rpartition('/')[0]}/{found['of']}"
    wanted = set(named.values())
    beside = wanted and wanted.intersection(
        f"{path.rpartition('/')[0]}/{strip_suffixes(base_name(path))}" for path in images
    )
    return {path for path, image in named.items() if image in beside}


def set_masks_aside(inventory: Inventory) -> Inventory:
    """Return the inventory without masks that only the name of an image beside them reveals."""
    masks = _masks_beside(inventory.images)
    if not masks:
        return inventory
    images = Paths(path for path in inventory.images if path not in masks)
    return replace(inventory, images=images, masks=sorted({*inventory.masks, *masks}))


def take_inventory(folder: Path, ignore: Path | None = None) -> Inventory:
    """List a folder and sort its files.

    Args:
        folder: the raw folder.
        ignore: a file that is no data, such as a given split.
    """
    tree = scan.scan(folder)
    broken = [path for path in tree.broken if _kind(path) == "images"]
    images = Paths()
    found = Inventory(folder, images, closed=tree.closed, broken=broken, empty=tree.empty)
    marks = [Path(path) for path in tree.files if base_name(path) in (RESULTS, *BESIDE_RESULTS)]
    results = {path.parent for path in marks if path.name == RESULTS}
    results &= {path.parent for path in marks if path.name != RESULTS}
    for path in tree.files:
        if results and (of := next((folder for folder in Path(path).parents if folder in results), None)):
            found.results[of] += 1
            continue
        if ignore is not None and base_name(path) == ignore.name and Path(path).resolve() == ignore:
            continue
        kind = _kind(path)
        getattr(found, kind).append(path if kind == "images" else Path(path))
    del tree
    release_memory()
    masks = _masks(images)
    if not masks:
        return found
    found.masks.extend(path for path in images if path in masks)
    return replace(found, images=Paths(path for path in images if path not in masks))
