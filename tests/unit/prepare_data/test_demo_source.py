"""The demo set has the form of HAM10000, is the same every time, and its images of one lesion look alike."""

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


def test_table_has_the_columns_and_gaps_of_the_real_one(table: pd.DataFrame) -> None:
    assert list(table) == ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"]
    assert table["image_id"].str.fullmatch(r"DEMO_\d{7}").all()
    assert table["image_id"].is_unique
    assert table["lesion_id"].str.fullmatch(r"DEMO_L\d{6}").all()
    assert set(table["dx_type"]) == {"histo", "follow_up", "consensus", "confocal"}
    assert set(table["sex"]) == {"male", "female", "unknown"}
    assert table["age"].dropna().between(5, 85).all()
    # A few values are missing, by no means many.
    assert 0 < table["age"].isna().mean() < 0.05
    assert 0 < (table["localization"] == "unknown").mean() < 0.05
    assert not table.drop(columns="age").isna().any(axis=None)


def test_classes_are_as_imbalanced_as_announced(table: pd.DataFrame) -> None:
    counts = {"akiec": 45, "bcc": 60, "bkl": 90, "df": 28, "mel": 95, "nv": 450, "vasc": 32}
    assert table["dx"].value_counts().to_dict() == counts == demo.COUNTS


def test_every_row_has_a_picture_and_every_picture_a_row(folder: Path, table: pd.DataFrame) -> None:
    pictures = paths(folder)
    assert sorted(pictures) == sorted(table["image_id"])
    for path in pictures.values():
        with Image.open(path) as image:
            assert (image.format, image.size, image.mode) == ("JPEG", (200, 150), "RGB")
    parts = [len(list(folder.glob(f"HAM10000_images_part_{part}/*"))) for part in (1, 2)]
    assert parts == [400, 400]


def test_neither_number_nor_folder_tells_the_class(table: pd.DataFrame) -> None:
    first_half = table["image_id"].str[5:].astype(int) <= 400
    # By chance 225 of 450, with a standard deviation of 7.
    assert first_half[table["dx"] == "nv"].sum() == pytest.approx(225, abs=28)


def test_lesions_have_one_class_one_patient_and_one_to_three_images(table: pd.DataFrame) -> None:
    lesions = table.drop(columns="image_id").groupby("lesion_id")
    assert (lesions.nunique(dropna=False) == 1).all(axis=None)
    assert set(lesions.size()) == {1, 2, 3}
    assert table.groupby("dx")["lesion_id"].nunique()["df"] >= 14


def test_a_second_call_writes_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    again = demo.fetch("demo", tmp_path)
    first = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    second = {path.relative_to(again): path.read_bytes() for path in again.rglob("*") if path.is_file()}
    assert len(first) == 801
    assert first == second


def test_images_of_one_lesion_look_alike_but_differ(folder: Path, table: pd.DataFrame) -> None:
    pictures = paths(folder)
    images = [Image.open(pictures[name]).resize((16, 12), Image.Resampling.BOX) for name in table["image_id"]]
    small = np.stack([np.asarray(image, np.float32) for image in images])
    # Without the mean colour, of which the light has a part: what is left is the lesion's shape and pattern.
    flat = (small - small.mean(axis=(1, 2), keepdims=True)).reshape(len(small), -1)
    for dx in demo.COUNTS:
        rows = np.flatnonzero(table["dx"] == dx)[:120]
        distance = np.linalg.norm(flat[rows, None] - flat[rows], axis=2)
        lesion = table["lesion_id"].to_numpy()[rows]
        same = lesion[:, None] == lesion
        other_image = ~np.eye(len(rows), dtype=bool)
        assert distance[same & other_image].min() > 0, dx
        assert np.median(distance[same & other_image]) < 0.85 * np.median(distance[~same]), dx
