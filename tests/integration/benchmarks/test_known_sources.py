"""Sources of known worth: which images move from the data to a source."""

from pathlib import Path

import pandas as pd

from benchmarks.known_sources import SEED, write_inputs
from components.prepare_data.split import assign_by_hash


def test_write_inputs_moves_training_lesions_of_rare_classes_and_completes_what_a_killed_call_left(
    ham10000: tuple[Path, pd.DataFrame], tmp_path: Path
) -> None:
    (source, table), work = ham10000, tmp_path / "work"
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
