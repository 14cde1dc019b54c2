"""PAD-UFES-20: `metadata.csv` with img_id, which is a file name, diagnostic, patient_id and lesion_id."""

from pathlib import Path

from components.prepare_data.layouts.columns import read_columns, recognise_tables
from components.prepare_data.layouts.dataset import Found, Raw
from components.prepare_data.layouts.inventory import Inventory

NAME = "PAD-UFES-20"
COLUMNS = {"image_id": ("img_id",), "dx": ("diagnostic",)}


def recognise(inventory: Inventory, named: dict[str, str]) -> list[Found]:
    """Recognise tables with the columns img_id and diagnostic."""
    return recognise_tables(NAME, inventory, COLUMNS, named)


def read(inventory: Inventory, found: Found, scratch: Path) -> Raw:
    """Read the table; numbers of lesions are unique within a patient only."""
    raw = read_columns(inventory, found)
    if {"lesion_id", "patient_id"} <= raw.columns.keys():
        known = (raw.table["lesion_id"] != "") & (raw.table["patient_id"] != "")
        both = raw.table["patient_id"] + "_" + raw.table["lesion_id"]
        raw.table["lesion_id"] = raw.table["lesion_id"].where(~known, both)
    return raw
