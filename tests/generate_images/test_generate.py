import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from components.generate_images.generate import generate
from components.shared.errors import UserError
from components.shared.files import file_sha256
from components.shared.image_set import decode_png, pixel_sha256, read_header
from components.train_gan.train import train


@pytest.fixture(scope="module")
def gan(splits: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gan")
    paths = (folder / "g.keras", folder / "record", folder / "page")
    train("df", splits["train"], "dcgan", 0.03, 1, *paths, validation_set=splits["validation"])
    return folder


def test_every_row_says_where_it_comes_from(gan: Path, tmp_path: Path):
    assert generate(gan / "g.keras", gan / "record", 300, 1, tmp_path / "set", tmp_path / "sheet") == "df"
    rows = pd.read_parquet(tmp_path / "set")
    assert len(rows) == 300
    assert set(rows["dx"]) == {"df"}
    assert set(rows["source"]) == {"dcgan"}
    assert set(rows["split"]) == {"train"}
    assert rows["lesion_id"].isna().all()
    assert set(rows["model_sha256"]) == {file_sha256(gan / "g.keras")}
    assert rows["index"].tolist() == list(range(300))
    assert rows["image_id"].is_unique
    assert rows["pixel_sha256"].nunique() > 290  # a collapsed generator would repeat itself
    pixels = decode_png(rows["image"].iloc[7]["bytes"])
    assert pixels.shape == (32, 32, 3)
    assert pixel_sha256(pixels) == rows["pixel_sha256"].iloc[7]
    assert read_header(tmp_path / "set").classes == ("df", "nv", "vasc")
    assert "the first 64, not chosen" in (tmp_path / "sheet").read_text()


def test_the_seed_decides(gan: Path, tmp_path: Path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        generate(gan / "g.keras", gan / "record", 5, seed, tmp_path / name, tmp_path / f"{name}.html")
    sets = {name: pd.read_parquet(tmp_path / name)["pixel_sha256"].tolist() for name in "abc"}
    assert sets["a"] == sets["b"]
    assert not set(sets["a"]) & set(sets["c"])
    assert file_sha256(tmp_path / "a") == file_sha256(tmp_path / "b")


def test_a_larger_set_begins_with_the_smaller(gan: Path, tmp_path: Path):
    for count in (3, 270):
        generate(gan / "g.keras", gan / "record", count, 1, tmp_path / str(count), tmp_path / "sheet")
    small, large = (pd.read_parquet(tmp_path / name)["image"] for name in ("3", "270"))
    for a, b in zip(small, large, strict=False):
        difference = decode_png(a["bytes"]).astype(int) - decode_png(b["bytes"])
        assert np.abs(difference).max() <= 1  # another batch size may round differently


def test_wrong_input_is_one_sentence(gan: Path, tmp_path: Path):
    with pytest.raises(UserError, match="synthetic_per_class is 0"):
        generate(gan / "g.keras", gan / "record", 0, 1, tmp_path / "set", tmp_path / "sheet")
    record = json.loads((gan / "record").read_text()) | {"model_sha256": "0" * 64}
    (tmp_path / "record").write_text(json.dumps(record))
    with pytest.raises(UserError, match="does not belong to the generator of df"):
        generate(gan / "g.keras", tmp_path / "record", 5, 1, tmp_path / "set", tmp_path / "sheet")
    assert not (tmp_path / "set").exists()
