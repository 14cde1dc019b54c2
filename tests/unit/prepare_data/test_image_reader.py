"""Untrusted image files: usable ones are converted consistently, the others are rejected with a reason."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from components.prepare_data import image_reader
from components.shared.image_set import decode_png, pixel_sha256

SIZE = 32


@pytest.fixture
def image():
    """A 40×30 px gradient that differs in each flip and rotation."""
    ramp = np.add.outer(np.arange(30) * 3, np.arange(40) * 4)
    return Image.fromarray(np.stack([ramp, 255 - ramp, ramp // 2], axis=2).astype(np.uint8))


def accepted(path):
    got = image_reader.read(path, SIZE)
    assert isinstance(got, image_reader.Accepted), got
    pixels = decode_png(got.png)
    assert pixels.shape == (SIZE, SIZE, 3)
    assert pixels.dtype == np.uint8
    assert got.pixel_sha256 == pixel_sha256(pixels)
    return got, pixels


def refused(path):
    got = image_reader.read(path, SIZE)
    assert isinstance(got, str), "accepted"
    assert got.isprintable()
    assert len(got) < 160
    return got


def expected(image):
    return np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS))


LOSSLESS = {"PNG": ".png", "BMP": ".bmp", "TIFF": ".tif", "WEBP": ".webp"}


@pytest.mark.parametrize("form", LOSSLESS)
def test_read_lossless_file_only_resizes(tmp_path, image, form):
    path = tmp_path / f"a{LOSSLESS[form]}"
    image.save(path, form, **({"lossless": True} if form == "WEBP" else {}))
    got, pixels = accepted(path)
    assert np.array_equal(pixels, expected(image))
    assert (got.size, got.notes) == ((40, 30), ("scaled up",))


@pytest.mark.parametrize("how", [{}, {"progressive": True}, {"subsampling": 0}, {"icc": True}])
@pytest.mark.parametrize("name", ["a.jpg", "a.JPG", "a.jpeg", "a.png"], ids=str)
def test_read_jpeg_of_any_kind_and_suffix_is_accepted(tmp_path, image, how, name):
    how = dict(how)
    if how.pop("icc", False):
        how["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = tmp_path / name
    image.save(path, "JPEG", quality=95, **how)
    pixels = accepted(path)[1]
    assert np.abs(pixels.astype(int) - expected(image)).mean() < 6


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_read_exif_orientation_returns_the_upright_pixels(tmp_path, image, orientation, form):
    # A rotated camera stores the inverse of the transformation that a viewer applies.
    transpose = Image.Transpose
    inverse = [
        None, transpose.FLIP_LEFT_RIGHT, transpose.ROTATE_180, transpose.FLIP_TOP_BOTTOM,
        transpose.TRANSPOSE, transpose.ROTATE_90, transpose.TRANSVERSE, transpose.ROTATE_270,
    ][orientation - 1]  # fmt: skip
    stored = image if inverse is None else image.transpose(inverse)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a{LOSSLESS[form]}"
    stored.save(path, form, exif=exif)
    assert np.array_equal(np.asarray(ImageOps.exif_transpose(Image.open(path))), np.asarray(image))
    got, pixels = accepted(path)
    assert np.array_equal(pixels, expected(image))
    assert ("rotated" in got.notes) == (orientation > 1)


def test_read_invalid_exif_orientation_does_not_rotate(tmp_path, image):
    for value in (0, 9):
        exif = Image.Exif()
        exif[0x0112] = value
        image.save(tmp_path / "a.png", exif=exif)
        got, pixels = accepted(tmp_path / "a.png")
        assert "rotated" not in got.notes
        assert np.array_equal(pixels, expected(image))


def test_read_large_rotated_jpeg_is_decoded_at_reduced_size_and_rotated(tmp_path, image):
    upright = image.resize((640, 480), Image.Resampling.BICUBIC)
    upright.save(tmp_path / "upright.jpg", quality=95)
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "rotated.jpg", quality=95, exif=exif)
    (rotated, rotated_pixels), (_, upright_pixels) = (
        accepted(tmp_path / "rotated.jpg"),
        accepted(tmp_path / "upright.jpg"),
    )
    assert rotated.notes == ("rotated",)
    assert np.abs(rotated_pixels.astype(int) - upright_pixels).mean() < 3


@pytest.mark.parametrize(
    ("mode", "note"), [("L", "grey"), ("1", "grey"), ("P", "palette"), ("RGBA", None), ("LA", "grey")]
)
def test_read_grey_palette_or_opaque_image_is_accepted_with_a_note(tmp_path, image, mode, note):
    image = image.convert(mode)
    image.save(tmp_path / "a.png")
    got, pixels = accepted(tmp_path / "a.png")
    assert np.array_equal(pixels, expected(image))
    assert set(got.notes) - {"scaled up"} == ({note} if note else set())


def test_read_gif_with_one_frame_is_a_palette_image(tmp_path, image):
    image.convert("P").save(tmp_path / "a.gif")
    got, pixels = accepted(tmp_path / "a.gif")
    assert "palette" in got.notes
    assert np.array_equal(pixels, expected(image.convert("P")))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L"])
def test_read_transparent_image_is_refused(tmp_path, image, mode):
    if mode in ("RGBA", "LA"):
        image = image.convert(mode)
        image.putalpha(Image.new("L", image.size, 254))
        image.save(tmp_path / "a.png")
    else:
        image = image.convert(mode)
        first = image.getpixel((0, 0))
        image.save(tmp_path / "a.png", transparency=first)
    assert refused(tmp_path / "a.png") == "partly transparent"


def test_read_unused_transparent_colour_is_accepted(tmp_path, image):
    image.save(tmp_path / "a.png", transparency=(1, 2, 3))
    assert np.array_equal(accepted(tmp_path / "a.png")[1], expected(image))


@pytest.mark.parametrize("mode", ["CMYK", "LAB", "YCbCr"])
def test_read_other_colour_space_is_refused(tmp_path, image, mode):
    image = ImageCms.profileToProfile(
        image, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    ) if mode == "LAB" else image.convert(mode)  # fmt: skip
    image.save(tmp_path / "a.tif")
    assert mode in refused(tmp_path / "a.tif")
    if mode == "CMYK":
        image.save(tmp_path / "a.jpg")
        assert "CMYK" in refused(tmp_path / "a.jpg")


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, bits, colour, data=None, extra=b""):
    """Return a PNG file of a kind that Pillow does not write."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    if data is None:
        data = b"".join(b"\0" + b"\x80" * (width * channels * bits // 8) for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", zlib.compress(data))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("colour", [0, 2, 4, 6])
def test_read_16_bit_png_is_refused(tmp_path, colour):
    (tmp_path / "a.png").write_bytes(png(40, 30, 16, colour))
    assert refused(tmp_path / "a.png") == "more than 8 bits per channel"
    (tmp_path / "b.png").write_bytes(png(40, 30, 8, colour))
    got = image_reader.read(tmp_path / "b.png", SIZE)
    assert got == "partly transparent" if colour > 2 else isinstance(got, image_reader.Accepted)


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_read_16_or_32_bit_grey_tiff_is_refused(tmp_path, mode):
    Image.fromarray(np.full((30, 40), 7, {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode])).save(
        tmp_path / "a.tif"
    )
    assert refused(tmp_path / "a.tif") == "more than 8 bits per channel"


def test_read_16_bit_colour_tiff_is_refused(tmp_path):
    """Pillow does not write this file: 20×20 px, three channels of 16 bits, not compressed."""
    width = height = 20
    entries = [
        (256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, 200), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 300),
        (277, 3, 1, 3), (278, 3, 1, height), (279, 4, 1, width * height * 6), (284, 3, 1, 1),
    ]  # fmt: skip
    data = struct.pack("<2sHIH", b"II", 42, 8, len(entries))
    data += b"".join(struct.pack("<HHII", *entry) for entry in entries) + struct.pack("<I", 0)
    data = data.ljust(200, b"\0") + struct.pack("<HHH", 16, 16, 16)
    (tmp_path / "a.tif").write_bytes(data.ljust(300, b"\0") + b"\x11" * (width * height * 6))
    with Image.open(tmp_path / "a.tif") as image:
        assert image.mode == "RGB"  # the mode alone does not reveal the depth
    assert refused(tmp_path / "a.tif") == "more than 8 bits per channel"


@pytest.mark.parametrize("width", [16, 40, 53, 54, 160, 200, 533, 1600])
@pytest.mark.parametrize("form", ["BMP", "TIFF"])
def test_read_8_bit_image_of_any_width_is_accepted(tmp_path, image, form, width):
    """The row stride is next to the raw mode and must not be mistaken for it: 54 px of BMP are 164 bytes."""
    image = image.resize((width, 30))
    path = tmp_path / f"a{LOSSLESS[form]}"
    image.save(path)
    assert np.array_equal(accepted(path)[1], expected(image))
    if form == "TIFF":
        image.save(path, compression="tiff_lzw")
        assert np.array_equal(accepted(path)[1], expected(image))


def test_read_animated_or_multi_page_image_is_refused(tmp_path, image):
    others = [image.rotate(90), image.rotate(180)]
    for name in ("a.gif", "a.png", "a.webp", "a.tif"):
        image.save(tmp_path / name, save_all=True, append_images=others)
        assert refused(tmp_path / name) == "animated or multi-page (3 frames)"


@pytest.mark.parametrize("name", ["a.jpg", "a.mpo"])
def test_read_photograph_of_a_phone_uses_its_first_frame(tmp_path, image, name):
    image.save(tmp_path / name, "MPO", save_all=True, append_images=[image.rotate(90)], quality=95)
    with Image.open(tmp_path / name) as stored:
        assert (stored.format, stored.n_frames) == ("MPO", 2)
    assert np.abs(accepted(tmp_path / name)[1].astype(int) - expected(image)).mean() < 6


def test_read_stored_image_is_that_of_a_file(tmp_path, image):
    image.save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    grey = np.asarray(image.convert("L"))
    (tmp_path / "many").write_bytes(b"before" + content + np.asarray(image).tobytes() + grey.tobytes())
    after = 6 + len(content)
    encoded = image_reader.Stored(tmp_path / "many", 6, len(content))
    raw = image_reader.Stored(tmp_path / "many", after, 3600, (30, 40, 3))
    of_file = accepted(tmp_path / "a.png")[0]
    assert accepted(encoded)[0] == of_file
    assert accepted(raw)[0] == of_file
    got, pixels = accepted(image_reader.Stored(tmp_path / "many", after + 3600, 1200, (30, 40)))
    assert got.notes == ("grey", "scaled up")
    assert np.array_equal(pixels, expected(image.convert("L")))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF"])
@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.9])
def test_read_truncated_file_is_refused(tmp_path, form, part):
    buffer = io.BytesIO()
    noisy = Image.effect_noise((200, 150), 90).convert("RGB")
    noisy.save(buffer, form)
    whole = buffer.getvalue()
    (tmp_path / "a.jpg").write_bytes(whole[: int(part * len(whole))])
    assert refused(tmp_path / "a.jpg").startswith(("corrupt", "not an image"))


def test_read_file_that_is_not_an_image_is_refused(tmp_path):
    (tmp_path / "empty.jpg").touch()
    assert refused(tmp_path / "empty.jpg") == "empty file"
    (tmp_path / "text.jpg").write_text("<html>404 not found</html>")
    assert refused(tmp_path / "text.jpg").startswith("not an image")
    assert refused(tmp_path / "text.jpg") == "not an image but a web page"
    # For this format, Pillow would run Ghostscript.
    (tmp_path / "script.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 30\n%%EndComments\n")
    assert refused(tmp_path / "script.png").startswith("not an image")
    assert refused(tmp_path / "gone.png") == "file not found"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", image_reader.POINTER),
        (b"\n<!DOCTYPE html>\n<title>Sign in</title>", image_reader.WEB_PAGE),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", image_reader.HEIC),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1", image_reader.HEIC),
        (b"\0" * 128 + b"DICM" + b"\2\0", image_reader.DICOM),
        (b"\0" * 127 + b"DICM", image_reader.NO_IMAGE),
    ],
)
def test_read_of_another_kind_of_file_names_it(tmp_path, content, reason):
    (tmp_path / "a.jpg").write_bytes(content)
    assert refused(tmp_path / "a.jpg") == reason
    assert image_reader.read(image_reader.Stored(tmp_path / "a.jpg", 0, len(content)), 32) == reason


def test_read_checks_the_minimum_size(tmp_path, image):
    for width, height in ((1, 1), (15, 40), (40, 15)):
        image.resize((width, height)).save(tmp_path / "a.png")
        assert refused(tmp_path / "a.png") == f"too small to show anything ({width}×{height})"
    for width, height in ((16, 16), (16, 5000), (5000, 16)):
        image.resize((width, height)).save(tmp_path / "a.png")
        assert accepted(tmp_path / "a.png")[0].size == (width, height)


@pytest.mark.parametrize(("width", "height"), [(8001, 8000), (12000, 12000), (60000, 60000), (2**31 - 1, 16)])
def test_read_decompression_bomb_is_refused_before_decoding(tmp_path, width, height):
    data = zlib.compress(b"\0" * 4_000_000)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert refused(tmp_path / "a.png").startswith("more than 64,000,000 pixels")


def test_read_decompression_bomb_in_a_text_chunk_is_refused(tmp_path):
    bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * 50_000_000))
    (tmp_path / "a.png").write_bytes(png(40, 30, 8, 2, extra=bomb))
    assert refused(tmp_path / "a.png").startswith("corrupt")


def test_read_ignores_text_and_icc_chunks(tmp_path, image):
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "<script>alert(1)</script>" * 100, zip=True)
    image.save(tmp_path / "a.png", pnginfo=info, icc_profile=b"not a profile")
    assert np.array_equal(accepted(tmp_path / "a.png")[1], expected(image))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_read_corrupt_bytes_returns_an_image_or_a_reason(tmp_path, image, data):
    form = data.draw(st.sampled_from(["JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF"]))
    buffer = io.BytesIO()
    image.save(buffer, form)
    raw = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "a.jpg"
    path.write_bytes(raw)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got = image_reader.read(path, SIZE)
    if isinstance(got, str):
        assert got.isprintable()
    else:
        assert decode_png(got.png).shape == (SIZE, SIZE, 3)
