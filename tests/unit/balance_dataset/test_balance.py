from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.balance_dataset.balance import balance, repeats
from components.shared.errors import UserError
from components.shared.image_set import encode_png, read_header, read_rows, write_image_set


def synthetic(path: Path, dx: str, count: int, train: Path) -> Path:
    rows = pd.DataFrame({"image_id": [f"{dx}-{n}" for n in range(count)], "dx": dx, "source": "dcgan"})
    with write_image_set(path, read_header(train)) as out:
        out.write(rows, [encode_png(np.full((32, 32, 3), n % 256, np.uint8)) for n in range(count)])
    return path


@given(st.integers(1, 200), st.integers(0, 1000))
def test_repeats_add_up_and_are_even(real: int, added: int):
    counts = repeats(real, added, np.random.default_rng(0))
    assert counts.sum() == real + added
    assert counts.min() >= 1
    assert counts.max() - counts.min() <= 1


def test_both_arms_have_the_same_counts_and_the_control_holds_each_image_once(splits: dict[str, Path], tmp_path: Path):
    sets = [
        synthetic(tmp_path / "df", "df", 33, splits["train"]),
        synthetic(tmp_path / "vasc", "vasc", 6, splits["train"]),
    ]
    balance(splits["train"], sets, 1, tmp_path / "augmented", tmp_path / "oversampled", tmp_path / "summary")
    train, augmented, oversampled = (
        pd.read_parquet(p) for p in (splits["train"], tmp_path / "augmented", tmp_path / "oversampled")
    )
    assert augmented["dx"].value_counts().to_dict() == {"nv": 60, "df": 43, "vasc": 20}
    assert oversampled.groupby("dx")["repeat"].sum().to_dict() == {"nv": 60, "df": 43, "vasc": 20}
    assert (augmented["source"] == "dcgan").sum() == 39
    assert sorted(oversampled["image_id"]) == sorted(train["image_id"])
    assert set(oversampled["source"]) == {"real"}
    assert set(oversampled.loc[oversampled["dx"] == "nv", "repeat"]) == {1}
    images = {row.image_id: row.image["bytes"] for row in train.itertuples()}
    assert all(images[row.image_id] == row.image["bytes"] for row in oversampled.itertuples())
    assert "| df | 10 | 33 | 33 | 43 |" in (tmp_path / "summary").read_text()
    assert read_header(tmp_path / "augmented") == read_header(tmp_path / "oversampled") == read_header(splits["train"])


def test_sets_of_another_run_are_refused(splits: dict[str, Path], tmp_path: Path, make_set: Callable[..., Path]):
    other = make_set(tmp_path / "other", "train", {"df": 4}, size=48)
    with pytest.raises(UserError, match="was not made from this training set"):
        balance(splits["train"], [other], 1, tmp_path / "a", tmp_path / "o", tmp_path / "s")
    with pytest.raises(UserError, match="was not made from this training set"):
        balance(splits["train"], [splits["test"]], 1, tmp_path / "a", tmp_path / "o", tmp_path / "s")
    assert {path.name for path in tmp_path.iterdir()} == {"other"}


def test_a_class_without_synthetic_images_is_repeated_no_more_often(
    splits: dict[str, Path], tmp_path: Path, make_set: Callable[..., Path]
):
    """As after a GAN that failed."""
    made = [
        synthetic(tmp_path / "df", "df", 5, splits["train"]),
        synthetic(tmp_path / "vasc", "vasc", 0, splits["train"]),
    ]
    balance(splits["train"], made, 1, tmp_path / "augmented", tmp_path / "oversampled", tmp_path / "summary")
    rows = read_rows(tmp_path / "oversampled", "train", ["dx", "repeat"])
    assert rows.groupby("dx")["repeat"].sum().to_dict() == {"df": 15, "nv": 60, "vasc": 14}
    with pytest.raises(UserError, match="every GAN failed"):
        balance(splits["train"], made[1:], 1, tmp_path / "a", tmp_path / "o", tmp_path / "s")
