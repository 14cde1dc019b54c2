"""Hugging Face `imagefolder`: a table with file_name and a class beside the images, or one in each split's folder."""

from pathlib import Path

from components.prepare_data.layouts.columns import read_columns, recognise_tables
from components.prepare_data.layouts.dataset import Found, Raw
from components.prepare_data.layouts.inventory import Inventory
from components.prepare_data.layouts.named_table import CLASS_COLUMNS

NAME = "Hugging Face imagefolder"
COLUMNS = {"image_id": ("file_name", "image_file_name"), "dx": CLASS_COLUMNS}


def recognise(inventory: Inventory, named: dict[str, str]) -> list[Found]:
    """Recognise tables with file_name and a column that is usually the class."""
    return recognise_tables(NAME, inventory, COLUMNS, named)


def read(inventory: Inventory, found: Found, scratch: Path) -> Raw:
    """Read the tables; paths are relative to the folder of their table."""
    return read_columns(inventory, found, scratch)
