"""The data profile: an overview of the data to review before training."""

import base64
from pathlib import Path

import jinja2
import pandas as pd

from components.prepare_data.decode_pool import Findings
from components.shared.errors import printable
from components.shared.image_set import Header
from components.shared.parameters import FOLD
from components.shared.records import DataSource


def render(
    data: str,
    split: str,
    table: pd.DataFrame,
    header: Header,
    rare: list[str],
    findings: Findings,
    source: DataSource,
) -> str:
    """Render the profile as one self-contained HTML page.

    Args:
        data: where the data came from.
        split: `random`, a fold, or the file that defines it.
        table: the accepted rows: lesion_id, dx, split, dx_type, age, sex, localization.
        header: the classes and the image size.
        rare: the classes that are rebalanced.
        findings: observations made while reading.
        source: how the data was read.
    """
    counts = table["dx"].value_counts()
    classes = [
        {
            "dx": dx,
            "images": int(count),
            "lesions": table.loc[table["dx"] == dx, "lesion_id"].nunique(),
            "share": count / counts.iloc[0],
            "rare": dx in rare,
            "samples": [base64.b64encode(png).decode() for png in findings.samples.get(str(dx), [])],
            "splits": {
                name: (len(lesions), lesions.nunique())
                for name in ("train", "validation", "test")
                for lesions in [table.loc[(table["dx"] == dx) & (table["split"] == name), "lesion_id"]]
            },
        }
        for dx, count in counts.items()
    ]
    columns = []
    for column in ("dx_type", "sex", "localization"):
        values = table[column].dropna().astype(str)
        common = values.value_counts().head(6)
        shown = ", ".join(f"{printable(str(v))[:40]} {n:,}" for v, n in common.items())
        columns.append((column, len(table) - len(values), shown or "–"))
    ages = table["age"].dropna()
    summary = f"median {ages.median():.0f}, {ages.min():.0f} to {ages.max():.0f} years" if len(ages) else "–"
    columns.append(("age", len(table) - len(ages), summary))
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True)
    return environment.get_template("profile.html.j2").render(
        data=data,
        split=split,
        fold=FOLD.fullmatch(split),
        images=len(table),
        lesions=table["lesion_id"].nunique(),
        ratio=counts.iloc[0] / counts.iloc[-1],
        header=header,
        classes=classes,
        columns=columns,
        findings=findings,
        sizes=findings.sizes.most_common(5),
        different_sizes=len(findings.sizes),
        source=source,
        unit=source.unit,
    )
