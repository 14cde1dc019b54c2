"""Fewer lesions of the rare classes: which stay, and that the rest of the set stays as it is."""

from pathlib import Path

import pandas as pd
import pytest

from benchmarks import low_shot
from benchmarks.fewer_lesions import LARGEST
from benchmarks.low_shot import write_inputs
from components.prepare_data.split import assign_by_hash
from tests.helpers.errors import raises_user_error


def test_write_inputs_of_smaller_shares_are_subsets_that_lack_rare_training_lesions_alone(
    ham10000: tuple[Path, pd.DataFrame], tmp_path: Path
) -> None:
    source, complete = ham10000
    tables: dict[float, pd.DataFrame] = {}
    split = assign_by_hash(complete.assign(group_id=complete["lesion_id"]), 1)
    is_rare = (split == "train") & (complete["dx"] != LARGEST)
    every = complete[is_rare].groupby("dx")["lesion_id"].nunique()
    for share in (0.25, 0.5, 1.0):
        folder = tmp_path / f"{share:g}"
        lesions = write_inputs(source, folder, share, seed=1)
        tables[share] = pd.read_csv(folder / "metadata.csv")
        assert {path.stem for path in folder.rglob("*.jpg")} == set(tables[share]["image_id"])
        stay = complete[is_rare & complete["image_id"].isin(tables[share]["image_id"])]
        assert lesions == stay.groupby("dx")["lesion_id"].nunique().to_dict()
        assert lesions == {dx: round(share * count) for dx, count in every.items()}
    assert len(tables[1.0]) == 120
    smaller = [set(tables[share]["image_id"]) for share in (0.25, 0.5, 1.0)]
    assert smaller[0] < smaller[1] < smaller[2]
    removed = ~complete["image_id"].isin(smaller[0])
    assert set(split[removed]) == {"train"}
    assert set(complete.loc[removed, "dx"]) == {"mel", "df"}
    kept = complete[~removed]
    pd.testing.assert_series_equal(assign_by_hash(kept.assign(group_id=kept["lesion_id"]), 1), split[~removed])


@pytest.mark.parametrize(
    ("shares", "data", "code"),
    [("0.5,half", True, "low_shot.share"), ("0", True, "low_shot.share"), ("0.5", False, "low_shot.data")],
)
def test_low_shot_refuses_other_shares_and_folders(
    ham10000: tuple[Path, pd.DataFrame], tmp_path: Path, shares: str, data: bool, code: str
) -> None:
    given = {
        "DATA": str(ham10000[0] if data else tmp_path / "nothing"),
        "SHARES": shares,
        "WORK": str(tmp_path / "out"),
    }
    with raises_user_error(code):
        low_shot.main(given)
    assert not (tmp_path / "out").exists()


def test_low_shot_has_a_folder_for_each_seed(
    ham10000: tuple[Path, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of another seed must not find the inputs of the first."""
    folders: list[Path] = []

    def stop(folder: Path, settings: dict[str, str]) -> None:
        folders.append(Path(settings["DATA"]))
        raise InterruptedError

    monkeypatch.setattr(low_shot, "run_pipeline", stop)
    for seed in ("1", "2"):
        given = {"DATA": str(ham10000[0]), "WORK": str(tmp_path / "out"), "SHARES": "0.5", "random_seed": seed}
        with pytest.raises(InterruptedError):
            low_shot.main(given)
    images = [{path.name for path in folder.rglob("*.jpg")} for folder in folders]
    assert images == [set(pd.read_csv(folder / "metadata.csv")["image_id"] + ".jpg") for folder in folders]
    assert images[0] != images[1]
