"""Hugging Face `imagefolder`: a table with file_name and a class beside the images, or one in each split's folder."""

from pathlib import Path

from components.prepare_data.layouts.columns import join_splits, match_columns, read_columns, usual_classes
from components.prepare_data.layouts.dataset import Found, Raw
from components.prepare_data.layouts.inventory import Inventory

NAME = "Hugging Face imagefolder"
COLUMNS = ("file_name", "image_file_name")


def recognise(inventory: Inventory, named: dict[str, str]) -> list[Found]:
    """Recognise tables with file_name and one column that is usually the class."""
    found = []
    for path, header in inventory.headers.items():
        columns = match_columns(header, {"image_id": COLUMNS, "dx": usual_classes(header)}, named)
        found += [Found(NAME, (path,), columns, frozenset(named))] if columns else []
    return join_splits(inventory, found)


def read(inventory: Inventory, found: Found, scratch: Path) -> Raw:
    """Read the tables; paths are relative to the folder of their table."""
    return read_columns(inventory, found)
