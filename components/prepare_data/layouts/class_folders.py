"""Class folders: `<class>/**/*.jpg`, also below `train`, `val` and `test`, which are then the split.

The id of an image is its path without the suffix, since names repeat in other folders, and a longer list of files must
not change an id.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import pandas as pd

from components.prepare_data.layouts.checks import MAX_CLASSES
from components.prepare_data.layouts.dataset import Found, ImagePaths, Raw
from components.prepare_data.layouts.inventory import Inventory, split_suffix, strip_suffixes
from components.prepare_data.layouts.matching import explain_broken, explain_closed, repeated_names
from components.prepare_data.layouts.splits import split_of, split_of_path
from components.prepare_data.layouts.tables import join_some
from components.prepare_data.texts import STRING, Texts, is_unique
from components.shared.errors import UserError

NAME = "class folders"
_NO_CLASS = re.compile(
    r"(.*[ _.-])?(images?|imgs?|pic[a-z]*|photos?|masks?|segmentations?|ground_?truth|labels?|annotations?|data|"
    r"dataset|input|inputs|outputs?|raw|part|parts|batch|files|jpe?gs?|pngs?|new folder|originals?|augmented|cropped|"
    r"resized|processed|thumb(nail)?s?|unlabell?ed|unsorted|backup)([ _.-]*\d+)?",
    re.IGNORECASE,
)
"""Names of folders that describe how images are stored, not what they show."""


_PART_NAME = (
    r"(\d+x|(p|pat|patient|subj|subject|sub|participant|case|lesion|part|batch|chunk|shard|subset|set|volume|vol|folder|"
    r"series|fold|study|session|visit|slide|scan)[ _.-]*\d+([ _-]*of[ _-]*\d+)?|"
    r"(part|batch|subset|set|series|fold|session)[ _.-]+([a-h]|[ivx]+)|(19|20)\d\d([_.-]?[01]\d([_.-]?[0-3]\d)?)?)"
)
_PART = re.compile(_PART_NAME, re.IGNORECASE)
"""Names of folders that are parts of a class, or of all images: a magnification, a patient, a batch, a date."""
_PATIENT = re.compile(r"(pat|patient|subj|subject|sub|participant|case)[ _.-]*[a-z]?\d+\w*", re.IGNORECASE)
"""Names of folders that identify a patient, such as `patient00011`, `PAT_12` and `sub-01`."""
_PART_OF = re.compile(rf"(?P<of>(.*[ _.-])?){_PART_NAME}", re.IGNORECASE)
"""The same after the name of the whole, as in `ISIC_part_1`."""
_MASKS = re.compile(
    r"(.*[ _.-])?(masks?|segmentations?|ground_?truth|annotations?|thumb(nail)?s?)([ _.-]*\d+)?", re.IGNORECASE
)
_ID = re.compile(r"(?P<of>.*?)\d{2,}")
"""Names of folders that may be patients or images, such as `IMD002`, if there are many with few images each."""
MIN_IDS, MAX_IMAGES_OF_ID = 10, 3
UNSUPPORTED = frozenset((
    ".arw", ".avif", ".cr2", ".cr3", ".dcm", ".dicom", ".dng", ".heic", ".heif", ".j2k", ".jp2", ".jxl", ".mha", ".mhd",
    ".ndpi", ".nef", ".nii", ".nii.gz", ".npy", ".nrrd", ".pbm", ".pgm", ".pnm", ".ppm", ".psd", ".raw", ".svs", ".tga",
))  # fmt: skip
"""Suffixes of images that are not read."""
_NO_IMAGE = frozenset((
    ".bat", ".bib", ".cfg", ".ckpt", ".conf", ".css", ".csv", ".db", ".doc", ".docx", ".htm", ".html", ".ini", ".ipynb",
    ".joblib", ".js", ".json", ".jsonl", ".keras", ".license", ".lnk", ".log", ".m", ".md", ".md5", ".ods", ".odt",
    ".onnx", ".pb", ".pdf", ".pickle", ".pkl", ".ppt", ".pptx", ".pt", ".pth", ".py", ".r", ".rst", ".rtf",
    ".safetensors", ".sh", ".sha1", ".sha256", ".sqlite", ".tex", ".tflite", ".toml", ".tsv", ".txt", ".url", ".xls",
    ".xlsx", ".xml", ".yaml", ".yml",
))  # fmt: skip
"""Suffixes of files that are no images: texts, tables, programs, models."""
SHEETS = (".xlsx", ".xls", ".ods")
"""Suffixes of spreadsheets."""
_DOCUMENT = re.compile(
    r"authors|changelog|checksums?|citation|copying|licen[cs]e|md5sums?|notice|readme|sha\d+sums?", re.I
)
"""Names of files without a suffix that are no images."""


def _stores(classes: set[str]) -> list[str]:
    """Return the folders that are no classes by their names, sorted.

    If all names are such, they are classes by what precedes the word: `with_mask`, `without_mask`.
    """
    words = {dx: match[1] or "" for dx in classes if (match := _NO_CLASS.fullmatch(dx))}
    before = {dx: word.strip(" _.-").lower() for dx, word in words.items()}
    names = {word for word in before.values() if word and not _NO_CLASS.fullmatch(word) and not split_of_path(word)}
    if len(names) > 1 and len(words) == len(classes):
        return sorted(dx for dx in classes if before[dx] not in names)
    return sorted(words)


def _are_parts(names: Collection[str]) -> bool:
    """Return whether all names are those of parts of one whole, and none that of a class.

    Example:
        >>> _are_parts(["p1", "p2"]), _are_parts(["grade_1", "grade_2"]), _are_parts(["p1", "nv"])
        (True, False, False)
    """
    found = [_PART_OF.fullmatch(name) for name in names]
    return bool(names) and len({of and of["of"].lower() for of in found}) == 1 and None not in found


def _are_no_classes(names: set[str]) -> bool:
    """Return whether all names are those of stores or of parts."""
    classes = names - set(_stores(names))
    return not classes or _are_parts(classes)


class _Folder(NamedTuple):
    """A folder with images: that of a class, or one below it.

    Attributes:
        split: the split of a folder above or below the class; None if there is none.
        dx: name of the class folder.
        below: names of the folders from that of the class, without it, to this one.
        path: relative to the folder of the data.
        images: number of images directly in it.
    """

    split: str | None
    dx: str
    below: tuple[str, ...]
    path: str
    images: int

    @property
    def patient(self) -> str:
        """The folder below that of the class that identifies a patient; empty if there is none."""
        return next(filter(_PATIENT.fullmatch, self.below), "")


class _Levels(NamedTuple):
    """Where a path has the split and the class.

    Attributes:
        around: names of the folders around all others.
        doubled: names of folders in them that hold nothing but a folder of the same name, which does not count.
        splits: name → split of the folders in them, if these are splits.
        split_at: position of the split among the folders in them; None if there is none.
    """

    around: tuple[str, ...]
    doubled: frozenset[str]
    splits: Mapping[str, str]
    split_at: int | None

    def place(self, path: str, images: int = 0) -> _Folder | None:
        """Return the folder of a relative path; None if it is not that of a class or below one."""
        names = tuple(path.split("/"))
        if names[: len(self.around)] != self.around:
            return None
        names = _undouble(names[len(self.around) :], self.doubled)
        at_split = names[self.split_at] if self.split_at is not None and len(names) > self.split_at else ""
        split = self.splits.get(at_split, split_of(at_split))
        if self.split_at == 0 and split is None:
            return None
        dx, *below = [*(name for at, name in enumerate(names) if at != self.split_at), ""]
        return _Folder(split, dx, tuple(below[:-1]), path, images) if dx else None


def _folder_of(path: str) -> str:
    return path.rpartition("/")[0]


def _split_and_class(inventory: Inventory) -> tuple[_Levels, dict[str, _Folder]]:
    """Return the levels, and path → folder for each folder with images that is that of a class or below one."""
    counts: Counter[str] = Counter()
    paths: dict[str, str] = {}
    for image in inventory.images:
        counts[_folder_of(image)] += 1
        if _folder_of(image) not in paths:
            paths[_folder_of(image)] = _folder_of(inventory.name(image))
    empty = [tuple(inventory.name(path).split("/")) for path in inventory.empty]
    levels = _find_levels([tuple(path.split("/")) if path else () for path in paths.values()], empty)
    found = {folder: levels.place(path, counts[folder]) for folder, path in paths.items()}
    return levels, {folder: place for folder, place in found.items() if place is not None}


def _undouble(names: tuple[str, ...], doubled: frozenset[str]) -> tuple[str, ...]:
    """Return the names in a path without the first, if it is one of those that are there twice."""
    return names[1:] if names[:1] == names[1:2] and doubled.issuperset(names[:1]) else names


def _find_levels(parts: list[tuple[str, ...]], empty: list[tuple[str, ...]]) -> _Levels:
    """Return where the split and the class are.

    Args:
        parts: names in the path of each folder with images.
        empty: names in the path of each folder without a file.
    """
    around: list[str] = []
    while True:
        first = {names[0] for names in parts if names}
        if len(first) != 1 or split_of(next(iter(first))) or any(len(names) < 2 for names in parts):
            break
        beside = {names[0] for names in empty} - first
        if beside - set(_stores(beside)) and _are_no_classes({names[1] for names in parts}):
            break  # `nv/p1` and `nv/p2` beside `mel`, which is empty
        around += first
        parts = [names[1:] for names in parts]
        empty = [names[1:] for names in empty if names[0] in first and len(names) > 1]
    parts = [names for names in parts if names]
    doubled = frozenset(names[0] for names in parts) - {names[0] for names in parts if names[:1] != names[1:2]}
    parts = [_undouble(names, doubled) for names in parts]
    splits = _splits_by_word((names[0], *names[1:2]) for names in parts)
    split_at = None
    if parts and all(split_of(names[0]) or (names[0] in splits and len(names) > 1) for names in parts):
        split_at = 0
    elif parts and all(len(names) > 1 and split_of(names[1]) for names in parts):
        split_at = 1
    return _Levels(tuple(around), doubled, splits if split_at == 0 else {}, split_at)


def _splits_by_word(places: Iterable[tuple[str, ...]]) -> dict[str, str]:
    """Return name → split of folders such as `seg_train` and `seg_test`; none if they do not hold the same folders.

    Args:
        places: the name of a folder, and of a folder in it if there is one.
    """
    inside: dict[str, set[str]] = {}
    for name, *below in places:
        inside.setdefault(name, set()).update(below)
    splits = {name: split for name in inside if (split := split_of_path(name)) is not None}
    in_train, in_others = (
        {below for name, split in splits.items() if (split == "train") == train for below in inside[name]}
        for train in (True, False)
    )
    return splits if in_train & in_others else {}


def recognise(inventory: Inventory, named: dict[str, str]) -> list[Found]:
    """Recognise folders with images, one per class."""
    _, found = _split_and_class(inventory) if not named else (None, {})
    classes = {folder.dx for folder in found.values()}
    if len(_stores(classes)) == len(classes):
        return []
    return [Found(NAME, (inventory.folder,), {})]


def explain_no_classes(inventory: Inventory) -> UserError:
    """Return the error for a folder without metadata whose folders, if there are any, are no classes by their names."""
    _, found = _split_and_class(inventory)
    names = sorted({folder.dx for folder in found.values()})
    if not names or not _are_no_classes(set(names)):
        return UserError(
            f"{inventory.folder} has no metadata file, and no folders that are named after classes",
            "give the folder that contains one subfolder per class, or add HAM10000_metadata.csv with the columns "
            "image_id, dx and, if known, lesion_id",
            "metadata.missing",
            path=str(inventory.folder),
        )
    return UserError(
        f"{inventory.folder} has no metadata file, and its folders ({join_some(names)}) have the names of parts or "
        "stores, not of classes",
        "add a CSV with the columns image_id, dx and, if known, lesion_id, or sort the images into one folder per "
        "class; rename the folders if they are classes",
        "metadata.missing",
        path=str(inventory.folder),
        folders=names[:20],
    )


def read(inventory: Inventory, found: Found, scratch: Path) -> Raw:
    """Read the paths of the images.

    Raises:
        UserError: `folders.not_a_class`: a folder beside the class folders has the name of a store of images; or a
            class may be incomplete, because a folder was not entered or images have an unsupported suffix; or a
            class folder is empty. `metadata.missing`: the folders are parts.
    """
    levels, by_path = _split_and_class(inventory)
    classes = {folder.dx for folder in by_path.values()}
    folders, numbers = list(by_path.values()), {path: number for number, path in enumerate(by_path)}
    _refuse_unread(inventory, levels)
    _refuse_copy(folders)
    if not _are_no_classes(classes):
        _refuse_stores(classes, _splits_by_word((it.dx, *it.below[:1]) for it in folders))
    _refuse_masks(folders)
    _refuse_two_levels(folders)
    if _are_no_classes(classes):
        raise explain_no_classes(inventory)
    _refuse_ids(folders)
    _refuse_empty(inventory, levels, classes)
    folder_of = np.fromiter((numbers.get(_folder_of(image), -1) for image in inventory.images), np.int64)
    files = ImagePaths(inventory.images, np.flatnonzero(folder_of >= 0))
    folder_of = folder_of[files.positions]
    places = Texts(inventory.name(file) for file in files if file is not None)
    rows = {
        "image_id": Texts(map(strip_suffixes, places)).series(),
        "dx": pd.array([folder.dx for folder in folders], STRING).take(folder_of),
    }
    columns = {"dx": "name of the folder", "image_id": "path of the file"}
    if any(folder.split is not None for folder in folders):
        rows["split"] = pd.array([folder.split or "" for folder in folders], STRING).take(folder_of)
        columns["split"] = "name of the folder"
    if any(folder.patient for folder in folders):
        rows["patient_id"] = pd.array([folder.patient for folder in folders], STRING).take(folder_of)
        columns["patient_id"] = "name of the folder"
    table = pd.DataFrame(rows)
    if not is_unique(table["image_id"]):
        repeated = table["image_id"][table["image_id"].duplicated()].min()
        same = np.flatnonzero(table["image_id"] == repeated)
        raise repeated_names(inventory, *[Path(str(files[int(row)])) for row in same[:2]])
    loose = len(inventory.images) - len(table)
    notes = [f"{loose:,} images that lie in no class folder are not used"] if loose else []
    if all(map(_NO_CLASS.fullmatch, classes)):
        notes.append(
            f"folders are read as classes that may be named after what they store: {join_some(sorted(classes))}"
        )
    if parts := sorted({it.below[0] for it in folders if it.below and it.below[0] != it.patient}):
        notes.append(f"the folders in the class folders are read as parts of a class: {join_some(parts)}")
    sheets = [path for path in inventory.others if path.suffix.lower() in SHEETS]
    if unread := [inventory.name(path) for path in (*sheets, *inventory.parquet, *inventory.arrays)]:
        notes.append(f"files that are no text tables are not read: {join_some(unread)}")
    if found.lists:
        lists = join_some([inventory.name(path) for path in found.lists])
        notes.append(f"lists of images without classes are not read: {lists}")
    return Raw(NAME, "the data folder", table, files, places, columns=columns, notes=notes)


def _refuse_unread(inventory: Inventory, levels: _Levels) -> None:
    """Raise if images were not listed, since without a table nothing else would reveal it."""
    if inventory.closed:
        raise explain_closed(inventory, "images below it would be missing")
    if inventory.broken:
        raise explain_broken(inventory)
    if unread := _unread(inventory, levels):
        raise _explain_unread(inventory, unread)


def _unread(inventory: Inventory, levels: _Levels) -> list[Path]:
    """Return files that are images of another format, or seem to be, since they are in a class folder."""
    return [path for path in inventory.others if _may_be_image(path, inventory, levels)]


def _may_be_image(path: Path, inventory: Inventory, levels: _Levels) -> bool:
    stem, suffix = split_suffix(path.name.rstrip("~").lower())
    if suffix in UNSUPPORTED:
        return True
    if suffix in _NO_IMAGE or (not suffix and _DOCUMENT.fullmatch(stem)):
        return False
    return levels.place(_folder_of(inventory.name(path))) is not None


def refuse_only_unread(inventory: Inventory) -> None:
    """Raise if most of what seems to be images is not read, in a folder of which no layout was recognised."""
    unread = _unread(inventory, _split_and_class(inventory)[0])
    if len(unread) > len(inventory.images):
        raise _explain_unread(inventory, unread)


def _explain_unread(inventory: Inventory, unread: Sequence[Path]) -> UserError:
    counts = Counter(split_suffix(path.name)[1] for path in unread)
    numbers = [f"{count:,} {suffix or 'without a suffix'}" for suffix, count in counts.most_common()]
    suffix, count = counts.most_common(1)[0]
    example = next(path for path in unread if split_suffix(path.name)[1] == suffix)
    return UserError(
        f"files that may be images are not read, such as {inventory.name(example)} ({join_some(numbers)})",
        "save the images as PNG or JPEG, with the suffix .png or .jpg, and move the others out of the data folder",
        "images.unsupported_suffix",
        suffix=suffix,
        count=count,
    )


def _refuse_masks(folders: Iterable[_Folder]) -> None:
    """Raise if a folder in a class folder has the name of masks or thumbnails, which would be images of the class."""
    masks: Counter[str] = Counter()
    for deepest in folders:
        path = PurePosixPath(deepest.path)
        for folder in (path, *path.parents)[: len(deepest.below)]:
            if _MASKS.fullmatch(folder.name):
                masks[str(folder)] += deepest.images
    if masks:
        name, count = masks.most_common(1)[0]
        raise UserError(
            f"the folder {name} has {count:,} files that seem to be masks or thumbnails, not images of a class",
            "move the folders with such files out of the data folder, or rename them if they hold images",
            "folders.masks",
            folder=name,
            count=count,
        )


def _refuse_empty(inventory: Inventory, levels: _Levels, classes: set[str]) -> None:
    """Raise if a folder beside the class folders is empty, since its class would be missing."""
    places = [levels.place(inventory.name(path)) for path in inventory.empty if path != str(inventory.folder)]
    names = {place.dx for place in places if place is not None} - classes
    empty = sorted(name for name in names if not split_of(name) and name not in _stores(classes | {name}))
    if empty:
        raise UserError(
            f"class folders have no image ({join_some(empty)})",
            f"add images of the class, or remove {empty[0]} if it is no class",
            "folders.empty_class",
            folders=empty[:20],
        )


def _refuse_copy(folders: Sequence[_Folder]) -> None:
    """Raise if a class folder holds folders of other classes only: an archive was unpacked into itself, or copied."""
    inside: dict[str, set[str]] = {}
    for folder in folders:
        if folder.below:
            inside.setdefault(folder.dx, set()).add(folder.below[0])
    classes = {folder.dx for folder in folders}
    for dx, names in sorted(inside.items()):
        if len(names) > 1 and names <= classes - {dx}:
            raise UserError(
                f"the folder {dx} would be a class, but its folders have the names of classes beside it "
                f"({join_some(sorted(names))}): it may be a copy of the data",
                f"move {dx} out of the data folder, or rename the folders in it to part_1, part_2, … if it is a class",
                "folders.copy",
                folder=dx,
                below=sorted(names)[:20],
            )


def _refuse_ids(folders: Sequence[_Folder]) -> None:
    """Raise if class folders seem to be patients or images: many with numbers for names and few images each."""
    names = sorted({folder.dx for folder in folders})
    prefixes = {match and match["of"] for match in map(_ID.fullmatch, names)}
    mean = sum(folder.images for folder in folders) / len(names)
    if len(names) >= MIN_IDS and len(prefixes) == 1 and None not in prefixes and mean < MAX_IMAGES_OF_ID:
        raise UserError(
            f"the {len(names)} folders {join_some(names)} would be classes, but have numbers for names and {mean:.1f} "
            "images each: they may be patients or images",
            "add a CSV with the columns image_id, dx and, if known, patient_id, or sort the images into one folder per "
            "class, with a name that does not end in a number",
            "folders.ids",
            folders=names[:20],
        )


def _refuse_two_levels(folders: Sequence[_Folder]) -> None:
    """Raise if the folders in class folders may be the classes: `site/class` or `organ/class`."""
    above: dict[str, set[str]] = {}
    for folder in folders:
        if folder.below and not _PART.fullmatch(folder.below[0]):
            above.setdefault(folder.below[0], set()).add(folder.dx)
    names = sorted(name for name, of in above.items() if len(of) > 1)
    if _are_groups(folders, above):
        _refuse_groups(above)
    if not 1 < len(names) <= MAX_CLASSES:
        return
    classes = sorted(set().union(*(above[name] for name in names)))
    raise UserError(
        f"the folders {join_some(names)} are in several of the folders {join_some(classes)}, so either may be the "
        "classes",
        f"if {names[0]} and the others are the classes, make them the top folders, and rename those in them to part_1, "
        f"part_2, …; otherwise rename {names[0]} and the others to part_1, part_2, …",
        "folders.two_levels",
        folders=classes[:20],
        below=names[:20],
    )


def _are_groups(folders: Sequence[_Folder], above: Mapping[str, set[str]]) -> bool:
    """Return whether class folders seem to be groups of classes, such as organs: each holds other folders only.

    Args:
        folders: all.
        above: name of a folder in class folders that is no part by its name → the class folders.
    """
    held = Counter(dx for tops in above.values() for dx in tops)
    return (
        all(folder.below and held[folder.dx] > 1 for folder in folders)
        and len(above) <= MAX_CLASSES
        and max(map(len, above.values()), default=0) == 1
        and not any(map(str.isdigit, "".join(above)))  # those of patients or sites
    )


def _refuse_groups(above: Mapping[str, set[str]]) -> None:
    names, groups = sorted(above), sorted(set().union(*above.values()))
    raise UserError(
        f"the folders {join_some(groups)} have images only in their subfolders ({join_some(names)}), so either level "
        "may be the classes",
        f"if {names[0]} and the others are the classes, make them the top folders; otherwise rename them to part_1, "
        "part_2, …",
        "folders.two_levels",
        folders=groups[:20],
        below=names[:20],
    )


def _refuse_stores(classes: set[str], splits_by_word: Mapping[str, str]) -> None:
    splits = sorted(dx for dx in classes if split_of(dx) or dx in splits_by_word)
    others = sorted(set(classes) - set(splits))
    if splits and others:
        raise UserError(
            f"{join_some(others)} beside {join_some(splits)} does not have the name of a split",
            f"rename {others[0]} to train, val or test if it is that split; otherwise move it out of the data folder, "
            "or into the folder of a split if it is a class",
            "folders.not_a_split",
            folders=others,
        )
    if stores := _stores(classes):
        others = sorted(set(classes) - set(stores))
        raise UserError(
            f"the folders {join_some(others)} would be classes, but {join_some(stores)} beside them "
            "does not have the name of one",
            f"move {stores[0]} out of the data folder, or rename it if it is a class",
            "folders.not_a_class",
            folders=stores,
        )
