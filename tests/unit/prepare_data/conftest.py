"""A tiny folder in the layout of HAM10000, and fixtures that prepare it."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw

from components.prepare_data.other_data import read_other_data
from components.prepare_data.prepare import prepare
from components.shared.image_set import read_rows

COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")
LESIONS = {"df": 6, "mel": 7, "nv": 12}
SPLITS = ("train", "validation", "test")
WIDTH, HEIGHT = 40, 30
TONES = {"df": (200, 120, 100), "mel": (80, 50, 40), "nv": (150, 95, 76)}


def draw(number: int, dx: str, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Image.Image:
    """Return a blot on freckled skin that is unique to the number: RGB, `size` (width, height) pixels."""
    freckles = np.random.default_rng(number).integers(0, 60, (12, 16), np.uint8)
    skin = (
        np.array([226, 182, 168])
        - np.asarray(Image.fromarray(freckles).resize(size, Image.Resampling.BICUBIC))[..., None]
    )
    image = Image.fromarray(skin.astype(np.uint8))
    at = (4 + number % 7, 3 + number % 5)
    ImageDraw.Draw(image).ellipse((*at, at[0] + size[0] // 2, at[1] + size[1] // 2), fill=TONES[dx])
    image.putpixel((0, 0), (number % 256, number // 256, 0))
    return image


@dataclass
class RawFolder:
    """A raw folder whose rows can be changed and written again."""

    path: Path
    rows: list[dict[str, str]] = field(default_factory=list)

    @property
    def metadata(self) -> Path:
        return self.path / "HAM10000_metadata.csv"

    draw = staticmethod(draw)

    def image(self, index: int) -> Path:
        return next(self.path.rglob(f"{self.rows[index]['image_id']}.jpg"))

    def of(self, dx: str) -> list[int]:
        return [index for index, row in enumerate(self.rows) if row["dx"] == dx]

    def write(self, rows: Sequence[Mapping[str, str]] | None = None) -> "RawFolder":
        with self.metadata.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(self.rows if rows is None else rows)
        return self


def write_raw(path: Path) -> RawFolder:
    """Write 3 classes, 25 lesions, every third with two images: 40×30 px JPEGs in the folders of the Kaggle layout."""
    made = RawFolder(path)
    for part in (1, 2):
        (made.path / f"HAM10000_images_part_{part}").mkdir(parents=True)
    lesion = 0
    for dx, lesions in LESIONS.items():
        for _ in range(lesions):
            for _ in range(1 + (lesion % 3 == 0)):
                number = len(made.rows)
                name = f"ISIC_{number:07}"
                draw(number, dx).save(made.path / f"HAM10000_images_part_{1 + number % 2}" / f"{name}.jpg", quality=95)
                columns = ("histo", str(20 + number), ("male", "female")[number % 2], "back")
                values = (f"HAM_{lesion:07}", name, dx, *columns)
                made.rows.append(dict(zip(COLUMNS, values, strict=True)))
            lesion += 1
    return made.write()


@pytest.fixture
def raw(tmp_path: Path) -> RawFolder:
    """A folder that a test may change."""
    return write_raw(tmp_path / "raw")


@dataclass
class Prepared:
    """The output of `prepare` in a folder."""

    out: Path
    rare: list[str]

    def set(self, split: str) -> Path:
        folders = {"train": "training_data", "validation": "training_data", "test": "test_data", "external": "others"}
        folder = folders[split]
        return self.out / folder / f"{split}.parquet"

    @property
    def splits(self) -> Path:
        return self.out / "test_data" / "splits.csv"

    @property
    def profile(self) -> str:
        return (self.out / "profile.html").read_text(encoding="utf-8")

    def rows(self) -> pd.DataFrame:
        return pd.concat([read_rows(self.set(split), split) for split in SPLITS], ignore_index=True)

    def left_behind(self) -> list[str]:
        files = (path for path in self.out.rglob("*") if path.is_file()) if self.out.exists() else ()
        return sorted(path.relative_to(self.out).as_posix() for path in files)


def prepare_into(folder: Path, data: Path | str, **changes: object) -> Prepared:
    """Prepare a raw folder, and then an external set."""
    external = changes.pop("external", None)
    values: dict = {"image_size": 32, "rare": "auto", "max_bad_images": 0, "seed": 1}
    values |= {"split": "random", "duplicates": "refuse"}
    values |= {"training_data": folder / "training_data", "test_data": folder / "test_data"}
    values |= {"data_profile": folder / "profile.html"} | changes
    done = Prepared(folder, prepare(data=str(data), **values))
    if external:
        settings = {
            name: values[name] for name in ("training_data", "test_data", "duplicates", "max_bad_images", "seed")
        }
        settings["columns"] = values.get("columns", "auto")
        read_other_data("gan", count=1, external=external, out=folder / "others", **settings)
    return done


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Prepared]:
    """`prepare_into`; `out` names the folder of the results."""
    return lambda data, out="out", **changes: prepare_into(tmp_path / out, data, **changes)
