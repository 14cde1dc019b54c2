"""Age, sex and site of new images, from tables as people write them."""

from pathlib import Path

import pytest

from components.prepare_data.layouts.inventory import take_inventory
from components.prepare_data.layouts.patients import find_columns, read_patients
from tests.helpers.errors import raises_user_error


def write(folder: Path, images: list[str], **tables: str) -> Path:
    """Write files that have the names of images, and tables."""
    for number, name in enumerate(images):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"\x89PNG\r\n\x1a\n%d" % number)
    for name, text in tables.items():
        (folder / f"{name}.csv").write_text(text, encoding="utf-8")
    return folder


def read(folder: Path) -> dict[str, dict[str, str]]:
    return {
        str(Path(path).relative_to(folder)): values for path, values in read_patients(take_inventory(folder)).items()
    }


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        (
            ["isic_id", "age_approx", "sex", "anatom_site_general"],
            {"image_id": "isic_id", "age": "age_approx", "sex": "sex", "localization": "anatom_site_general"},
        ),
        (["File Name", "Gender"], {"image_id": "File Name", "sex": "Gender"}),
        (["image_id", "dx", "dx_type"], {}),
        (["age", "sex"], {}),
        ([], {}),
    ],
)
def test_find_columns_needs_an_image_and_metadata(header: list[str], columns: dict[str, str]) -> None:
    assert find_columns(header) == columns


def test_read_patients_joins_tables_and_takes_the_first_of_several_rows(tmp_path: Path) -> None:
    write(
        tmp_path,
        ["a.png", "b/c.png", "d.png"],
        one="image,age,dx_type\na,40,histo\nA.PNG,99,histo\nmissing,1,x\n,2,x\n",
        two="file_name;sex;site\nb/c.png;male;back\na.png;female;face\n",
        other="image,label\na,mel\n",
    )
    assert read(tmp_path) == {"a.png": {"age": "40"}, "b/c.png": {"sex": "male", "localization": "back"}}


def test_read_patients_refuses_a_row_that_means_two_images(tmp_path: Path) -> None:
    write(tmp_path, ["x/a.png", "y/a.png"], table="image,age\na,40\n")
    with raises_user_error("images.repeated_id"):
        read(tmp_path)


def test_read_patients_of_a_broken_table_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, ["a.png"], table="image,age\na,40,50\n")
    with raises_user_error("metadata.invalid_csv"):
        read(tmp_path)
