"""The files of a raw folder, which is hostile input: links that run in circles, folders a thousand deep, pipes."""

import contextlib
import os
from pathlib import Path
from typing import NamedTuple


class Tree(NamedTuple):
    """What stands below a folder.

    Attributes:
        files: regular files at any depth, sorted; a link to one counts, a hidden file or macOS's `__MACOSX` does not.
        closed: folders that were not entered: links, which may lead anywhere, and those that this user may not read.
    """

    files: list[Path]
    closed: list[Path]


def scan(folder: Path) -> Tree:
    """Looks through a folder, without recursion and without opening a file.

    Raises:
        OSError: the folder itself can't be read.
    """
    tree, waiting = Tree([], []), [folder]
    while waiting:
        at = waiting.pop()
        try:
            entries = list(os.scandir(at))
        except PermissionError:  # the lost+found of a volume is no reason to stop
            if at == folder:
                raise
            tree.closed.append(at)
            continue
        for entry in entries:
            path = at / entry.name
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            with contextlib.suppress(PermissionError):  # a link to where this user may not look
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(path)
                elif path.is_file() if entry.is_symlink() else entry.is_file():  # the first takes a link to itself
                    tree.files.append(path)
                elif entry.is_symlink() and path.is_dir():
                    tree.closed.append(path)
    return Tree(sorted(tree.files, key=os.fspath), sorted(tree.closed))
