"""Whole runs with images of other generators, given through `synthetic=`: noise, and generators that cheat."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.prepare_data.sources import demo
from tests.e2e.counterweight.test_run import SMALL, finish

RARE = ("df", "vasc")
ARMS = ["arms=baseline,oversampled,augmented", "synthetic_shares=1"]


class Place:
    """A folder with a run without GANs, and more sources of synthetic images.

    Attributes:
        folder: holds `data` and the results of the first run, `out`.
        output: what the first run printed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.move(demo.fetch("demo", folder / "images"), folder / "data")
        rng = np.random.default_rng(1)
        for dx in RARE:
            (folder / "noise" / dx).mkdir(parents=True)
            for number in range(9):
                Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(
                    folder / "noise" / dx / f"{number}.png"
                )
        code, self.output = self.run("noise", "OUT=out")
        assert code == 0, self.output

    def run(self, source: str, *words: str) -> tuple[int, str]:
        """Run with a folder of images as the source of its name."""
        return finish(self.folder, "DATA=data", f"synthetic={source}={source}", *SMALL, *ARMS, *words)

    def copy(self, source: str, split: str) -> None:
        """Make the images of a split a source."""
        rows = pd.read_csv(self.folder / "out" / "splits.csv")
        files = {path.stem: path for path in (self.folder / "data").rglob("*.jpg")}
        for image_id, dx in rows.loc[(rows["split"] == split) & rows["dx"].isin(RARE), ["image_id", "dx"]].itertuples(
            index=False
        ):
            (self.folder / source / dx).mkdir(parents=True, exist_ok=True)
            shutil.copy(files[image_id], self.folder / source / dx / f"generated{image_id[-4:]}.jpg")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("sources"))


def test_run_with_images_of_another_generator_compares_them_and_trains_no_gan(place: Place):
    results = json.loads((place.folder / "out" / "metrics.json").read_text())
    assert list(results["arms"]) == ["baseline", "oversampled", "noise@1"]
    assert results["effect"]["arm"] == "noise@1"
    assert not list((place.folder / "out" / "models").glob("gan-*"))
    assert "train_gan: skipped: this run trains no GANs" in place.output
    for dx in RARE:
        table = pd.read_parquet(next((place.folder / "out" / "synthetic").rglob(f"*{dx}*.parquet")))
        assert set(table["source"]) == {"noise"}
        assert 1 <= len(table) <= 6


def test_run_with_copies_of_test_images_is_refused(place: Place):
    place.copy("thief", "test")
    code, output = place.run("thief")
    assert code == 2
    error, hint = output.splitlines()[-2:]
    assert "of thief reproduce held-out images" in error
    assert hint == "hint: train the generator on the images of `train` in splits.csv only"
    assert "generated0" in output


def test_run_with_copies_of_training_images_is_refused(place: Place):
    place.copy("parrot", "train")
    code, output = place.run("parrot")
    assert code == 2
    assert output.splitlines()[-2] == "error: all synthetic images of parrot are copies of training images"


def test_run_with_a_source_that_lacks_a_class_is_refused_before_any_task(place: Place):
    shutil.copytree(place.folder / "noise" / "df", place.folder / "half" / "df")
    code, output = place.run("half")
    assert code == 2
    assert "error: half has no image of the class vasc" in output
    assert "check_inputs" not in output
