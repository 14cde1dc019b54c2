"""List the files of a raw folder, which is untrusted: circular links, folders a thousand levels deep, pipes."""

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

from components.prepare_data.texts import Texts

SKIPPED = frozenset(("__macosx", "@eadir", "$recycle.bin", "lost+found", "system volume information"))
"""Folders, in lower case, of systems and network drives: they hold thumbnails and deleted files."""


class Tree(NamedTuple):
    """The contents of a folder.

    Attributes:
        files: paths of regular files at any depth, and of links to them, sorted; hidden files and `SKIPPED` are
            not listed.
        closed: folders that were not entered: links, which may lead anywhere, and folders without read permission.
        broken: links to nothing, sorted.
        empty: folders without any of these at any depth, sorted.
    """

    files: Texts
    closed: list[Path]
    broken: list[str]
    empty: list[str]


def scan(folder: Path) -> Tree:
    """List a folder without recursion and without opening a file.

    Raises:
        OSError: the folder itself cannot be read.
    """
    tree, waiting = Tree(Texts(), [], [], []), [str(folder)]
    bare: dict[str, int] = {}  # a folder that holds nothing but folders → their number
    while waiting:
        at = waiting.pop()
        left, listed = len(waiting), _count(tree)
        try:
            with os.scandir(at) as entries:
                for entry in entries:
                    if not entry.name.startswith(".") and entry.name.lower() not in SKIPPED:
                        with contextlib.suppress(PermissionError):  # a link into a folder without read permission
                            _add(entry, tree, waiting)
        except PermissionError:  # another user's folder
            if at == str(folder):
                raise
            tree.closed.append(Path(at))
        if _count(tree) == listed:
            bare[at] = len(waiting) - left
    for at in reversed(bare):  # a folder is after the one that it is in
        if bare[at] == 0:
            tree.empty.append(at)
            if (above := at.rpartition("/")[0]) in bare:
                bare[above] -= 1
    return Tree(tree.files.sort(), sorted(tree.closed), sorted(tree.broken), sorted(tree.empty))


def _count(tree: Tree) -> int:
    """Return how much was listed."""
    return len(tree.files) + len(tree.closed) + len(tree.broken)


def _add(entry: os.DirEntry[str], tree: Tree, waiting: list[str]) -> None:
    """Add an entry of a folder to the tree, or to the folders that wait to be listed."""
    if entry.is_dir(follow_symlinks=False):
        waiting.append(entry.path)
    elif Path(entry.path).is_file() if entry.is_symlink() else entry.is_file():  # the former handles loops
        tree.files.append(entry.path)
    elif entry.is_symlink() and Path(entry.path).is_dir():
        tree.closed.append(Path(entry.path))
    elif entry.is_symlink() and not Path(entry.path).exists():
        tree.broken.append(entry.path)
