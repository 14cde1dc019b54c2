"""HAM10000: one CSV with image_id, dx and lesion_id, from Kaggle, the Harvard Dataverse, or written by the user."""

from pathlib import Path

from components.prepare_data.layouts.columns import read_columns, recognise_tables
from components.prepare_data.layouts.dataset import Found, Raw
from components.prepare_data.layouts.inventory import Inventory

NAME = "HAM10000"
COLUMNS = {"image_id": ("image_id",), "dx": ("dx",)}


def recognise(inventory: Inventory, named: dict[str, str]) -> list[Found]:
    """Recognise tables with the columns image_id and dx."""
    return recognise_tables(NAME, inventory, COLUMNS, named)


def read(inventory: Inventory, found: Found, scratch: Path) -> Raw:
    """Read the table."""
    return read_columns(inventory, found)
