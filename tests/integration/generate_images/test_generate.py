import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.generate_images.generate import BLOCK, MOST, best_first, draw_block, generate
from components.shared.errors import UserError
from components.shared.features import load_features
from components.shared.files import file_sha256
from components.shared.image_set import decode_png, pixel_sha256, read_header
from components.shared.sample_metrics import density_and_coverage, kid, texture
from components.shared.seeds import derive_seed
from tests.integration.generate_images.conftest import LATENT, Demo, add, choosing, noisy


class Run:
    """One call of generate: its folder, and what came out."""

    def __init__(self, folder: Path, records: list[dict[str, Any]], demo: Demo, **changed: Any) -> None:
        (folder / "record.json").write_text(json.dumps(records))
        settings: dict[str, Any] = {
            "generators": folder,
            "record": folder / "record.json",
            "features": demo.ruler,
            "train_set": demo.paths["train"],
            "validation_set": demo.paths["validation"],
            "count": 40,
            "reject": 0.2,
            "seed": 1,
        } | changed
        self.metrics = generate(**settings, images=folder / "set", sheet=folder / "sheet", quality=folder / "quality")
        self.rows = pd.read_parquet(folder / "set")
        self.pixels = [decode_png(image["bytes"]) for image in self.rows["image"]]
        self.page = (folder / "sheet").read_text()
        self.quality = json.loads((folder / "quality").read_text())


def test_copies_are_dropped_and_others_are_not(demo: Demo, tmp_path: Path):
    """A generator gives images of lesions that it never saw, and training images, turned and brightened."""
    others = demo.images["test"]["nv"][:30]
    copies = np.clip(demo.images["train"]["nv"][:30, ::-1].swapaxes(1, 2) * 0.8 + 30, 0, 255).astype(np.uint8)
    pool = np.concatenate([copies, others])
    record = add(tmp_path, "nv", choosing(pool), demo.paths["train"])
    run = Run(tmp_path, [record], demo, count=100, reject=0.0)
    (entry,) = run.quality
    known = {pixel_sha256(image): number for number, image in enumerate(pool)}
    kept = [known[digest] for digest in run.rows["pixel_sha256"]]
    assert min(kept) >= 30  # no copy
    assert entry["copies"] == entry["drawn"] - 100
    model = keras.saving.load_model(tmp_path / "nv.keras")
    drawn = np.concatenate([draw_block(model, "nv", LATENT, 1, i) for i in range(-(-entry["drawn"] // BLOCK))])
    innocent = {number for number in (known[pixel_sha256(image)] for image in drawn) if number >= 30}
    assert len(innocent) > 10
    assert len(innocent - set(kept)) <= 2
    assert 0.25 < entry["copies"] / entry["drawn"] < 0.75
    assert entry["curated"] == 0
    assert "dropped as copies" in run.page


def test_a_generator_that_only_copies_ends_with_no_image(demo: Demo, tmp_path: Path):
    records = [
        add(tmp_path, "bkl", choosing(demo.images["train"]["bkl"]), demo.paths["train"]),
        add(tmp_path, "df", choosing(demo.images["test"]["df"]), demo.paths["train"]),
    ]
    run = Run(tmp_path, records, demo, count=20)
    assert (run.rows["dx"] == "df").all()  # the other class is drawn all the same
    entry = run.quality[0]
    assert entry["images"] == 0
    assert entry["drawn"] == entry["copies"] == MOST * 25
    assert entry["kid"] is entry["density"] is entry["coverage"] is entry["texture"] is None
    assert entry["nearest"] == []
    assert "bkl: 0 images" in run.page
    assert "Fewer than the 20 asked for: too many are copies of training images." in run.page
    assert run.metrics["bkl_copies"] == MOST * 25
    assert "bkl_kid" not in run.metrics


def test_noise_passes_the_copy_check_and_is_judged_badly(demo: Demo, tmp_path: Path):
    records = [
        add(tmp_path, "bkl", noisy(32), demo.paths["train"]),
        add(tmp_path, "nv", choosing(demo.images["test"]["nv"]), demo.paths["train"]),
    ]
    run = Run(tmp_path, records, demo)
    bad, good = run.quality
    assert bad["copies"] == 0
    assert (bad["images"], bad["drawn"], bad["curated"]) == (40, 50, 10)
    assert bad["coverage"] < 0.1 < 0.5 < good["coverage"]
    assert bad["density"] < 0.1 < 0.5 < good["density"]
    assert bad["kid"] > 10 * abs(good["kid"])
    assert 0.3 < good["texture"] < 3 < 10 < bad["texture"]


def test_what_is_kept_and_measured(demo: Demo, tmp_path: Path):
    """Of 50 that are no copies the worst 10 are rejected; the figures are those of the images in the set."""
    pool = np.concatenate([demo.images["test"][dx] for dx in ("bkl", "mel", "nv", "vasc")])
    record = add(tmp_path, "bkl", choosing(pool), demo.paths["train"])
    run = Run(tmp_path, [record], demo)
    (entry,) = run.quality
    assert entry["images"] == len(run.rows) == 40
    assert entry["curated"] == 10
    assert entry["drawn"] == 50 + entry["copies"]
    ruler = load_features(demo.ruler)
    model = keras.saving.load_model(tmp_path / "bkl.keras")
    drawn = np.concatenate([draw_block(model, "bkl", LATENT, 1, block) for block in range(2)])[: entry["drawn"]]
    rejected = sorted(set(range(len(drawn))) - set(run.rows["index"]))
    label = read_header(demo.paths["train"]).classes.index("bkl")
    probability = ruler.probabilities(drawn)[:, label]
    assert np.median(probability[rejected]) < np.median(probability[run.rows["index"]]) / 2

    kept, real = ruler(np.stack(run.pixels)), ruler(demo.images["validation"]["bkl"])
    assert entry["against"] == "validation"
    assert entry["kid"] == pytest.approx(kid(real, kept), abs=1e-4)
    assert (entry["density"], entry["coverage"]) == pytest.approx(density_and_coverage(real, kept), abs=0.05)
    assert run.metrics["bkl_kid"] == entry["kid"]
    assert entry["texture"] == texture(demo.images["train"]["bkl"], np.stack(run.pixels))
    assert run.metrics["bkl_texture"] == entry["texture"]

    distances = [pair["distance"] for pair in entry["nearest"]]
    assert distances == sorted(distances)
    assert distances[0] >= round(entry["copy_threshold"], 4)
    train = pd.read_parquet(demo.paths["train"], columns=["image_id", "dx"]).set_index("image_id")["dx"]
    assert {train[pair["image_id"]] for pair in entry["nearest"]} == {"bkl"}
    assert {pair["index"] for pair in entry["nearest"]} <= set(run.rows["index"])
    assert len(entry["pairs_jpeg"]) <= 12_000
    with Image.open(io.BytesIO(base64.b64decode(entry["pairs_jpeg"]))) as picture:
        assert picture.size[0] == 5 * picture.size[1] / 2
    assert "12.5 of 20 kimg" in run.page
    assert "rejected as the worst" in run.page


def test_the_worst_are_those_bad_in_either_respect():
    probability = np.array([0.9, 0.8, 0.1, 0.7, 0.6])
    strangeness = np.array([1.0, 9.0, 0.5, 2.0, 3.0])
    # Ranks by probability 0 1 4 2 3, by strangeness 1 4 0 2 3.
    assert best_first(probability, strangeness).tolist() == [0, 3, 4, 1, 2]
    assert best_first(np.empty(0), np.empty(0)).tolist() == []


def test_every_row_says_where_it_comes_from(demo: Demo, tmp_path: Path):
    record = add(tmp_path, "df", noisy(32), demo.paths["train"])
    run = Run(tmp_path, [record], demo, count=300, reject=0.1)
    rows = run.rows
    assert len(rows) == 300
    assert set(rows["dx"]) == {"df"}
    assert set(rows["source"]) == {"dcgan"}
    assert set(rows["split"]) == {"train"}
    assert set(rows["seed"]) == {1}
    assert rows["lesion_id"].isna().all()
    assert set(rows["model_sha256"]) == {file_sha256(tmp_path / "df.keras")}
    assert rows["image_id"].is_unique
    assert rows["index"].is_monotonic_increasing
    assert read_header(tmp_path / "set") == read_header(demo.paths["train"])
    assert "the first 64 in the order they were drawn, not chosen" in run.page
    # Exactly this image can be drawn again, wherever it stood.
    model = keras.saving.load_model(tmp_path / "df.keras")
    for row in (0, 1, 77, 298):
        index = int(rows["index"].iloc[row])
        again = draw_block(model, "df", LATENT, 1, index // BLOCK)[index % BLOCK]
        np.testing.assert_array_equal(again, run.pixels[row])
        assert pixel_sha256(again) == rows["pixel_sha256"].iloc[row]


def test_the_seed_decides_and_other_classes_do_not(demo: Demo, tmp_path: Path):
    sets = {}
    for name, seed, classes in (
        ("a", 1, ["df", "vasc"]),
        ("b", 1, ["df", "vasc"]),
        ("c", 1, ["vasc"]),
        ("d", 2, ["df"]),
    ):
        folder = tmp_path / name
        folder.mkdir()
        records = [add(folder, dx, noisy(32), demo.paths["train"]) for dx in classes]
        sets[name] = Run(folder, records, demo, count=10, seed=seed).rows
    assert file_sha256(tmp_path / "a" / "set") == file_sha256(tmp_path / "b" / "set")
    assert file_sha256(tmp_path / "a" / "sheet") == file_sha256(tmp_path / "b" / "sheet")
    of_vasc = sets["a"][sets["a"]["dx"] == "vasc"]["pixel_sha256"].tolist()
    assert sets["c"]["pixel_sha256"].tolist() == of_vasc
    assert not set(sets["a"]["pixel_sha256"]) & set(sets["d"]["pixel_sha256"])


@pytest.mark.parametrize("images", [1, 2])
def test_a_class_with_hardly_an_image(make_set: Callable[..., Path], images: int, tmp_path: Path):
    from components.shared.features import train_features

    paths = {
        "train": make_set(tmp_path / "train", "train", {"df": images, "nv": 20, "vasc": 8}),
        "validation": make_set(tmp_path / "validation", "validation", {"df": 1, "nv": 6, "vasc": 6}),
    }
    train_features(paths["train"], 1, tmp_path / "ruler.keras", "test")
    tiny = Demo(paths, tmp_path / "ruler.keras", {}, {})
    record = add(tmp_path, "df", noisy(32), paths["train"])
    run = Run(tmp_path, [record], tiny, count=3)
    assert run.quality[0]["against"] == "validation and training"
    assert run.quality[0]["images"] == 3
    assert np.isfinite(list(run.metrics.values())).all()
    one = Run(tmp_path, [record], tiny, count=1, reject=0.0)
    assert one.quality[0]["kid"] is None
    assert len(one.rows) == 1


def test_a_class_whose_gan_failed_gets_no_image(demo: Demo, tmp_path: Path):
    record = add(tmp_path, "df", noisy(32), demo.paths["train"])
    failed = {key: record[key] for key in ("classes", "image_size", "data_sha256", "split_sha256", "architecture")}
    failed |= {"dx": "vasc", "failed": "RuntimeError: <diverged>"}
    run = Run(tmp_path, [failed, record], demo, count=4)
    assert set(run.rows["dx"]) == {"df"}
    assert run.quality[0] == {"dx": "vasc", "failed": "RuntimeError: <diverged>"}
    assert "vasc: none, since its GAN failed (RuntimeError: &lt;diverged&gt;)" in run.page
    alone = Run(tmp_path, [failed], demo, count=4)
    assert alone.rows.empty
    assert alone.metrics == {}


def test_wrong_input_is_one_sentence(demo: Demo, make_set: Callable[..., Path], tmp_path: Path):
    record = add(tmp_path, "df", noisy(32), demo.paths["train"])

    def refused(match: str, records: Any = None, **changed: Any) -> None:
        with pytest.raises(UserError, match=match):
            Run(tmp_path, [record] if records is None else records, demo, **changed)
        assert not (tmp_path / "set").exists()
        assert not (tmp_path / "quality").exists()

    refused("synthetic_per_class is 0", count=0)
    for share in (-0.1, 1.0, 7.0, float("nan")):
        refused("choose a share from 0 to below 1", reject=share)
    for records in ({}, [], "df", [1], [{"dx": "df"}], [record | {"latent": "6"}], [record | {"dx": 3}]):
        refused("not a list of records", records)
    for key in ("architecture", "best_kimg", "model_sha256"):
        refused("not a list of records", [{name: value for name, value in record.items() if name != key}])
    (tmp_path / "broken").write_bytes(b"\xff{")
    refused("not a list of records", record=tmp_path / "broken")
    refused("two records of one class", [record, record])
    for change in ({"split_sha256": "0"}, {"dx": "../df"}, {"classes": ["df"]}, {"image_size": 64}):
        refused("is of other data", [record | change])
    refused("does not belong to the generator of df", [record | {"model_sha256": "0" * 64}])
    refused("does not belong to the generator of bcc", [record | {"dx": "bcc"}])
    refused("does not fit its record", [record | {"latent": 7}])
    refused("is not the model that judges images", features=tmp_path / "df.keras")
    refused("of different splits", validation_set=make_set(tmp_path / "validation", "validation", {"df": 3}))


@pytest.mark.parametrize("name", ["dcgan", "resnet"])
def test_an_image_depends_on_its_index_alone(name: str):
    """Not on the block: among other noise it is the same, but for rounding."""
    from components.train_gan import architectures

    nets = architectures.load(name)
    keras.utils.set_random_seed(1)
    model = nets.generator(32)
    latent = model.input_shape[-1]
    block = draw_block(model, "df", latent, 1, 2)
    np.testing.assert_array_equal(block, draw_block(model, "df", latent, 1, 2))
    own = derive_seed(1, "generate_images", "df")
    noise = np.random.default_rng([own, 2 * BLOCK + 5]).standard_normal((1, latent), np.float32)
    alone = (model.predict_on_batch(noise)[0] + 1) * 127.5
    assert np.abs(block[5] - alone).max() < 0.51
    assert np.abs(block[4] - alone).max() > 1
