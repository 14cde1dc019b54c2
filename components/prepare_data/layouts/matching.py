"""Find the image file of each row, and explain once why many have none."""

import filecmp
import os
import re
import unicodedata
from collections import Counter
from pathlib import Path, PurePosixPath
from shlex import quote

from components.prepare_data.image_reader import SUFFIXES
from components.prepare_data.layouts.inventory import Inventory, base_name, split_suffix, strip_suffixes
from components.prepare_data.layouts.tables import join_some
from components.prepare_data.texts import Positions
from components.shared.errors import UserError, printable


def _fold(name: str) -> str:
    """Return a name in lower case, with one form of accents: macOS writes a letter and an accent."""
    return unicodedata.normalize("NFC", name).lower()


def _folded_name(path: str) -> str:
    """Return the name of an image without suffixes, in the form in which names are compared."""
    return _fold(strip_suffixes(base_name(path)))


def _folders(path: str) -> tuple[str, ...]:
    """Return the folders of a path, in the form in which they are compared."""
    return tuple(
        _fold(part)
        for part in PurePosixPath(path).parts[:-1]
        if part not in ("/", "//", "..") and not part.endswith(":")
    )


MAX_MISSING = 0.05
"""Share of the rows above which no hint suggests to skip those without an image."""
_NUMBER = re.compile(r"0*(\d+?)(?:\.0+)?")
"""A whole number, without zeros before it and decimals."""
CROWDED = 16
"""More images of one name, as in `1/image.jpg`, `2/image.jpg`, …, are sorted by their folders instead of compared."""


class _ByFolders:
    """Images of one name, by their folders: a comparison of each row with each image would be quadratic."""

    def __init__(self, folders_of: dict[int, tuple[str, ...]]) -> None:
        """Sort images, given position → folders."""
        self._exactly: dict[tuple[str, ...], list[int]] = {}
        self._ending: dict[tuple[str, ...], list[int]] = {}
        for image, folders in folders_of.items():
            self._exactly.setdefault(folders, []).append(image)
            for start in range(len(folders) + 1):
                self._ending.setdefault(folders[start:], []).append(image)

    def find(self, folders: tuple[str, ...]) -> list[int]:
        """Return the positions of the images that `_agree` is true for, sorted."""
        shorter = [image for start in range(len(folders)) for image in self._exactly.get(folders[start + 1 :], ())]
        return sorted(self._ending.get(folders, []) + shorter)


def _agree(first: tuple[str, ...], second: tuple[str, ...]) -> bool:
    """Return whether two paths have the same last folders, as far as both have some."""
    length = min(len(first), len(second))
    return first[len(first) - length :] == second[len(second) - length :]


def _likeness(whole: str, name: str, path: str) -> int:
    """Return how well a path has a name: with its suffix, with it in other case, without it, or in other case only."""
    found = base_name(path)
    return 3 if found == whole else 2 if _fold(found) == _fold(whole) else int(strip_suffixes(found) == name)


class ImageIndex:
    """The images of a folder, by name; they must be sorted."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._images = images = inventory.images
        self._by_folded = Positions(map(_folded_name, images), lambda image: _folded_name(images[image]))
        self._crowded: dict[str, _ByFolders] = {}

    def find(self, value: str, near: Path) -> str | None:
        """Return the path of the image that `locate` returns the position of; None if there is none."""
        image = self.locate(value, near)
        return self._images[image] if image >= 0 else None

    def locate(self, value: str, near: Path) -> int:
        """Return the position of the image that a value of a table means: an id, a file name, or a path; else −1.

        The path of the image below the folder must end with that of the value, or the value with it: a row of
        `nv/1.jpg` never has the image `mel/1.jpg`.

        Args:
            value: the value.
            near: the folder of the table, which paths may be relative to.

        Raises:
            UserError: `images.repeated_id`: several different images have the name.
        """
        value = value.replace("\\", "/")
        name = strip_suffixes(base_name(value.rstrip("/")))
        alike = self._find_alike(_fold(name), value)
        if len(alike) < 2:
            return alike[0] if alike else -1
        paths = {image: self._images[image] for image in alike}
        whole = base_name(value.rstrip("/"))
        best = max(_likeness(whole, name, path) for path in paths.values())
        named = {image: path for image, path in paths.items() if _likeness(whole, name, path) == best}
        return self._choose(value, named, near)

    def _find_alike(self, name: str, value: str) -> list[int]:
        """Return the images of a folded name whose folders agree with those of a value, if it has some."""
        if name in self._crowded and "/" in value:
            return self._crowded[name].find(_folders(os.path.normpath(value)))
        alike = list(self._by_folded.find(name))
        if "/" not in value:
            return alike
        folders = _folders(os.path.normpath(value))
        if len(alike) <= CROWDED:
            return [image for image in alike if _agree(self._folders_of(image), folders)]
        self._crowded[name] = _ByFolders({image: self._folders_of(image) for image in alike})
        return self._crowded[name].find(folders)

    def _folders_of(self, image: int) -> tuple[str, ...]:
        return _folders(os.path.relpath(self._images[image], self._inventory.folder))

    def _choose(self, value: str, paths: dict[int, str], near: Path) -> int:
        """Return the position of the path that a value names exactly, or of the first of equal files.

        Args:
            value: the value.
            paths: position → path of some images.
            near: the folder of the table.
        """
        named = {os.path.normpath(near / value), os.path.normpath(self._inventory.folder / value)}
        for image, path in paths.items():
            normal = os.path.normpath(path)  # those of the folder `.` begin with `./`
            if normal in named or ("/" in value and strip_suffixes(normal) in named):
                return image
        if "/" in value:
            tail = f"/{strip_suffixes(value).lstrip('./')}"
            paths = {image: path for image, path in paths.items() if strip_suffixes(path).endswith(tail)} or paths
        (image, first), *others = paths.items()
        if self._inventory.compare:
            other = next((path for _, path in others if not filecmp.cmp(first, path, shallow=False)), None)
            if other is not None:
                raise repeated_names(self._inventory, Path(first), Path(other))
        return image


def repeated_names(inventory: Inventory, first: Path, second: Path) -> UserError:
    """Return the error for two different images of one name; two folders or suffixes of many are named once."""
    names = f"{inventory.name(first)} and {inventory.name(second)}"
    if first.parent == second.parent:
        stems = {
            suffix: {p.stem for p in map(Path, inventory.images) if p.suffix == suffix}
            for suffix in (first.suffix, second.suffix)
        }
        common = len(stems[first.suffix] & stems[second.suffix])
        return UserError(
            f"{common:,} image{'s' * (common > 1)} exist with the suffixes {first.suffix} and {second.suffix}, such as "
            f"{names}",
            "move the files that are not meant, such as masks, out of the data folder",
            "images.repeated_id",
            suffixes=[first.suffix, second.suffix],
            count=common,
        )
    folders = sorted({first.parent, second.parent})
    images = [(Path(path).parent, strip_suffixes(base_name(path))) for path in inventory.images]
    held = [{name for parent, name in images if parent == folder} for folder in folders]
    common, surplus = len(held[0] & held[1]), folders[0 if len(held[0]) < len(held[1]) else 1]
    masks = [folder for folder in folders if "mask" in folder.name.lower() or "seg" in folder.name.lower()]
    return UserError(
        f"{common:,} image{'s' * (common > 1)} of the folders {inventory.name(folders[0])} and "
        f"{inventory.name(folders[1])} have the same id, but different content, such as {names}",
        f"move the folder that is not meant, such as {inventory.name((masks or [surplus])[0])}, out of the data folder"
        f"; if both are meant, use paths such as {inventory.name(first)} as ids",
        "images.repeated_id",
        folders=[inventory.name(folder) for folder in folders],
        count=common,
    )


def _same_number(inventory: Inventory, value: str) -> str | None:
    """Return an image whose name is the same number as an id: `00012` for `12` and `12.0`; None if there is none."""
    number = _NUMBER.fullmatch(strip_suffixes(base_name(value)))
    if number is None:
        return None
    names = ((path, _NUMBER.fullmatch(strip_suffixes(base_name(path)))) for path in inventory.images)
    return next((path for path, found in names if found is not None and found[1] == number[1]), None)


def explain_missing(inventory: Inventory, missing: list[str], rows: int, name: str) -> UserError:
    """Return the cause for which rows lack an image, with the fix.

    Args:
        inventory: the files of the folder.
        missing: the ids without an image, at least one.
        rows: number of all rows.
        name: of the metadata file.
    """
    count, first = len(missing), printable(missing[0][:80])
    if inventory.archives:
        archive = inventory.archives[0]
        names = join_some([inventory.name(path) for path in inventory.archives])
        return UserError(
            f"{count:,} images have no file: they may be in {names}, which is packed",
            f"unpack it into the folder (`{_unpack(archive)}`)",
            "images.packed",
            archives=[inventory.name(path) for path in inventory.archives][:10],
            count=count,
        )
    if inventory.closed:
        return explain_closed(inventory, f"{count:,} images have no file")
    if inventory.broken:
        return explain_broken(inventory)
    ids = {strip_suffixes(PurePosixPath(value).name).lower() for value in missing}
    others = map(split_suffix, (path.name for path in inventory.others))
    suffixes = Counter(suffix for stem, suffix in others if stem.lower() in ids)
    if suffixes:
        suffix, number = suffixes.most_common(1)[0]
        return UserError(
            f"{number:,} of {count:,} missing images are files with the suffix {suffix or 'none'}, which is not read",
            f"convert them to PNG or JPEG; the suffixes that are read are {', '.join(SUFFIXES)}",
            "images.unsupported_suffix",
            suffix=suffix,
            count=number,
        )
    if (alike := _same_number(inventory, missing[0])) is not None:
        return UserError(
            f"{count:,} of {rows:,} images have no file, such as {first}, but there is {inventory.name(alike)}: a "
            "program has read the ids as numbers",
            "write the ids as the files are named, and export them as text",
            "images.changed_numbers",
            id=first,
            file=inventory.name(alike),
            count=count,
        )
    if count < rows:
        few = count <= MAX_MISSING * rows
        return UserError(
            f"{count:,} of {rows:,} rows of {name} have no image file, such as {first}",
            "add the missing images, or remove the rows" + ", or raise max_bad_images" * few,
            "images.missing",
            id=first,
            count=count,
            rows=rows,
        )
    if not inventory.images:
        return UserError(
            f"the folder has no image, but its metadata lists {count:,}, such as {first}",
            f"put the images below the folder; the suffixes that are read are {', '.join(SUFFIXES)}",
            "images.none",
            count=count,
        )
    example = inventory.name(inventory.images[0])
    return UserError(
        f"no image file has the name of any of the {count:,} ids, such as {first}; there are files such as {example}",
        "use the names of the files, without suffix, as ids, or name the column that holds them: "
        "data_columns=image_id:COLUMN",
        "images.other_names",
        id=first,
        file=example,
        count=count,
    )


def explain_closed(inventory: Inventory, effect: str) -> UserError:
    """Return the error for a folder that was not entered.

    Args:
        inventory: the files, with at least one such folder.
        effect: what follows from it, as the beginning of the message.
    """
    folder = inventory.closed[0]
    name = inventory.name(folder)
    if folder.is_symlink():
        copy = f"rm {quote(name)} && cp -r {quote(printable(str(folder.resolve())))} {quote(name)}"
        return UserError(
            f"{effect}: {name} is a link to another folder, and links are not followed",
            f"replace the link by a copy (`{copy}` in the data folder), or by hard links with `cp -rl`",
            "images.linked_folder",
            folder=name,
        )
    return UserError(
        f"{effect}: the folder {name} cannot be read",
        f"grant the permission (`chmod u+rx {quote(name)}`)",
        "images.closed_folder",
        folder=name,
    )


def explain_broken(inventory: Inventory) -> UserError:
    """Return the error for images that are links to nothing."""
    link, count = inventory.broken[0], len(inventory.broken)
    return UserError(
        f"{count:,} images are links to files that do not exist, such as {inventory.name(link)} to "
        f"{printable(str(Path(link).readlink()))[:200]}",
        "copy the files instead of the links (`cp -rL`), or get them with the program that made the links, such as "
        "`git annex get .`",
        "images.broken_links",
        link=inventory.name(link),
        count=count,
    )


def _unpack(archive: Path) -> str:
    name = quote(archive.name)
    return f"unzip {name}" if archive.suffix.lower() == ".zip" else f"tar -xf {name}"
