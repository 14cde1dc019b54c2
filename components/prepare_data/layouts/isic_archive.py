"""Export of the ISIC archive: `metadata.csv` with isic_id and diagnoses from coarse (diagnosis_1) to fine."""

from pathlib import Path

from components.prepare_data.layouts.checks import MISSING_CLASSES
from components.prepare_data.layouts.columns import CLASS_COLUMNS, match_columns, read_columns
from components.prepare_data.layouts.dataset import Found, Raw
from components.prepare_data.layouts.inventory import Inventory
from components.prepare_data.layouts.tables import normalise, read_table

NAME = "ISIC archive"
DIAGNOSES = ("diagnosis_5", "diagnosis_4", "diagnosis_3", "diagnosis_2", "diagnosis_1", "diagnosis", "benign_malignant")


def recognise(inventory: Inventory, named: dict[str, str]) -> list[Found]:
    """Recognise tables with isic_id; the class is the finest diagnosis that every row has."""
    found = []
    for path, header in inventory.headers.items():
        names = [normalise(column) for column in header]
        if "isic_id" in names and ("dx" in named or set(names) & set(DIAGNOSES)):
            dx = () if "dx" in named else _complete_diagnoses(path)
            columns = match_columns(header, {"image_id": ("isic_id",), "dx": dx}, named)
            found += [Found(NAME, (path,), columns, frozenset(named))] if columns else []
    return found


def _complete_diagnoses(path: Path) -> list[str]:
    """Return the diagnosis columns with at least two classes and no missing value, the finest first."""
    table = read_table(path)
    names = [normalise(column) for column in table.header]
    columns = {name: table.columns[names.index(name)] for name in DIAGNOSES if name in names}
    values = {name: {value.lower() for value in column} for name, column in columns.items()}
    return [name for name, found in values.items() if not found & MISSING_CLASSES and len(found) > 1] or list(values)[
        -1:
    ]


def read(inventory: Inventory, found: Found, scratch: Path) -> Raw:
    """Read the table."""
    return read_columns(inventory, found, (*DIAGNOSES, *CLASS_COLUMNS))
