"""Near-duplicates are detected after common edits; similar lesions are not flagged."""

import io
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from components.prepare_data import near_duplicates
from tests.helpers.errors import raises_user_error

SIZE = 64


def saved(image, quality):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def cropped(image, share):
    width, height = image.size
    left, top = round(share / 2 * width), round(share / 2 * height)
    return image.crop((left, top, width - left, height - top))


COPIES = {
    "jpeg 60": lambda image: saved(image, 60),
    "jpeg 95": lambda image: saved(image, 95),
    "smaller": lambda image: saved(image.resize((186, 140)), 85),
    "half": lambda image: saved(image.resize((100, 75)), 85),
    "larger": lambda image: saved(image.resize((290, 220)), 85),
    "brighter": lambda image: saved(ImageEnhance.Brightness(image).enhance(1.15), 85),
    "darker": lambda image: saved(ImageEnhance.Brightness(image).enhance(0.7), 85),
    "contrast": lambda image: saved(ImageEnhance.Contrast(image).enhance(1.2), 85),
    "grey": lambda image: saved(image.convert("L").convert("RGB"), 85),
    "blurred": lambda image: saved(image.filter(ImageFilter.GaussianBlur(1)), 85),
    "mirrored": lambda image: saved(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 70),
    "upside down": lambda image: saved(image.transpose(Image.Transpose.FLIP_TOP_BOTTOM), 70),
    "rotated 90°": lambda image: saved(image.transpose(Image.Transpose.ROTATE_90), 70),
    "rotated 180°": lambda image: saved(image.transpose(Image.Transpose.ROTATE_180), 70),
    "rotated 270°": lambda image: saved(image.transpose(Image.Transpose.ROTATE_270), 70),
    "transposed": lambda image: saved(image.transpose(Image.Transpose.TRANSPOSE), 70),
    "transversed": lambda image: saved(image.transpose(Image.Transpose.TRANSVERSE), 70),
}
CROPS = {"crop 2 %": 0.02, "crop 3 %": 0.03}


def thumbnail(image, size=SIZE):
    small = image.resize((size, size), Image.Resampling.LANCZOS)
    return np.frombuffer(near_duplicates.thumbnail(small), np.uint8).reshape(32, 32)


@pytest.fixture(scope="module")
def demo_set(demo_folder):
    """The images of the demo set and their lesions."""
    table = pd.read_csv(demo_folder / "HAM10000_metadata.csv")
    files = {path.stem: path for path in demo_folder.rglob("*.jpg")}
    images = [Image.open(files[name]).convert("RGB") for name in table["image_id"]]
    return images, table["lesion_id"].to_numpy()


@pytest.fixture(scope="module")
def known(demo_set):
    thumbnails = np.stack([thumbnail(image) for image in demo_set[0]])
    return thumbnails, near_duplicates.perceptual_hashes(thumbnails)


def recall(images, hashes, thumbnails=None):
    """Return the share of images that match the demo image of the same index, and all matches."""
    pairs = near_duplicates.pairs(np.stack(images), hashes, thumbnails)
    return len({n for n, m in pairs if n == m}) / len(images), pairs


@pytest.mark.parametrize("name", COPIES)
def test_pairs_finds_edited_copies_with_pixels_and_by_hash_alone(demo_set, known, name):
    thumbnails, hashes = known
    copies = [thumbnail(COPIES[name](image)) for image in demo_set[0][:100]]
    assert recall(copies, hashes, thumbnails)[0] >= 0.99
    assert recall(copies, hashes)[0] >= 0.98


@pytest.mark.parametrize("name", CROPS)
def test_pairs_finds_slightly_cropped_copies_with_pixels(demo_set, known, name):
    thumbnails, hashes = known
    copies = [thumbnail(saved(cropped(image, CROPS[name]), 85)) for image in demo_set[0][:100]]
    assert recall(copies, hashes, thumbnails)[0] >= 0.95


@pytest.mark.parametrize("size", [32, 128])
def test_pairs_finds_rotated_copies_at_any_image_size(demo_set, size):
    images = demo_set[0][:60]
    thumbnails = np.stack([thumbnail(image, size) for image in images])
    hashes = near_duplicates.perceptual_hashes(thumbnails)
    copies = [thumbnail(COPIES["rotated 90°"](image), size) for image in images]
    assert recall(copies, hashes, thumbnails)[0] == 1


def test_pairs_of_the_demo_set_are_of_one_lesion(demo_set, known):
    lesions = demo_set[1]
    thumbnails, hashes = known
    for pairs in (near_duplicates.pairs(thumbnails, hashes, thumbnails), near_duplicates.pairs(thumbnails, hashes)):
        first, second = pairs.T
        assert (lesions[first] == lesions[second]).all()
        assert set(range(len(lesions))) <= {n for n, m in pairs.tolist() if n == m}


def test_pairs_of_uniform_images_is_empty():
    plain = np.stack([np.full((32, 32), level, np.uint8) for level in (0, 90, 91, 255)])
    hashes = near_duplicates.perceptual_hashes(plain)
    assert len(near_duplicates.pairs(plain, hashes, plain)) == 0
    assert len(near_duplicates.pairs(plain, hashes)) == 0


def test_agreement_of_noise_is_high_only_with_itself():
    noise = np.random.default_rng(0).integers(0, 256, (50, 32, 32), np.uint8)
    assert near_duplicates.agreement(noise, noise) == pytest.approx(np.ones(50), abs=1e-3)
    assert near_duplicates.agreement(noise, noise[::-1]).max() < 0.2
    hashes = near_duplicates.perceptual_hashes(noise)
    assert near_duplicates.pairs(noise, hashes, noise).tolist() == [[n, n] for n in range(50)]
    assert near_duplicates.pairs(noise[:0], hashes, noise).shape == (0, 2)
    assert near_duplicates.pairs(noise, [], noise[:0]).shape == (0, 2)


def test_perceptual_hashes_are_the_signs_of_the_cosine_transform():
    from scipy.fft import dctn

    thumb = np.random.default_rng(1).integers(0, 256, (32, 32), np.uint8)
    signs = dctn(thumb - thumb.mean(), type=2)[:16, :16] > 1e-6
    words = bytes.fromhex(near_duplicates.perceptual_hashes(thumb[None])[0])
    bits = np.unpackbits(np.frombuffer(words, np.uint8)).astype(bool)
    assert len(words) == 32
    assert np.array_equal(bits[:64], signs[:8, :8].ravel())
    assert bits.sum() == signs.sum()


def test_pairs_compares_more_than_one_block_and_chunk():
    """Compare more known images than fit in one block, and more queries than fit in one chunk."""
    noise = np.random.default_rng(2).integers(0, 256, (9000, 32, 32), np.uint8)
    hashes = near_duplicates.perceptual_hashes(noise)
    queries = noise[np.r_[0:5, 8190:8195, 8999, np.zeros(1500, int)]]
    pairs = near_duplicates.pairs(queries, hashes, noise)
    assert pairs[:11].tolist() == [[n, m] for n, m in enumerate([*range(5), *range(8190, 8195), 8999])]
    assert pairs[11:].tolist() == [[n, 0] for n in range(11, 1511)]


def test_pairs_of_images_of_one_group_are_omitted(known):
    thumbnails, hashes = known
    groups = np.arange(len(hashes)) // 2
    pairs = near_duplicates.pairs(thumbnails, hashes, thumbnails, groups, groups)
    assert (groups[pairs[:, 0]] != groups[pairs[:, 1]]).all()


def test_pairs_of_thousands_of_copies_raises_within_bounded_memory(known, monkeypatch):
    monkeypatch.setattr(near_duplicates, "MAX_PAIRS", 5 * near_duplicates.COMPARED_PAIRS)
    noise = np.random.default_rng(0).integers(-2, 3, (3000, 32, 32))
    copies = np.clip(known[0][0].astype(int) + noise, 0, 255).astype(np.uint8)
    tracemalloc.start()
    with raises_user_error("leakage.too_many_pairs"):
        near_duplicates.pairs(copies, near_duplicates.perceptual_hashes(copies), copies)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # At a time, the regressions of 4,096 pairs have 28 × 28 rows of 8 float32, twice: 206 MB each.
    assert peak < 10**9
