"""Fewer lesions of the rare classes: which stay, and that the rest of the set stays as it is."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from benchmarks.fewer_lesions import LARGEST
from benchmarks.low_shot import write_inputs
from components.prepare_data.split import assign_by_hash


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "ham"
    folder.mkdir()
    table = pd.DataFrame({"lesion_id": [f"L{n // 2}" for n in range(120)], "image_id": [f"I{n}" for n in range(120)]})
    table["dx"] = np.repeat([LARGEST, "mel", "df"], 40)
    table.to_csv(folder / "HAM10000_metadata.csv", index=False)
    for name in table["image_id"]:
        Image.new("RGB", (8, 8)).save(folder / f"{name}.jpg")
    return folder


def test_write_inputs_of_smaller_shares_are_subsets_that_lack_rare_training_lesions_alone(source: Path, tmp_path: Path):
    tables = {}
    for share in (0.25, 0.5, 1.0):
        folder = tmp_path / f"{share:g}"
        lesions = write_inputs(source, folder, share, seed=1)
        tables[share] = pd.read_csv(folder / "metadata.csv")
        assert {path.stem for path in folder.rglob("*.jpg")} == set(tables[share]["image_id"])
        assert lesions == tables[share].loc[tables[share]["dx"] != LARGEST, "lesion_id"].nunique()
    complete = tables[1.0]
    assert len(complete) == 120
    split = assign_by_hash(complete.assign(group_id=complete["lesion_id"]), 1)
    smaller = [set(tables[share]["image_id"]) for share in (0.25, 0.5, 1.0)]
    assert smaller[0] < smaller[1] < smaller[2]
    removed = ~complete["image_id"].isin(smaller[0])
    assert set(split[removed]) == {"train"}
    assert set(complete.loc[removed, "dx"]) == {"mel", "df"}
    kept = complete[~removed]
    pd.testing.assert_series_equal(assign_by_hash(kept.assign(group_id=kept["lesion_id"]), 1), split[~removed])
