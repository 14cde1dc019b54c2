import json
import re
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import cost
from benchmarks.cost import image_set
from benchmarks.gpu import results
from benchmarks.gpu.experiment import RECIPES, SCALES
from components.shared.image_set import open_pixels, read_rows
from tests.helpers.example_results import example


@pytest.fixture
def work(tmp_path):
    """The files of an experiment that its results depend on."""
    for number, recipe in enumerate(RECIPES):
        models, synthetic, results_ = (
            tmp_path / recipe / name for name in ("gans/models", "synthetic/synthetic", "results")
        )
        for folder in (models, synthetic, results_):
            folder.mkdir(parents=True)
        curve = {"kimg": [1.0, 2.0], "value": [0.5, 0.25 + number]}
        trained = {"dx": "a", "kimg": 2.0, "best_kimg": 2.0, "seconds": 60.0, "kid": curve}
        for record in (trained, {"dx": "b", "failed": "x"}):
            (models / f"gan-{record['dx']}.json").write_text(json.dumps(record))
        (synthetic / "a.json").write_text(json.dumps({"dx": "a", "images": 9, "kid": 0.3}))
        (results_ / "metrics.json").write_text(json.dumps(example()))
        for dx, count in (("a", 9), ("b", 32)):
            image_set(synthetic / f"{dx}.parquet", "train", 32, {dx: count}, number)
    shared = {"trained_on": ["a", "b"], "kimg": 3.0, "seconds": 8.0}
    start = tmp_path / "modern_shared" / "start" / "models"
    start.mkdir(parents=True)
    (start / "shared.json").write_text(json.dumps(shared))
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "prepare.json").write_text(json.dumps({"seconds": 1.5, "result": None}))
    return tmp_path


def test_results_contain_the_lowest_kid_of_each_class_and_small_images(work, tmp_path):
    out = tmp_path / "out"
    results.write("smoke", SCALES["smoke"], "demo", ["a", "b"], work, out, {})
    found = json.loads((out / "smoke.json").read_text())
    assert found["scale"]["name"] == "smoke"
    assert [found["gans"][recipe]["a"]["kid"] for recipe in RECIPES] == [0.25, 0.5, 0.5]
    assert found["gans"]["dcgan"]["b"]["failed"] == "x"
    assert found["gans"]["modern"]["a"]["before"] == {"kimg": 0.0, "seconds": 0.0}
    assert found["gans"]["modern_shared"]["a"]["before"] == {"kimg": 1.5, "seconds": 4.0}
    assert found["seconds"] == {"prepare": 1.5}
    effect = example()["effect"]
    assert found["effect"]["dcgan"]["verdict"] == example()["verdict"]
    assert found["effect"]["dcgan"]["gan_effect_low"] == effect["low"]
    with Image.open(out / "smoke-dcgan.jpg") as sheet:
        # Eight of each class, one row per class.
        assert sheet.width // 8 == sheet.height // 2 >= 32
    assert sum(path.stat().st_size for path in out.iterdir()) < 400_000


def test_image_set_for_the_cost_can_be_read(tmp_path):
    image_set(tmp_path / "train", "train", 32, {"a": 300, "b": 32}, 1)
    assert read_rows(tmp_path / "train", "train", ["dx"])["dx"].value_counts().to_dict() == {"a": 300, "b": 32}
    with open_pixels(tmp_path / "train", "train", "a") as pixels:
        assert pixels.images.shape == (300, 32, 32, 3)


def test_plot_of_the_cost_is_the_one_of_the_page():
    page = Path(__file__).parents[3] / "docs" / "concepts" / "gan-training.md"
    (shown,) = re.findall(r"^!\[core seconds.*\]\((.*)\)$", page.read_text(encoding="utf-8"), re.M)
    assert (page.parent / shown).relative_to(page.parents[2]) == cost.OUT
    assert (page.parent / shown).is_file()
