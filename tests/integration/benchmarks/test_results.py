import json

import pytest
from PIL import Image

from benchmarks.cost import image_set
from benchmarks.gpu import results
from benchmarks.gpu.experiment import RECIPES, SCALES
from components.shared.image_set import open_pixels, read_rows
from tests.helpers.example_results import example


@pytest.fixture
def work(tmp_path):
    """What an experiment leaves, as far as its results go by it."""
    for number, recipe in enumerate(RECIPES):
        folder = tmp_path / recipe
        folder.mkdir()
        curve = {"kimg": [1.0, 2.0], "value": [0.5, 0.25 + number]}
        record = [{"dx": "a", "kimg": 2.0, "best_kimg": 2.0, "seconds": 60.0, "kid": curve}, {"dx": "b", "failed": "x"}]
        (folder / "gans.json").write_text(json.dumps(record))
        (folder / "quality.json").write_text(
            json.dumps([{"dx": "a", "images": 9, "kid": 0.3}, {"dx": "b", "failed": "x"}])
        )
        (folder / "results.json").write_text(json.dumps(example()))
        image_set(folder / "images", "train", 32, {"a": 9, "b": 32}, number)
    shared = {"trained_on": ["a", "b"], "kimg": 3.0, "seconds": 8.0}
    (tmp_path / "modern_shared" / "pretrain.json").write_text(json.dumps(shared))
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "prepare.json").write_text(json.dumps({"seconds": 1.5, "result": None}))
    return tmp_path


def test_results_hold_the_best_kid_of_each_class_and_small_pictures(work, tmp_path):
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
        # Eight of each class: a row of a, a row of b.
        assert sheet.width // 8 == sheet.height // 2 >= 32
    assert sum(path.stat().st_size for path in out.iterdir()) < 400_000


def test_an_image_set_for_the_cost_is_one(tmp_path):
    image_set(tmp_path / "train", "train", 32, {"a": 300, "b": 32}, 1)
    assert read_rows(tmp_path / "train", "train", ["dx"])["dx"].value_counts().to_dict() == {"a": 300, "b": 32}
    with open_pixels(tmp_path / "train", "train", "a") as pixels:
        assert pixels.images.shape == (300, 32, 32, 3)
