import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.ndimage import gaussian_filter
from sklearn.metrics.pairwise import euclidean_distances, polynomial_kernel
from sklearn.neighbors import NearestNeighbors

from components.prepare_data.prepare import prepare
from components.shared import sample_metrics
from components.shared.features import Features, _network, load_features, train_features
from components.shared.image_set import open_pixels
from components.shared.sample_metrics import (
    NEIGHBOURS,
    density_and_coverage,
    distances,
    kid,
    neighbour_radii,
    texture,
)
from tests.helpers.errors import raises_user_error


def independent_kid(real: np.ndarray, fake: np.ndarray) -> float:
    """Return the unbiased estimate with scikit-learn's kernel, which by default differs from KID in the degree only."""

    def within(images: np.ndarray) -> float:
        values = polynomial_kernel(images, degree=3, coef0=1)
        return float(values[~np.eye(len(images), dtype=bool)].mean())

    return within(real) + within(fake) - 2 * float(polynomial_kernel(real, fake, degree=3, coef0=1).mean())


@pytest.mark.parametrize(("reals", "fakes"), [(2, 2), (7, 12), (20, 5)])
def test_kid_agrees_with_an_independent_implementation(reals: int, fakes: int):
    rng = np.random.default_rng(reals)
    real, fake = rng.normal(size=(reals, 6)), rng.normal(0.4, 1.3, size=(fakes, 6))
    assert kid(real, fake) == pytest.approx(independent_kid(real, fake), rel=1e-10)


def test_kid_is_unbiased_for_all_sample_sizes():
    """Between samples of one distribution its mean is 0; between two it is their true distance."""
    rng = np.random.default_rng(0)
    same = [kid(rng.normal(size=(5, 2)), rng.normal(size=(30, 2))) for _ in range(4000)]
    assert abs(np.mean(same)) < 4 * np.std(same) / len(same) ** 0.5
    # Features that are constant, a and b: k(a,a) + k(b,b) − 2 k(a,b), whose estimate is exact.
    assert kid(np.full((3, 1), 2.0), np.full((4, 1), 1.0)) == pytest.approx(125 + 8 - 2 * 27)


def independent_density_and_coverage(real: np.ndarray, fake: np.ndarray, k: int) -> tuple[float, float]:
    """Compute both with scikit-learn's neighbours, one synthetic image and one ball at a time."""
    radii = NearestNeighbors(n_neighbors=k + 1).fit(real).kneighbors(real)[0][:, -1]
    apart = euclidean_distances(fake, real)
    density = np.mean([np.sum(row < radii) / k for row in apart])
    size = min(len(real), len(fake))
    coverage = np.mean(
        [
            any(apart[start : start + size, i] < radius)
            for i, radius in enumerate(radii)
            for start in range(0, len(fake) - size + 1, size)
        ]
    )
    return float(density), float(coverage)


def test_coverage_does_not_grow_with_the_number_of_synthetic_images():
    """Of two overlapping distributions, a thousand images would cover all of 40 real ones."""
    rng = np.random.default_rng(0)
    real, other = rng.normal(size=(40, 8)), rng.normal(0.8, 1, size=(1000, 8))
    few, many = density_and_coverage(real, other[:40])[1], density_and_coverage(real, other)[1]
    # A share of 40 images has a standard deviation of at most √(0.25 / 40) = 0.08; three of them.
    assert few == pytest.approx(many, abs=0.24)
    assert many < 0.7
    inside = np.linalg.norm(real[:, None] - other, axis=2) < neighbour_radii(real, NEIGHBOURS)[:, None]
    assert inside.any(axis=1).mean() > 0.9


@settings(max_examples=30, deadline=None)
@given(st.integers(7, 40), st.integers(1, 60), st.integers(1, 6), st.floats(0, 3), st.integers(0, 1000))
def test_density_and_coverage_agree_with_an_independent_implementation(
    reals: int, fakes: int, k: int, shift: float, seed: int
):
    rng = np.random.default_rng(seed)
    real, fake = rng.normal(size=(reals, 8)), rng.normal(shift, 1, size=(fakes, 8))
    assert density_and_coverage(real, fake, k) == pytest.approx(independent_density_and_coverage(real, fake, k))


def test_density_and_coverage_of_known_distributions():
    rng = np.random.default_rng(0)
    real, same = rng.normal(size=(400, 4)), rng.normal(size=(400, 4))
    density, coverage = density_and_coverage(real, same)
    assert density == pytest.approx(1, abs=0.1)
    assert coverage == pytest.approx(1 - 2**-5, abs=0.03)  # expected for equal distributions (section 3.3 of the paper)
    assert density_and_coverage(real, real[:1] + 1e-9 + np.zeros((400, 4)))[1] < 0.1  # one image, repeated
    assert density_and_coverage(real, same + 100) == (0, 0)
    # Two real images at a distance of 1: k is at most 1.
    assert density_and_coverage(np.array([[0.0], [1.0]]), np.array([[0.5], [1.5]])) == (1.5, 1.0)


def test_coverage_in_groups_is_that_of_fewer_synthetic_images():
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(40, 8)), rng.normal(size=(25, 8))
    density, coverage = density_and_coverage(real, fake, group=10)
    groups = [density_and_coverage(real, part) for part in (fake[:10], fake[10:20])]
    assert coverage == pytest.approx(np.mean([of_group for _, of_group in groups]))
    assert density == density_and_coverage(real, fake)[0]
    assert coverage < density_and_coverage(real, fake)[1]


def test_memory_grows_with_the_number_of_images_not_with_that_of_pairs(monkeypatch: pytest.MonkeyPatch):
    """Blocks of 50 rows and 2,000 columns have 0.8 MB per array, of which fewer than 20 exist at a time."""
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(2_000, 8)), rng.normal(0.2, 1, size=(2_000, 8))
    groups = rng.integers(0, 3, len(real))

    def compute() -> list[np.ndarray]:
        values = kid(real, fake, groups), neighbour_radii(real, NEIGHBOURS), density_and_coverage(real, fake)
        return [np.asarray(value) for value in values]

    whole = compute()
    monkeypatch.setattr(sample_metrics, "BLOCK_PAIRS", 100_000)
    tracemalloc.start()
    in_blocks = compute()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * 8 * 100_000
    for one, other in zip(in_blocks, whole, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10)


@given(arrays.arrays(np.float64, (4, 3), elements=st.floats(-1e3, 1e3)))
def test_distances_are_euclidean(points: np.ndarray):
    direct = np.array([[np.linalg.norm(a - b) for b in points] for a in points])
    np.testing.assert_allclose(distances(points, points), direct, atol=1e-4)


Demo = tuple[dict[str, np.ndarray], dict[str, np.ndarray], Features]


@pytest.fixture(scope="session")
def demo(demo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """Return demo images by class, of training and validation, and the feature extractor of the former."""
    folder = tmp_path_factory.mktemp("quality")
    parts = {name: folder / name for name in ("training_data", "test_data", "data_profile")}
    prepare(str(demo_folder), "random", "move_to_train", 48, "auto", 0, 1, **parts)
    train_features(folder / "training_data" / "train.parquet", 3, folder / "features.keras", "test")
    sets = []
    for split in ("train", "validation"):
        with open_pixels(folder / "training_data" / f"{split}.parquet", split) as pixels:
            names = np.array(pixels.header.classes)[pixels.labels]
            sets.append({dx: np.array(pixels.images[names == dx]) for dx in pixels.header.classes})
    return sets[0], sets[1], load_features(folder / "features.keras")


def degrade(images: np.ndarray) -> dict[str, np.ndarray]:
    """Return images with the faults of a bad GAN."""
    rng, values = np.random.default_rng(0), images.astype(float)
    checks = np.indices(images.shape[1:3]).sum(0)[..., None] % 2 * 2 - 1
    degraded = {
        "blurred": gaussian_filter(values, (0, 2, 2, 0)),
        "noised": values + rng.normal(0, 12, values.shape),
        "checkerboard": values + 8 * checks,
        "one image": np.repeat(values[:1], 40, axis=0),
    }
    return {name: np.clip(np.rint(value), 0, 255).astype(np.uint8) for name, value in degraded.items()}


def test_texture_is_the_share_of_fine_detail():
    rng = np.random.default_rng(0)

    def waves(amplitude: float, noise: float) -> np.ndarray:
        """Return waves of 32 pixels with noise, which has the same power at every wavelength."""
        broad = amplitude * np.sin(np.arange(64) / 32 * 2 * np.pi)[:, None] + rng.normal(0, noise, (200, 64, 64))
        return np.clip(np.rint(128 + broad), 0, 255).astype(np.uint8)[..., None].repeat(3, axis=3)

    real = waves(40, 12)
    assert texture(real, real) == 1
    assert texture(real, waves(40, 12)) == pytest.approx(1, rel=0.02)
    assert texture(real, waves(20, 12)) == pytest.approx(1, rel=0.02)  # long waves do not count
    assert texture(real, waves(40, 6)) == pytest.approx(36 / 144, rel=0.03)
    assert texture(waves(40, 6), real) == pytest.approx(144 / 36, rel=0.03)
    # Rounding to grey levels is noise with a variance of 1/12, which is also the minimum for a uniform image.
    even = np.full((3, 64, 64, 3), 90, np.uint8)
    assert texture(real, even) == pytest.approx((1 / 12) / (144 + 1 / 12 + 1 / 12), rel=0.05)
    assert texture(even, even) == 1
    assert texture(real[:1], real[:1, ::-1]) == pytest.approx(1)


def test_kid_with_groups_is_that_of_a_set_in_which_they_are_equally_frequent():
    rng = np.random.default_rng(0)

    def draw(first: int, second: int) -> np.ndarray:
        return np.concatenate([rng.normal(0, 1, (first, 2)), rng.normal(2, 1, (second, 2))])

    groups = np.repeat([3, 7], [40, 10])
    heads = rng.binomial(20, 0.5, 1500)  # samples of the generator are independent of each other
    grouped = np.array([kid(draw(40, 10), draw(head, 20 - head), groups) for head in heads])
    plain = np.array([kid(draw(40, 10), draw(head, 20 - head)) for head in heads])
    assert abs(grouped.mean()) < 4 * grouped.std() / np.sqrt(len(heads))
    assert plain.mean() > 20 * plain.std() / np.sqrt(len(heads))


def test_features_give_degraded_and_other_data_a_larger_kid(demo: Demo):
    train, validation, features = demo
    # The only class with more than a dozen validation lesions: with fewer, KID does not resolve small faults.
    reference = features(validation["nv"])
    same = kid(reference, features(train["nv"]))
    others = {dx: kid(reference, features(images)) for dx, images in train.items() if dx != "nv"}
    worse = {name: kid(reference, features(images)) for name, images in degrade(train["nv"]).items()}
    assert abs(same) < 0.15
    assert min(worse.values()) > max(0.3, 3 * abs(same)), (same, worse)
    assert min(others.values()) > max(0.1, 2 * abs(same)), (same, others)


def test_features_are_standardised(demo: Demo):
    train, _, features = demo
    values, probabilities = features.both(np.concatenate(list(train.values())))
    assert values.shape == (sum(map(len, train.values())), 224)
    assert values.dtype == np.float64
    np.testing.assert_allclose(np.sinh(values).mean(0), 0, atol=1e-4)  # features are the arcsinh of standardised values
    assert np.median(np.sinh(values).std(0)) == pytest.approx(1, abs=1e-4)
    assert np.sinh(values).std(0).max() < 1 + 1e-4
    noise = np.random.default_rng(0).integers(0, 256, (20, 48, 48, 3), dtype=np.uint8)
    assert np.abs(features(noise)).max() < 10  # no channel that hardly varies over real images dominates
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    labels = np.repeat(np.arange(7), [len(images) for images in train.values()])
    recalls = [(probabilities[labels == label].argmax(1) == label).mean() for label in range(7)]
    assert np.mean(recalls) > 0.5
    assert min(recalls) > 0.2  # all classes have equal weight


def test_train_features_with_the_same_seed_gives_the_same_bytes(make_set: Callable[..., Path], tmp_path: Path):
    make_set(tmp_path / "train", "train", {"df": 6, "nv": 30, "vasc": 8})
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train_features(tmp_path / "train", seed, tmp_path / f"{name}.keras", "test")
    a, b, c = ((tmp_path / f"{name}.keras").read_bytes() for name in "abc")
    assert a == b
    assert a != c
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    features = load_features(tmp_path / "a.keras")
    both = features.both(images)
    np.testing.assert_array_equal(both[0], features(images))
    np.testing.assert_array_equal(both[1], features.probabilities(images))
    assert both[0].shape == (5, 224)
    assert both[1].shape == (5, 3)


def test_load_features_of_another_file_fails(tmp_path: Path):
    (tmp_path / "text.keras").write_text("no model")
    with zipfile.ZipFile(tmp_path / "empty.keras", "w") as file:
        file.writestr("config.json", "{}")
    inputs = keras.Input((8, 8, 3))
    keras.Model(inputs, keras.layers.Flatten()(inputs)).save(tmp_path / "other.keras")
    for name in ("text", "empty", "other", "absent"):
        with raises_user_error("features.invalid"):
            load_features(tmp_path / f"{name}.keras")


@pytest.mark.parametrize("size", [32, 48, 128, 256])
def test_build_accepts_every_image_size(size: int):
    inputs, features, probabilities = _network(7, size)
    assert inputs.shape == (None, size, size, 3)
    assert features.shape == (None, 224)
    assert probabilities.shape == (None, 7)
    assert keras.Model(inputs, probabilities).count_params() < 200_000
