from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from components.shared.checkpoint import Folder
from components.shared.image_set import decoded
from components.train_gan.quality import features_of, kid, networks


def independent(real: np.ndarray, fake: np.ndarray) -> float:
    """The unbiased estimator, pair by pair."""

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return (sum(x * y for x, y in zip(a, b, strict=True)) / len(a) + 1) ** 3

    def within(images: np.ndarray) -> float:
        pairs = [kernel(images[i], images[j]) for i in range(len(images)) for j in range(len(images)) if i != j]
        return float(np.mean(pairs))

    return within(real) + within(fake) - 2 * float(np.mean([kernel(a, b) for a in real for b in fake]))


@pytest.mark.parametrize(("reals", "fakes"), [(2, 2), (7, 12), (20, 5)])
def test_kid_against_an_independent_implementation(reals: int, fakes: int):
    rng = np.random.default_rng(reals)
    real, fake = rng.normal(size=(reals, 6)), rng.normal(0.4, 1.3, size=(fakes, 6))
    assert kid(real, fake) == pytest.approx(independent(real, fake), rel=1e-10)


def test_kid_is_unbiased_whatever_the_sizes():
    """Between samples of one distribution its mean is 0; between two it is their true distance."""
    rng = np.random.default_rng(0)
    same = [kid(rng.normal(size=(5, 2)), rng.normal(size=(30, 2))) for _ in range(4000)]
    assert abs(np.mean(same)) < 4 * np.std(same) / len(same) ** 0.5
    # Features that are constant, a and b: k(a,a) + k(b,b) − 2 k(a,b), whose estimate needs no luck.
    assert kid(np.full((3, 1), 2.0), np.full((4, 1), 1.0)) == pytest.approx(125 + 8 - 2 * 27)


Features = Callable[[np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def pictures(make_set: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Features]:
    folder = tmp_path_factory.mktemp("quality")
    make_set(folder / "train", "train", {"df": 60, "nv": 150, "vasc": 40})
    make_set(folder / "validation", "validation", {"df": 20, "nv": 20, "vasc": 20})
    return folder, features_of(folder / "train", 3, Folder(folder / "kept"), "features", "test")


def test_features_rank_what_a_person_would(pictures: tuple[Path, Features]):
    folder, features = pictures
    with decoded(folder / "validation", "validation", "df") as pixels:
        real = np.array(pixels.images)
    with decoded(folder / "train", "train", "df") as pixels:
        same = np.array(pixels.images)
    with decoded(folder / "train", "train", "vasc") as pixels:
        other = np.array(pixels.images)
    blurred = same.copy().astype(float)
    for axis in (1, 2):
        blurred = (np.roll(blurred, 1, axis) + blurred + np.roll(blurred, -1, axis)) / 3
    checkers = same.astype(int)
    checkers[:, ::2, ::2] += 40
    checkers[:, 1::2, 1::2] -= 40
    fakes = {
        "same": same,
        "blurred": np.rint(blurred).astype(np.uint8),
        "checkers": np.clip(checkers, 0, 255).astype(np.uint8),
        "other class": other,
        "one image": np.repeat(same[:1], 40, axis=0),
    }
    reference = features(real)
    values = {name: kid(reference, features(images)) for name, images in fakes.items()}
    best = values.pop("same")
    assert all(value > 3 * abs(best) for value in values.values()), (best, values)


def test_features_are_on_one_scale(pictures: tuple[Path, Features]):
    folder, features = pictures
    with decoded(folder / "train", "train") as pixels:
        seen = features(pixels.images)
    assert seen.shape == (250, 224)
    assert np.abs(seen.mean(0)).max() < 1e-6
    assert np.median(seen.std(0)) == pytest.approx(1)
    assert seen.std(0).max() < 1 + 1e-6
    noise = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    assert np.abs(features(noise)).max() < 1e4  # no channel that is silent on real images decides alone


def test_what_was_kept_is_the_same_and_a_damaged_one_is_made_anew(pictures: tuple[Path, Features]):
    folder, features = pictures
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    expected = features(images)
    kept = folder / "kept" / "features"
    data = kept.read_bytes()
    again = features_of("no such file", 3, Folder(folder / "kept"), "features", "test")
    np.testing.assert_array_equal(again(images), expected)
    kept.write_bytes(data[:-100])
    anew = features_of(folder / "train", 3, Folder(folder / "kept"), "features", "test")
    np.testing.assert_array_equal(anew(images), expected)
    assert kept.read_bytes() == data


@pytest.mark.parametrize("size", [32, 48, 128, 256])
def test_the_classifier_takes_every_size(size: int):
    classifier, seer = networks(7, size)
    assert classifier.output_shape == (None, 7)
    assert seer.output_shape == (None, 224)
    assert classifier.count_params() < 200_000
