"""Class folders: `<class>/**/*.jpg`, also below `train`, `val` and `test`, which are then the split.

The id of an image is its path without the suffix, since names repeat in other folders, and a longer list of files must
not change an id.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pandas as pd

from components.prepare_data.layouts.dataset import Found, Raw
from components.prepare_data.layouts.inventory import Inventory, strip_suffixes
from components.prepare_data.layouts.matching import explain_broken, explain_closed, repeated_names
from components.prepare_data.layouts.splits import split_of
from components.prepare_data.layouts.tables import join_some
from components.shared.errors import UserError

NAME = "class folders"
_NO_CLASS = re.compile(
    r"(.*[ _.-])?(images?|imgs?|pic[a-z]*|photos?|masks?|segmentations?|ground_?truth|labels?|annotations?|data|"
    r"dataset|input|inputs|outputs?|raw|part|parts|batch|files|jpe?gs?|pngs?|new folder|originals?|augmented|cropped|"
    r"resized|processed|thumb(nail)?s?|unlabell?ed|unsorted|backup)([ _.-]*\d+)?",
    re.IGNORECASE,
)
"""Names of folders that describe how images are stored, not what they show."""


_MASKS = re.compile(r"(.*[ _.-])?(masks?|segmentations?|ground_?truth|annotations?)", re.IGNORECASE)
UNSUPPORTED = (
    ".avif", ".cr2", ".dcm", ".dicom", ".dng", ".heic", ".heif", ".jp2", ".nef", ".nii", ".npy", ".raw", ".svs", ".tga",
)  # fmt: skip
"""Suffixes of images that are not read."""


class _Image(NamedTuple):
    """An image in a class folder.

    Attributes:
        split: the split of a folder above or below the class; None if there is none.
        dx: name of the class folder.
        below: name of the folder in it that holds the image, or leads to it; empty if there is none.
        path: relative to the folder of the data.
    """

    split: str | None
    dx: str
    below: str
    path: str


def _split_and_class(inventory: Inventory) -> list[_Image] | None:
    """Return the images in class folders, or None if there are no class folders."""
    paths = [inventory.name(path) for path in inventory.images]
    parts = [path.split("/") for path in paths]
    while True:
        first = {names[0] for names in parts if len(names) > 1}
        if len(first) == 1 and split_of(next(iter(first))) is None and all(len(names) > 2 for names in parts):
            parts = [names[1:] for names in parts]  # a folder around the class folders
        else:
            break
    below = [names for names in parts if len(names) > 1]
    split_first = bool(below) and all(split_of(names[0]) for names in below)
    split_second = bool(below) and not split_first and all(len(n) > 2 and split_of(n[1]) for n in below)
    found = []
    for names, path in zip(parts, paths, strict=True):
        if split_first and len(names) > 2:
            found.append(_Image(split_of(names[0]), names[1], names[2] if len(names) > 3 else "", path))
        elif split_second and len(names) > 2:
            found.append(_Image(split_of(names[1]), names[0], names[2] if len(names) > 3 else "", path))
        elif not split_first and not split_second and len(names) > 1:
            found.append(_Image(None, names[0], names[1] if len(names) > 2 else "", path))
    return found or None


def recognise(inventory: Inventory, named: dict[str, str]) -> list[Found]:
    """Recognise folders with images, one per class."""
    found = _split_and_class(inventory) if not named else None
    if not found or all(_NO_CLASS.fullmatch(image.dx) for image in found):
        return []
    return [Found(NAME, (inventory.folder,), {})]


def read(inventory: Inventory, found: Found, scratch: Path) -> Raw:
    """Read the paths of the images.

    Raises:
        UserError: `folders.not_a_class`: a folder beside the class folders has the name of a store of images; or a
            class may be incomplete, because a folder was not entered or images have an unsupported suffix.
    """
    images = _split_and_class(inventory) or []
    _refuse_unread(inventory)
    _refuse_stores({image.dx for image in images})
    _refuse_masks(image.path for image in images)
    _refuse_two_levels(images)
    files = {inventory.name(path): path for path in inventory.images}
    rows = {
        "image_id": [strip_suffixes(image.path) for image in images],
        "dx": [image.dx for image in images],
    }
    columns = {"dx": "name of the folder", "image_id": "path of the file"}
    if any(image.split is not None for image in images):
        rows["split"] = [image.split or "" for image in images]
        columns["split"] = "name of the folder"
    table = pd.DataFrame(rows, dtype=object)
    repeated = table.loc[table["image_id"].duplicated(), "image_id"]
    if len(repeated):
        same = table.index[table["image_id"] == repeated.min()]
        raise repeated_names(inventory, *[Path(files[images[row].path]) for row in same[:2]])
    loose = len(inventory.images) - len(images)
    notes = [f"{loose:,} images that lie in no class folder are not used"] if loose else []
    places = [image.path for image in images]
    return Raw(
        NAME, "the data folder", table, [files[image.path] for image in images], places, columns=columns, notes=notes
    )


def _refuse_unread(inventory: Inventory) -> None:
    """Raise if images were not listed, since without a table nothing else would reveal it."""
    if inventory.closed:
        raise explain_closed(inventory, "images below it would be missing")
    if inventory.broken:
        raise explain_broken(inventory)
    unread = Counter(path.suffix for path in inventory.others if path.suffix.lower() in UNSUPPORTED)
    if unread:
        suffix, count = unread.most_common(1)[0]
        raise UserError(
            f"{count:,} files with the suffix {suffix} are not read",
            "convert them to PNG or JPEG, or move them out of the data folder",
            "images.unsupported_suffix",
            suffix=suffix,
            count=count,
        )


def _refuse_masks(paths: Iterable[str]) -> None:
    """Raise if a folder below a class folder has the name of masks, which would become images of the class."""
    in_folder = Counter(path.rpartition("/")[0] for path in paths)
    folders: Counter[str] = Counter()
    for deepest, images in in_folder.items():
        for folder in (PurePosixPath(deepest), *PurePosixPath(deepest).parents):
            if _MASKS.fullmatch(folder.name):
                folders[str(folder)] += images
    if folders:
        name, count = folders.most_common(1)[0]
        raise UserError(
            f"the folder {name} has {count:,} files that seem to be masks, not images of a class",
            "move the folders with masks out of the data folder, or rename them if they hold images",
            "folders.masks",
            folder=name,
            count=count,
        )


def _refuse_two_levels(images: Sequence[_Image]) -> None:
    """Raise if all classes are divided into folders of the same few names, which may be the classes: `site/class`.

    Names with digits, such as `40X` or `patient 1`, are parts of a class.
    """
    if not all(image.below for image in images):
        return
    above: dict[str, set[str]] = {}
    for image in images:
        above.setdefault(image.below, set()).add(image.dx)
    names, classes = sorted(above), sorted({image.dx for image in images})
    if len(names) < 2 or any(len(of) < 2 for of in above.values()) or any(re.search(r"\d", name) for name in names):
        return
    raise UserError(
        f"the folders {join_some(names)} are in several of the folders {join_some(classes)}, so either may be the "
        "classes",
        f"make {names[0]} and the others the top folders if they are the classes; otherwise move their images up into "
        f"{classes[0]} and the others",
        "folders.two_levels",
        folders=classes[:20],
        below=names[:20],
    )


def _refuse_stores(classes: Sequence[str] | set[str]) -> None:
    splits = sorted(dx for dx in classes if split_of(dx))
    others = sorted(set(classes) - set(splits))
    if splits and others:
        raise UserError(
            f"{join_some(others)} beside {join_some(splits)} does not have the name of a split",
            f"move {others[0]} out of the data folder, or into the folder of a split if it is a class",
            "folders.not_a_split",
            folders=others,
        )
    stores = sorted(dx for dx in classes if _NO_CLASS.fullmatch(dx))
    if stores:
        others = sorted(set(classes) - set(stores))
        raise UserError(
            f"the folders {join_some(others)} would be classes, but {join_some(stores)} beside them "
            "does not have the name of one",
            f"move {stores[0]} out of the data folder, or rename it if it is a class",
            "folders.not_a_class",
            folders=stores,
        )
