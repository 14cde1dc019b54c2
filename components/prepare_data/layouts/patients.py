"""Read age, sex and site of new images, whose classes are not known, from the tables beside them."""

from components.prepare_data.layouts.columns import COMMON, IMAGE_COLUMNS
from components.prepare_data.layouts.inventory import Inventory
from components.prepare_data.layouts.matching import ImageIndex
from components.prepare_data.layouts.tables import normalise, read_table
from components.shared.image_set import METADATA


def find_columns(header: list[str]) -> dict[str, str]:
    """Return field → column of a table that has an image and at least one of age, sex and site; else nothing.

    Example:
        >>> find_columns(["Image", "age_approx", "benign"])
        {'image_id': 'Image', 'age': 'age_approx'}
    """
    by_name = {normalise(column): column for column in reversed(header)}
    aliases = {"image_id": IMAGE_COLUMNS} | {name: tuple(COMMON[name]) for name in METADATA}
    found = {field: [by_name[name] for name in names if name in by_name] for field, names in aliases.items()}
    columns = {field: names[0] for field, names in found.items() if names}
    return columns if "image_id" in columns and len(columns) > 1 else {}


def read_patients(inventory: Inventory) -> dict[str, dict[str, str]]:
    """Return image → its age, sex and site, as far as a table has them; of several rows, the first counts.

    Raises:
        UserError: a table is not valid, or two different images have the name that a row means.
    """
    index, patients = ImageIndex(inventory), dict[str, dict[str, str]]()
    for path, header in inventory.headers.items():
        columns = find_columns(header)
        if not columns:
            continue
        table = read_table(path)
        values = {field: table.column(column) for field, column in columns.items()}
        for row, name in enumerate(values.pop("image_id")):
            image = index.find(name, path.parent) if name else None
            if image is not None:
                patients.setdefault(image, {field: column[row] for field, column in values.items()})
    return patients
