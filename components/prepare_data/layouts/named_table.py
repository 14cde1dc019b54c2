"""Any table: its columns are named in `data_columns`, or have names that are common for images and classes."""

from pathlib import Path

from components.prepare_data.layouts.columns import (
    CLASS_COLUMNS,
    IMAGE_COLUMNS,
    join_splits,
    match_columns,
    read_columns,
)
from components.prepare_data.layouts.dataset import Found, Raw
from components.prepare_data.layouts.inventory import Inventory
from components.prepare_data.layouts.one_hot import ONE_HOT, find_classes
from components.prepare_data.layouts.tables import normalise

NAME = "table"


def recognise(inventory: Inventory, named: dict[str, str]) -> list[Found]:
    """Recognise tables with the named columns, or with exactly one column that is common for image and class.

    A table with one column per class is recognised if no other has a column of classes.
    """
    found = []
    for path, header in inventory.headers.items():
        names = [normalise(column) for column in header]
        images = [name for name in IMAGE_COLUMNS if name in names]
        classes = [name for name in CLASS_COLUMNS if name in names]
        aliases = {"image_id": images if len(images) == 1 else (), "dx": classes if len(classes) == 1 else ()}
        columns = match_columns(header, aliases, named)
        found += [Found(NAME, (path,), columns, frozenset(named))] if columns else []
    return join_splits(inventory, found or _recognise_one_hot(inventory, named))


def _recognise_one_hot(inventory: Inventory, named: dict[str, str]) -> list[Found]:
    """Recognise tables with one column that is common for images, and one column per class."""
    found = []
    for path, header in inventory.headers.items():
        names = set(map(normalise, header))
        images = [name for name in IMAGE_COLUMNS if name in names]
        if "dx" in named or (images and names & set(CLASS_COLUMNS)):
            return []
        aliases = {"image_id": images if len(images) == 1 else (), "dx": [normalise(ONE_HOT)]}
        columns = match_columns([*header, ONE_HOT], aliases, named)
        if columns and find_classes(path, columns.values()):
            found.append(Found(NAME, (path,), columns, frozenset(named)))
    return found


def read(inventory: Inventory, found: Found, scratch: Path) -> Raw:
    """Read the table."""
    return read_columns(inventory, found)
