"""Small generated raw folders in other layouts than HAM10000's."""

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")
COUNTS = {"nv": 12, "mel": 6, "bcc": 5}


def pattern_image(seed: int, width: int = 48, height: int = 36) -> Image.Image:
    """Return a smooth random pattern, (width, height) pixels, that differs for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def rows(counts: Mapping[str, int] = COUNTS) -> list[list[str]]:
    """Return rows of one lesion and one image each, with HAM10000's columns."""
    classes = [dx for dx, count in counts.items() for _ in range(count)]
    return [
        [f"HAM_{n:07}", f"ISIC_{24306 + n:07}", dx, "histo", "50.0", "male", "back"] for n, dx in enumerate(classes)
    ]


def write_table(
    path: Path,
    lines: Sequence[Sequence[object]],
    columns: Sequence[str] = COLUMNS,
    encoding: str = "utf-8",
    **dialect: object,
) -> Path:
    """Write a table with these columns; `dialect` is for `csv.writer`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.writer(file, **{"lineterminator": "\n", **dialect})  # type: ignore[arg-type]
        writer.writerows([columns, *lines])
    return path


def write_images(
    folder: Path,
    lines: Sequence[Sequence[str]],
    name: Callable[[Sequence[str]], str] = lambda row: f"{row[1]}.jpg",
    form: str | None = None,
) -> None:
    """Save one image per row."""
    for seed, row in enumerate(lines):
        path = folder / name(row)
        path.parent.mkdir(parents=True, exist_ok=True)
        pattern_image(seed).save(path, form)
