import base64
import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.generate_images.curate import rank_best_first
from components.generate_images.origins import BLOCK_SIZE, MAX_SAMPLES_RATIO, sample_block
from components.generate_images.separability import ring_powers, separability
from components.shared.features import SAMPLE_FILE, load_features
from components.shared.files import file_sha256
from components.shared.image_set import encode_png, iter_tables, open_pixels, pixel_sha256, read_header, write_image_set
from components.shared.records import SyntheticSource, SyntheticSources, write_record
from components.shared.sample_metrics import density_and_coverage, kid, texture
from components.shared.seeds import derive_seed
from tests.helpers.errors import raises_user_error
from tests.integration.generate_images.conftest import (
    LATENT,
    Demo,
    Generated,
    add_failed_gan,
    add_gan,
    build_choosing,
    build_untrained,
    run,
)

NUMBER_OF_COPIES = 30
COPYING, MIXED, UNTRAINED, GOOD, PARTLY_COPYING, FAILED = "akiec", "bcc", "df", "mel", "nv", "vasc"


@dataclass(frozen=True)
class Case:
    """One call of generate_images with a generator of each kind, and the images that the generators choose from."""

    generated: Generated
    gans: Path
    pools: dict[str, np.ndarray]

    def sample(self, dx: str, count: int) -> np.ndarray:
        """Return the first samples of a generator."""
        model = keras.saving.load_model(self.gans / "models" / f"gan-{dx}.keras")
        blocks = range(-(-count // BLOCK_SIZE))
        return np.concatenate([sample_block(model, dx, LATENT, 1, block) for block in blocks])[:count]


@pytest.fixture(scope="session")
def case(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("generate")
    train, test = demo.images["train"], demo.images["test"]
    copies = np.clip(train["nv"][:NUMBER_OF_COPIES, ::-1].swapaxes(1, 2) * 0.8 + 30, 0, 255).astype(np.uint8)
    pools = {
        COPYING: train["akiec"],
        MIXED: np.concatenate([test["bcc"], test["mel"], test["nv"][:30], test["vasc"]]),
        GOOD: test["mel"],
        PARTLY_COPYING: np.concatenate([copies, test["nv"][:NUMBER_OF_COPIES]]),
    }
    for dx, pool in pools.items():
        add_gan(folder / "gans", dx, build_choosing(pool), demo.rare_data)
    add_gan(folder / "gans", UNTRAINED, build_untrained(), demo.rare_data)
    add_failed_gan(folder / "gans", FAILED, demo.rare_data, "RuntimeError: <diverged>")
    generated = run(folder / "gans", demo.features, demo.rare_data, folder / "synthetic")
    return Case(generated, folder / "gans", pools)


def test_generate_writes_three_files_per_class(case: Case) -> None:
    expected = {f"{dx}.{suffix}" for dx in (*case.pools, UNTRAINED) for suffix in ("parquet", "json", "html")}
    folder = case.generated.folder / "synthetic"
    assert {path.name for path in folder.iterdir()} == expected | {f"{FAILED}.html"}
    assert [path.name for path in case.generated.folder.iterdir()] == ["synthetic"]
    assert all(path.read_text().rstrip().endswith("</html>") for path in folder.glob("*.html"))


def test_generate_drops_copies_and_keeps_other_images(case: Case) -> None:
    """Half of the pool are images of other lesions, half are training images, rotated and brightened."""
    quality, pool = case.generated.quality(PARTLY_COPYING), case.pools[PARTLY_COPYING]
    index = {pixel_sha256(image): number for number, image in enumerate(pool)}
    accepted = {index[digest] for digest in case.generated.rows(PARTLY_COPYING)["pixel_sha256"]}
    assert min(accepted) >= NUMBER_OF_COPIES
    sampled = [index[pixel_sha256(image)] for image in case.sample(PARTLY_COPYING, quality.drawn)]
    assert quality.copies >= sum(number < NUMBER_OF_COPIES for number in sampled)
    assert quality.drawn == quality.copies + 50
    assert "dropped as copies" in case.generated.page(PARTLY_COPYING)


def test_generate_from_a_generator_that_only_copies_gives_no_image(case: Case) -> None:
    quality = case.generated.quality(COPYING)
    assert quality.images == len(case.generated.rows(COPYING)) == 0
    assert quality.drawn == quality.copies == MAX_SAMPLES_RATIO * 50
    assert quality.kid is quality.density is quality.coverage is quality.other_coverage is quality.texture is None
    assert quality.separability is quality.separability_spectrum is None
    assert quality.nearest == []


def test_generate_measures_noise_as_bad_and_real_images_as_good(case: Case) -> None:
    bad, good = case.generated.quality(UNTRAINED), case.generated.quality(GOOD)
    assert bad.copies == 0
    assert (bad.images, bad.drawn, bad.curated) == (40, 50, 10)
    assert good.kid is not None
    assert bad.kid is not None
    assert bad.kid > 10 * abs(good.kid)
    assert (bad.density, bad.coverage) == (0, 0)
    assert good.density is not None
    assert good.density > 0.5
    assert good.coverage is not None
    assert good.other_coverage is not None
    assert good.coverage > max(0.5, good.other_coverage)
    assert good.texture is not None
    assert bad.texture is not None
    assert 0.3 < good.texture < 3 < 10 < bad.texture
    assert bad.separability == bad.separability_spectrum == 1
    assert good.separability_spectrum is not None
    assert good.separability_spectrum < 0.9
    assert "1.00 by features, 1.00 by spectrum" in case.generated.page(UNTRAINED)
    assert "Separability" not in case.generated.page(COPYING)


def test_generate_rejects_the_worst_and_measures_what_it_keeps(demo: Demo, case: Case) -> None:
    rows, images, quality = (
        read(MIXED) for read in (case.generated.rows, case.generated.images, case.generated.quality)
    )
    assert quality.images == len(rows) == 40
    assert quality.curated == 10
    assert quality.drawn == 50 + quality.copies
    features = load_features(demo.features)
    sampled = case.sample(MIXED, quality.drawn)
    rejected = sorted(set(range(len(sampled))) - set(rows["index"]))
    label = read_header(demo.rare_data / "train.parquet").classes.index(MIXED)
    probability = features.probabilities(sampled)[:, label]
    assert np.median(probability[rejected]) < np.median(probability[rows["index"]]) / 2

    real, accepted = features(demo.images["validation"][MIXED]), features(images)
    assert quality.against == "validation"
    # The features are float32, computed in batches of another size: 1e-6 of values of order 1, cubed and averaged.
    assert quality.kid == pytest.approx(kid(real, accepted), abs=1e-4)
    assert (quality.density, quality.coverage) == pytest.approx(density_and_coverage(real, accepted), abs=1e-6)
    training, lesions = demo.images["train"][MIXED], demo.lesions[MIXED]
    assert quality.texture == texture(training, images)
    assert quality.separability_spectrum == separability(ring_powers(training), lesions, ring_powers(images))
    # Ranks may change where scores differ by rounding: one of about 9 × 8 pairs in each fold.
    assert quality.separability == pytest.approx(separability(features(training), lesions, accepted), abs=0.02)


def test_generate_records_the_nearest_pairs(demo: Demo, case: Case) -> None:
    quality, rows = case.generated.quality(MIXED), case.generated.rows(MIXED)
    distances = [pair.distance for pair in quality.nearest]
    assert distances == sorted(distances)
    assert distances[0] >= round(quality.copy_threshold, 4)
    train = pd.read_parquet(demo.rare_data / "train.parquet", columns=["image_id", "dx"]).set_index("image_id")["dx"]
    assert {train[pair.image_id] for pair in quality.nearest} == {MIXED}
    assert {pair.index for pair in quality.nearest} <= set(rows["index"])
    assert len(quality.pairs_jpeg) <= 12_000
    with Image.open(io.BytesIO(base64.b64decode(quality.pairs_jpeg))) as image:
        assert image.size[0] == 5 * image.size[1] / 2


def test_generate_for_a_failed_gan_writes_a_page_with_the_error(case: Case) -> None:
    assert "RuntimeError: &lt;diverged&gt;" in case.generated.page(FAILED)


def test_generate_identifies_each_image_by_model_seed_and_index(demo: Demo, case: Case) -> None:
    rows, images = case.generated.rows(UNTRAINED), case.generated.images(UNTRAINED)
    for column, value in (("dx", UNTRAINED), ("source", "gan"), ("split", "train"), ("seed", 1)):
        assert set(rows[column]) == {value}
    assert rows["lesion_id"].isna().all()
    assert set(rows["model_sha256"]) == {file_sha256(case.gans / "models" / f"gan-{UNTRAINED}.keras")}
    assert rows["image_id"].is_unique
    assert rows["index"].is_monotonic_increasing
    assert read_header(case.generated.path(UNTRAINED, "parquet")) == read_header(demo.rare_data / "train.parquet")
    sampled = case.sample(UNTRAINED, 50)
    for index, image, digest in zip(rows["index"], images, rows["pixel_sha256"], strict=True):
        np.testing.assert_array_equal(sampled[index], image)
        assert pixel_sha256(image) == digest


def test_generate_gives_the_same_bytes_for_a_class_alone(demo: Demo, case: Case, tmp_path: Path) -> None:
    (tmp_path / "gans" / "models").mkdir(parents=True)
    for suffix in ("keras", "json"):
        shutil.copy(case.gans / "models" / f"gan-{UNTRAINED}.{suffix}", tmp_path / "gans" / "models")
    alone = run(tmp_path / "gans", demo.features, demo.rare_data, tmp_path / "synthetic")
    for suffix in ("parquet", "json", "html"):
        assert file_sha256(alone.path(UNTRAINED, suffix)) == file_sha256(case.generated.path(UNTRAINED, suffix))


def test_generate_with_another_seed_and_several_row_groups(demo: Demo, case: Case, tmp_path: Path) -> None:
    add_gan(tmp_path / "gans", UNTRAINED, build_untrained(), demo.rare_data)
    other = run(tmp_path / "gans", demo.features, demo.rare_data, tmp_path / "out", count=300, reject=0.0, seed=2)
    rows = other.rows(UNTRAINED)
    assert rows["index"].tolist() == list(range(300))
    assert not set(rows["pixel_sha256"]) & set(case.generated.rows(UNTRAINED)["pixel_sha256"])
    assert "the first 64 images, not selected" in other.page(UNTRAINED)


@pytest.mark.parametrize("images", [1, 2])
def test_generate_for_a_class_with_few_real_images_measures_against_all_of_them(
    make_set: Callable[..., Path], rare_data: Path, features: Path, images: int, tmp_path: Path
) -> None:
    data = tmp_path / "rare_data"
    shutil.copytree(rare_data, data)
    make_set(data / "train.parquet", "train", {"df": images, "nv": 20, "vasc": 8})
    make_set(data / "validation.parquet", "validation", {"df": 1, "nv": 6, "vasc": 6})
    add_gan(tmp_path / "gans", "df", build_untrained(), data)
    quality = run(tmp_path / "gans", features, data, tmp_path / "some", count=3).quality("df")
    assert quality.against == "validation and training"
    assert quality.images == 3
    assert quality.kid is not None
    one = run(tmp_path / "gans", features, data, tmp_path / "one", count=1, reject=0.0)
    assert one.quality("df").kid is None
    assert len(one.rows("df")) == 1


@pytest.mark.parametrize("others", [5, 30])
def test_generate_compares_coverage_by_equal_numbers_of_images(
    make_set: Callable[..., Path], rare_data: Path, features: Path, others: int, tmp_path: Path
) -> None:
    """Against 40 real images, 10 are generated; fewer real images of other classes may be left."""
    data = tmp_path / "rare_data"
    shutil.copytree(rare_data, data)
    images = {}
    for split, count in (("train", 20), ("validation", 40), ("test", 60)):
        path = make_set(data / f"{split}.parquet", split, {"df": count, "nv": 6, "vasc": 6})
        with open_pixels(path, split, "df") as pixels:
            images[split] = np.array(pixels.images)
    extractor = load_features(features)
    # Images that look like those of the class, so that their coverage is not 0.
    values = extractor(images["test"][30 : 30 + others]).astype(np.float32)
    label = read_header(data / "train.parquet").classes.index("nv")
    np.savez(data / SAMPLE_FILE, features=values, labels=np.full(others, label))
    add_gan(tmp_path / "gans", "df", build_choosing(images["test"][:30]), data)
    made = run(tmp_path / "gans", features, data, tmp_path / "out", count=10, reject=0.0)
    quality, real, group = made.quality("df"), extractor(images["validation"]), min(10, others)
    assert (quality.images, quality.against) == (10, "validation")
    by_synthetic = density_and_coverage(real, extractor(made.images("df")), group=group)[1]
    by_others = density_and_coverage(real, values.astype(np.float64), group=group)[1]
    assert (quality.coverage, quality.other_coverage) == pytest.approx((by_synthetic, by_others))
    assert f"coverage {by_synthetic:.2f} (by as many real images of other classes: {by_others:.2f})" in made.page("df")


@pytest.mark.parametrize(
    ("changes", "code", "name"),
    [
        ({"count": 0}, "parameter.invalid", "synthetic_per_class"),
        ({"reject": -0.1}, "parameter.out_of_range", "reject"),
        ({"reject": 1.0}, "parameter.out_of_range", "reject"),
        ({"reject": float("nan")}, "parameter.out_of_range", "reject"),
    ],
)
def test_generate_with_an_invalid_parameter_fails(
    rare_data: Path, features: Path, tmp_path: Path, changes: dict[str, Any], code: str, name: str
) -> None:
    with raises_user_error(code, name=name):
        run(tmp_path / "gans", features, rare_data, tmp_path / "out", **changes)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"split_sha256": "0" * 64}, "generate_images.other_data"),
        ({"data_sha256": "0" * 64}, "generate_images.other_data"),
        ({"classes": ["df"]}, "generate_images.other_data"),
        ({"image_size": 64}, "generate_images.other_data"),
        ({"model_sha256": "0" * 64}, "generate_images.wrong_generator"),
        ({"latent": LATENT + 1}, "generate_images.wrong_generator"),
    ],
)
def test_generate_with_a_gan_that_does_not_fit_fails(
    rare_data: Path, features: Path, tmp_path: Path, changes: dict[str, Any], code: str
) -> None:
    add_gan(tmp_path / "gans", "df", build_untrained(), rare_data, **changes)
    with raises_user_error(code):
        run(tmp_path / "gans", features, rare_data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_generate_with_a_record_under_another_name_fails(rare_data: Path, features: Path, tmp_path: Path) -> None:
    add_gan(tmp_path / "gans", "df", build_untrained(), rare_data)
    for path in list((tmp_path / "gans" / "models").iterdir()):
        path.rename(path.with_stem("gan-vasc"))
    with raises_user_error("generate_images.other_data"):
        run(tmp_path / "gans", features, rare_data, tmp_path / "out")


def test_generate_without_a_valid_record_fails(rare_data: Path, features: Path, tmp_path: Path) -> None:
    (tmp_path / "gans" / "models").mkdir(parents=True)
    with raises_user_error("generate_images.no_gans", classes=["df"]):
        run(tmp_path / "gans", features, rare_data, tmp_path / "out", classes=["df"])
    (tmp_path / "gans" / "models" / "gan-df.json").write_text("{}")
    with raises_user_error("record.invalid"):
        run(tmp_path / "gans", features, rare_data, tmp_path / "out")


def test_generate_takes_images_of_another_source(demo: Demo, tmp_path: Path) -> None:
    """They are shuffled copies of training images, images of other lesions, and noise."""
    (tmp_path / "gans" / "models").mkdir(parents=True)
    train, test = demo.images["train"]["df"], demo.images["test"]["mel"]
    noise = np.random.default_rng(1).integers(0, 256, (10, 32, 32, 3)).astype(np.uint8)
    pool = np.concatenate([train[:20, ::-1], test[:20], noise])
    header = read_header(demo.rare_data / "train.parquet")
    (tmp_path / "out-sources").mkdir()
    rows = pd.DataFrame(
        {
            "image_id": [f"stylegan-{n}" for n in range(len(pool))],
            "dx": "df",
            "source": "stylegan",
            "pixel_sha256": [pixel_sha256(image) for image in pool],
        }
    )
    with write_image_set(tmp_path / "out-sources" / "stylegan.parquet", header) as out:
        out.write(rows, [encode_png(image) for image in pool])
    count = {"df": len(pool)}
    source = SyntheticSource(
        place="x", images=count, available=count, scaled=0, skipped=0, held_out=[], provenance=None
    )
    write_record(tmp_path / "out-sources" / "sources.json", SyntheticSources(sources={"stylegan": source}))

    made = run(tmp_path / "gans", demo.features, demo.rare_data, tmp_path / "out", classes=["df"])
    quality, accepted = made.quality("stylegan/df"), made.rows("stylegan/df")
    assert (quality.source, quality.drawn, quality.copies) == ("stylegan", 50, 20)
    assert quality.curated == 6, "a fifth of the 30 that are no copies"
    assert len(accepted) == quality.images == 24
    numbers = {int(name.removeprefix("stylegan-")) for name in accepted["image_id"]}
    assert min(numbers) >= 20
    assert len([number for number in numbers if number >= 40]) <= 5, "noise is rejected first"
    assert set(accepted["source"]) == {"stylegan"}
    assert accepted["model_sha256"].isna().all()
    assert "24 images of 50 from stylegan. Fewer than the 40 requested." in made.page("stylegan/df")
    with raises_user_error("image_set.mixed"):
        run(tmp_path / "gans", demo.features, other_split(demo.rare_data, tmp_path), tmp_path / "out")


def test_generate_selects_by_label_from_three_times_as_many(demo: Demo, tmp_path: Path) -> None:
    """Of 50 real images, 30 show another class; as many are used as without the selection."""
    pool = np.concatenate([demo.images["test"]["df"], demo.images["test"]["nv"][:30]])
    add_gan(tmp_path / "gans", "df", build_choosing(pool), demo.rare_data)
    made = run(tmp_path / "gans", demo.features, demo.rare_data, tmp_path / "out", count=20, selection="label")
    quality, features = made.quality("df"), load_features(demo.features)
    label = read_header(demo.rare_data / "train.parquet").classes.index("df")
    assert (quality.selection, quality.images, quality.curated) == ("label", 20, 40)
    assert quality.meeting is not None
    shown = (features.probabilities(made.images("df")).argmax(1) == label).sum()
    assert shown == min(20, quality.meeting)
    assert f"{quality.meeting} samples met the condition of this selection" in made.page("df")


def other_split(rare_data: Path, tmp_path: Path) -> Path:
    """Return a copy of the data with another hash of the split."""
    for name in ("train", "validation"):
        path = rare_data / f"{name}.parquet"
        with write_image_set(
            tmp_path / "other" / f"{name}.parquet", replace(read_header(path), split_sha256="0" * 64)
        ) as out:
            for table in iter_tables(path):
                out.write_table(table)
    return tmp_path / "other"


def test_generate_with_a_generator_as_feature_extractor_fails(rare_data: Path, tmp_path: Path) -> None:
    add_gan(tmp_path / "gans", "df", build_untrained(), rare_data)
    with raises_user_error("features.invalid"):
        run(tmp_path / "gans", tmp_path / "gans" / "models" / "gan-df.keras", rare_data, tmp_path / "out")


def test_rank_best_first_uses_the_worse_of_two_ranks() -> None:
    probability = np.array([0.9, 0.8, 0.1, 0.7, 0.6])
    strangeness = np.array([1.0, 9.0, 0.5, 2.0, 3.0])
    # Ranks by probability 0 1 4 2 3, by strangeness 1 4 0 2 3.
    assert rank_best_first(probability, strangeness).tolist() == [0, 3, 4, 1, 2]
    assert rank_best_first(np.empty(0), np.empty(0)).tolist() == []


@pytest.mark.parametrize("name", ["dcgan", "resnet"])
def test_sample_block_gives_an_image_that_depends_on_its_index_only(name: str) -> None:
    """Among other noise, the image differs by rounding only: half a grey level to 8 bits, and float32."""
    from components.train_gan import architectures

    keras.utils.set_random_seed(1)
    model = architectures.load(name).generator(32)
    latent = model.input_shape[-1]
    block = sample_block(model, "df", latent, 1, 2)
    np.testing.assert_array_equal(block, sample_block(model, "df", latent, 1, 2))
    seed = derive_seed(1, "generate_images", "df")
    noise = np.random.default_rng([seed, 2 * BLOCK_SIZE + 5]).standard_normal((1, latent), np.float32)
    alone = (model.predict_on_batch(noise)[0] + 1) * 127.5
    assert np.abs(block[5] - alone).max() < 0.51
    assert np.abs(block[4] - alone).max() > 1
