"""List the files of a raw folder, which is untrusted: circular links, folders a thousand levels deep, pipes."""

import contextlib
import os
from pathlib import Path
from typing import NamedTuple


class Tree(NamedTuple):
    """The contents of a folder.

    Attributes:
        files: regular files at any depth, and links to them, sorted; hidden files and macOS's `__MACOSX` are skipped.
        closed: folders that were not entered: links, which may lead anywhere, and folders without read permission.
    """

    files: list[Path]
    closed: list[Path]


def scan(folder: Path) -> Tree:
    """List a folder without recursion and without opening a file.

    Raises:
        OSError: the folder itself cannot be read.
    """
    tree, waiting = Tree([], []), [folder]
    while waiting:
        at = waiting.pop()
        try:
            entries = list(os.scandir(at))
        except PermissionError:  # such as a volume's lost+found
            if at == folder:
                raise
            tree.closed.append(at)
            continue
        for entry in entries:
            path = at / entry.name
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            with contextlib.suppress(PermissionError):  # a link into a folder without read permission
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(path)
                elif path.is_file() if entry.is_symlink() else entry.is_file():  # the former handles loops
                    tree.files.append(path)
                elif entry.is_symlink() and path.is_dir():
                    tree.closed.append(path)
    return Tree(sorted(tree.files, key=os.fspath), sorted(tree.closed))
