"""Collect the synthetic images of all classes."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from components.balance_dataset.balance import balance
from components.shared.files import atomic_folder
from components.shared.image_set import encode_png, read_header, write_image_set
from tests.helpers.errors import raises_user_error


def write_class(folder: Path, dx: str, count: int, train: Path) -> Path:
    """Write the output of generate_images for one class."""
    (folder / "synthetic").mkdir(parents=True, exist_ok=True)
    rows = pd.DataFrame({"image_id": [f"{dx}-{n}" for n in range(count)], "dx": dx, "source": "dcgan"})
    with write_image_set(folder / "synthetic" / f"{dx}.parquet", read_header(train)) as out:
        out.write(rows, [encode_png(np.full((32, 32, 3), n % 256, np.uint8)) for n in range(count)])
    return folder


@pytest.fixture
def inputs(splits: dict[str, Path], tmp_path: Path) -> dict:
    for name in ("gans-1", "gans-2", "start"):
        (tmp_path / name / "models").mkdir(parents=True)
    (tmp_path / "gans-1" / "models" / "gan-df.json").write_text("{}")
    (tmp_path / "gans-2" / "models" / "gan-vasc.json").write_text("{}")
    (tmp_path / "start" / "models" / "shared.json").write_text("{}")
    (tmp_path / "start" / "start.bin").write_bytes(b"networks")
    (tmp_path / "features.keras").write_bytes(b"extractor")
    (tmp_path / "training_data").mkdir()
    (tmp_path / "training_data" / "train.parquet").write_bytes(splits["train"].read_bytes())
    train = tmp_path / "training_data" / "train.parquet"
    return {
        "training_data": tmp_path / "training_data",
        "features": tmp_path / "features.keras",
        "start": tmp_path / "start",
        "gans": [tmp_path / "gans-1", tmp_path / "gans-2"],
        "synthetic": [write_class(tmp_path / f"s-{dx}", dx, 3, train) for dx in ("df", "vasc")],
        "synthetic_images": tmp_path / "out",
    }


def test_balance_collects_models_and_images_under_their_published_names(inputs: dict):
    balance(**inputs)
    out = inputs["synthetic_images"]
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()) == [
        "models/features.keras",
        "models/gan-df.json",
        "models/gan-vasc.json",
        "models/shared.json",
        "synthetic/df.parquet",
        "synthetic/vasc.parquet",
    ]
    assert (out / "models" / "features.keras").read_bytes() == b"extractor"


def test_balance_without_any_image_is_an_error_and_writes_nothing(inputs: dict):
    with raises_user_error("balance_dataset.no_images"):
        balance(**inputs | {"synthetic": [inputs["start"]]})
    assert not inputs["synthetic_images"].exists()


def test_balance_refuses_images_of_another_training_set(inputs: dict, splits: dict[str, Path], tmp_path: Path):
    header = read_header(splits["train"])
    with atomic_folder(tmp_path / "foreign") as part:
        (part / "synthetic").mkdir()
        foreign = type(header)(header.classes, header.image_size, "train", "e" * 64, header.split_sha256)
        with write_image_set(part / "synthetic" / "df.parquet", foreign) as out:
            rows = pd.DataFrame({"image_id": ["a"], "dx": "df", "source": "dcgan"})
            out.write(rows, [encode_png(np.zeros((32, 32, 3), np.uint8))])
    with raises_user_error("image_set.mixed"):
        balance(**inputs | {"synthetic": [tmp_path / "foreign"]})
