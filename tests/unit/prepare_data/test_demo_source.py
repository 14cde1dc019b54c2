"""The demo set has the layout of HAM10000, is reproducible, and its images of one lesion are similar."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.prepare_data.sources import demo


@pytest.fixture(scope="module")
def folder(demo_folder: Path) -> Path:
    return demo_folder


@pytest.fixture(scope="module")
def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "HAM10000_metadata.csv")


def paths(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in folder.glob("HAM10000_images_part_*/*.jpg")}


def test_demo_table_has_the_columns_and_missing_values_of_ham10000(table: pd.DataFrame) -> None:
    assert list(table) == ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"]
    assert table["image_id"].str.fullmatch(r"DEMO_\d{7}").all()
    assert table["image_id"].is_unique
    assert table["lesion_id"].str.fullmatch(r"DEMO_L\d{6}").all()
    assert set(table["dx_type"]) == {"histo", "follow_up", "consensus", "confocal"}
    assert set(table["sex"]) == {"male", "female", "unknown"}
    assert table["age"].dropna().between(5, 85).all()
    # A few values are missing, as in HAM10000.
    assert 0 < table["age"].isna().mean() < 0.05
    assert 0 < (table["localization"] == "unknown").mean() < 0.05
    assert not table.drop(columns="age").isna().any(axis=None)


def test_demo_class_counts_are_imbalanced(table: pd.DataFrame) -> None:
    assert table["dx"].value_counts().to_dict() == demo.COUNTS
    assert demo.COUNTS["nv"] / demo.COUNTS["df"] > 10


def test_demo_rows_and_image_files_match(folder: Path, table: pd.DataFrame) -> None:
    files = paths(folder)
    assert sorted(files) == sorted(table["image_id"])
    for path in files.values():
        with Image.open(path) as image:
            assert (image.format, image.size, image.mode) == ("JPEG", (200, 150), "RGB")
    parts = [len(list(folder.glob(f"HAM10000_images_part_{part}/*"))) for part in (1, 2)]
    assert parts == [len(table) // 2, len(table) // 2]


def test_demo_numbers_are_independent_of_the_class(table: pd.DataFrame) -> None:
    first_half = table["image_id"].str[5:].astype(int) <= len(table) // 2
    # Hypergeometric: 300 of 600 expected, with a standard deviation of 8; the bound is four of them.
    assert first_half[table["dx"] == "nv"].sum() == pytest.approx(300, abs=32)


def test_demo_lesions_have_one_class_one_patient_and_one_to_three_images(table: pd.DataFrame) -> None:
    lesions = table.drop(columns="image_id").groupby("lesion_id")
    assert (lesions.nunique(dropna=False) == 1).all(axis=None)
    assert set(lesions.size()) == {1, 2, 3}
    assert table.groupby("dx")["lesion_id"].nunique()["df"] >= 14


def test_demo_is_reproducible(folder: Path, tmp_path: Path) -> None:
    again = demo.fetch("demo", tmp_path)
    first = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    second = {path.relative_to(again): path.read_bytes() for path in again.rglob("*") if path.is_file()}
    assert len(first) == 1 + sum(demo.COUNTS.values())
    assert first == second


def test_demo_images_of_one_lesion_are_similar_but_differ(folder: Path, table: pd.DataFrame) -> None:
    files = paths(folder)
    images = [Image.open(files[name]).resize((16, 12), Image.Resampling.BOX) for name in table["image_id"]]
    small = np.stack([np.asarray(image, np.float32) for image in images])
    # Without the mean colour, which depends on the lighting; the lesion's shape and pattern remain.
    flat = (small - small.mean(axis=(1, 2), keepdims=True)).reshape(len(small), -1)
    for dx in demo.COUNTS:
        rows = np.flatnonzero(table["dx"] == dx)[:120]
        distance = np.linalg.norm(flat[rows, None] - flat[rows], axis=2)
        lesion = table["lesion_id"].to_numpy()[rows]
        same = lesion[:, None] == lesion
        other_image = ~np.eye(len(rows), dtype=bool)
        assert distance[same & other_image].min() > 0, dx
        assert np.median(distance[same & other_image]) < 0.85 * np.median(distance[~same]), dx
