"""Open raw images as untrusted input, and convert them to one format without guessing."""

import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from components.prepare_data.near_duplicates import thumbnail
from components.shared.errors import printable
from components.shared.image_set import encode_png, pixel_sha256

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF")
SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif",
)  # fmt: skip
MAX_PIXELS = 64_000_000
"""A larger image is rejected before it is decoded: a file of a few kB can claim gigabytes."""
MAX_BYTES = 64 * 2**20
"""Maximum size of an image within a file of many."""
MIN_SIZE_PX = 16

NO_IMAGE = f"not an image ({', '.join(FORMATS)})"
OVER_8_BITS, TRANSPARENT = "more than 8 bits per channel", "partly transparent"
DENIED, EMPTY, CMYK = "permission denied", "empty file", "unsupported colour space CMYK"
POINTER, WEB_PAGE = "not an image but a Git LFS pointer", "not an image but a web page"
HEIC, DICOM = "HEIC or AVIF under another suffix", "DICOM under another suffix"
_BEGINNINGS = {
    POINTER: re.compile(rb"version https://git-lfs"),
    WEB_PAGE: re.compile(rb"\s*<(!doctype html|html)\b", re.IGNORECASE),
    HEIC: re.compile(rb".{4}ftyp(hei|hev|mif1|msf1|avif)", re.DOTALL),
    DICOM: re.compile(rb".{128}DICM", re.DOTALL),
}
"""What a file is that no decoder accepts → how it begins."""

Image.init()  # loads the codecs once, before the worker processes fork


@dataclass(frozen=True, slots=True)
class Stored:
    """An image within a file of many.

    Attributes:
        path: the file.
        start: position of the image's first byte.
        length: number of bytes.
        shape: of raw pixels, (H, W) or (H, W, 3) uint8; None for an encoded image.
    """

    path: Path
    start: int
    length: int
    shape: tuple[int, ...] | None = None

    def read(self) -> bytes:
        """Return the bytes."""
        with self.path.open("rb") as file:
            file.seek(self.start)
            return file.read(self.length)


RawImage = Path | Stored


@dataclass(frozen=True)
class Accepted:
    """A usable image.

    Attributes:
        png: the resized image's PNG bytes.
        pixel_sha256: hash of the resized pixels.
        thumbnail: thumbnail of the resized pixels, see `near_duplicates.thumbnail`.
        size: width and height of the original, in pixels.
        notes: conversions that the data profile reports.
    """

    png: bytes
    pixel_sha256: str
    thumbnail: bytes
    size: tuple[int, int]
    notes: tuple[str, ...] = ()


def read(file: RawImage, size: int) -> Accepted | str:
    """Open, check and resize one image to `size` × `size` px, RGB; the aspect ratio is not kept.

    Returns:
        The image, or the reason why it cannot be used without guessing.
    """
    try:
        if isinstance(file, Path) and not file.stat().st_size:
            return EMPTY
        with _open(file) as image:
            return _convert(image, size)
    except UnidentifiedImageError:
        return _explain(file)
    except Image.DecompressionBombError:
        return f"more than {MAX_PIXELS:,} pixels"
    except FileNotFoundError:
        return "file not found"
    except PermissionError:
        return DENIED
    except MemoryError:
        return "not enough memory to decode"
    except Exception as error:  # decoders raise undocumented exceptions on malformed bytes
        return f"corrupt ({printable(str(error))[:80] or type(error).__name__})"


def _explain(file: RawImage) -> str:
    """Return what a file is that no decoder accepts."""
    try:
        if isinstance(file, Path):
            with file.open("rb") as content:
                start = content.read(256)
        else:
            start = file.read()[:256]
    except OSError:
        return NO_IMAGE
    return next((what for what, beginning in _BEGINNINGS.items() if beginning.match(start)), NO_IMAGE)


def _over_8_bits(image: Image.Image) -> bool:
    """Return whether a channel has more than 8 bits.

    Pillow opens 16-bit colour as if it had 8; only the decoder's raw mode shows it.
    """
    if image.mode.startswith(("I", "F")):
        return True
    if not isinstance(image, ImageFile.ImageFile):
        return False
    raw_modes = [str(tile.args[0] if isinstance(tile.args, tuple) else tile.args) for tile in image.tile]
    # `BGR;16` is a bitmap with 16 bits for all three channels.
    return any(";16" in raw and not raw.startswith("BGR") for raw in raw_modes)


def _alpha(image: Image.Image) -> Image.Image:
    """Return the alpha channel, without a copy of the other channels if the image has one."""
    return (image if image.mode in ("RGBA", "LA") else image.convert("RGBA")).getchannel("A")


def _open(file: RawImage) -> Image.Image:
    """Return an image that is not decoded yet."""
    if isinstance(file, Path):
        return Image.open(file, formats=FORMATS)
    content = file.read()
    if file.shape is None:
        return Image.open(io.BytesIO(content), formats=FORMATS)
    return Image.fromarray(np.frombuffer(content, np.uint8).reshape(file.shape))


def _convert(image: Image.Image, size: int) -> Accepted | str:
    """Check an image and resize it, see `read`."""
    original = image.size
    if original[0] * original[1] > MAX_PIXELS:
        return f"more than {MAX_PIXELS:,} pixels ({original[0]}×{original[1]})"
    if min(original) < MIN_SIZE_PX:
        return f"too small to show anything ({original[0]}×{original[1]})"
    # A phone's MPO holds one photograph and previews or depth of it; the first frame is the photograph.
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        return f"animated or multi-page ({frames} frames)"
    if _over_8_bits(image):
        return OVER_8_BITS
    if image.mode not in ("RGB", "L", "1", "P", "RGBA", "LA", "PA"):
        return f"unsupported colour space {image.mode}"
    notes: tuple[str, ...] = ()
    if image.mode in ("L", "1", "LA"):
        notes += ("grey",)
    if image.mode in ("P", "PA"):
        notes += ("palette",)
    rotated = image.getexif().get(0x0112) in range(2, 9)  # cameras also write 0, which means unknown
    if rotated:
        notes += ("rotated",)
    if min(original) < size:
        notes += ("scaled up",)
    image.draft(None, (2 * size, 2 * size))  # a large JPEG is decoded at a fraction of its size
    if rotated:
        ImageOps.exif_transpose(image, in_place=True)
    may_be_transparent = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    if may_be_transparent and any(_alpha(image).histogram()[:255]):
        return TRANSPARENT
    colour = image if image.mode == "RGB" else image.convert("RGB")
    small = colour.resize((size, size), Image.Resampling.LANCZOS)
    small.info = {}  # otherwise the PNG would contain the original's ICC profile and text
    return Accepted(encode_png(small), pixel_sha256(np.asarray(small)), thumbnail(small), original, notes)
