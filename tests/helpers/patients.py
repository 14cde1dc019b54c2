"""Give the images of a set patients, whose metadata depend on the class."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from components.shared.image_set import SCHEMA, iter_tables, read_header, write_image_set

AGES = {"df": 30.0, "nv": 45.0, "vasc": 60.0}


def add_patients(source: Path, target: Path, dx_type: str | None = None) -> Path:
    """Write a copy of an image set, in which every fifth real image has no metadata.

    Args:
        source, target: paths.
        dx_type: of all images.
    """
    rng = np.random.default_rng(1)
    with write_image_set(target, read_header(source)) as out:
        for table in iter_tables(source):
            columns = {name: [] for name in ("age", "sex", "localization", "dx_type")}
            for row, dx in enumerate(table.column("dx").to_pylist()):
                known = row % 5 > 0
                columns["age"].append(AGES[dx] + int(rng.integers(-9, 9)) if known else None)
                columns["sex"].append(("female", "male")[row % 2] if known else None)
                columns["localization"].append(("back", "face")[dx == "vasc"] if known else "unknown")
                columns["dx_type"].append(dx_type)
            for name, values in columns.items():
                field = SCHEMA.field(name)
                at = table.schema.get_field_index(name)
                table = table.set_column(at, field, pa.array(values, field.type))
            out.write_table(table)
    return target
