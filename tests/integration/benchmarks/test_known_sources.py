"""Sources of known worth: which images move from the data to a source."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.fewer_lesions import LARGEST
from benchmarks.known_sources import SEED, write_inputs
from components.prepare_data.split import assign_by_hash


def test_write_inputs_moves_training_lesions_of_rare_classes_and_completes_what_a_killed_call_left(
    tmp_path: Path,
) -> None:
    source, work = tmp_path / "ham", tmp_path / "work"
    source.mkdir()
    dx = np.repeat([LARGEST, "mel", "df"], 40)
    table = pd.DataFrame({"lesion_id": [f"L{n // 2}" for n in range(120)], "image_id": [f"I{n}" for n in range(120)]})
    table["dx"] = dx
    table.to_csv(source / "HAM10000_metadata.csv", index=False)
    for name in table["image_id"]:
        Image.new("RGB", (8, 8)).save(source / f"{name}.jpg")
    (work / "data" / "images").mkdir(parents=True)
    (work / "data" / "images" / "I0.jpg").hardlink_to(source / "I0.jpg")
    write_inputs(source, work)
    kept = pd.read_csv(work / "data" / "metadata.csv")
    moved = table[~table["image_id"].isin(kept["image_id"])]
    split = assign_by_hash(table.assign(group_id=table["lesion_id"]), SEED)
    assert set(split[moved.index]) == {"train"}
    assert set(moved["dx"]) == {"mel", "df"}
    assert not set(moved["lesion_id"]) & set(kept["lesion_id"])
    assert {path.stem for path in (work / "data").rglob("*.jpg")} == set(kept["image_id"])
    for name in ("heldout", "noise"):
        found = {(path.parent.name, path.stem) for path in (work / name).rglob("*.*")}
        assert found == set(zip(moved["dx"], moved["image_id"], strict=True)), name
