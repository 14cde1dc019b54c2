"""Raw image files: found, opened as hostile input, and brought to one form without guessing."""

import filecmp
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from components.prepare_data import scan
from components.prepare_data.near_duplicates import thumbnail
from components.shared.errors import UserError, printable
from components.shared.image_set import encode_png, pixel_sha256

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif")
MAX_PIXELS = 64_000_000
"""An image with more is refused before it is decoded: a file of a few kB can claim gigabytes."""
MIN_SIDE = 16

Image.init()  # loads the codecs here, once, and not in each worker process


def index(folder: Path) -> dict[str, Path]:
    """Image files at any depth below a folder, by their name without the suffix.

    A name that stands twice with the same bytes, as in Kaggle's release, is one image.

    Raises:
        UserError: two different images have one name.
    """
    found: dict[str, Path] = {}
    for path in scan.scan(folder).files:
        if path.suffix.lower() not in SUFFIXES:
            continue
        first = found.setdefault(path.stem, path)
        if first is not path and not filecmp.cmp(first, path, shallow=False):
            names = f"{first.relative_to(folder)} and {path.relative_to(folder)}"
            raise UserError(f"two different images have one id ({names})", "remove the wrong one", "images.repeated_id")
    return found


@dataclass(frozen=True)
class Accepted:
    """An image that can be used.

    Attributes:
        png: the resized image's PNG bytes.
        pixel_sha256: hash of the resized pixels.
        thumbnail: of the resized pixels, see `duplicates`.
        size: width and height of the original, in pixels.
        notes: what was done to it that a reader of the profile should know.
    """

    png: bytes
    pixel_sha256: str
    thumbnail: bytes
    size: tuple[int, int]
    notes: tuple[str, ...] = ()


def read(path: Path, size: int) -> Accepted | str:
    """Opens, checks and resizes one image file to `size` × `size` px, RGB; its sides are scaled each for itself.

    Returns:
        The image, or the reason why it can't be used without guessing.
    """
    try:
        return _read(path, size) if path.stat().st_size else "an empty file"
    except UnidentifiedImageError:
        return f"not an image ({', '.join(FORMATS)})"
    except Image.DecompressionBombError:
        return f"more than {MAX_PIXELS:,} pixels"
    except FileNotFoundError:
        return "the file vanished"
    except PermissionError:
        return "no permission to read the file"
    except MemoryError:
        return "too large for the memory"
    except Exception as error:  # a decoder fails on hostile bytes in ways that nobody has listed
        return f"damaged ({printable(str(error))[:80] or type(error).__name__})"


def _over_8_bits(image: ImageFile.ImageFile) -> bool:
    """Whether a channel has more than 8 bits; Pillow opens 16-bit colour as if it had 8, and names it in the decoder's
    raw mode alone."""
    if image.mode.startswith(("I", "F")):
        return True
    raw_modes = [str(tile.args[0] if isinstance(tile.args, tuple) else tile.args) for tile in image.tile]
    # `BGR;16` is a bitmap of 16 bits for all three.
    return any(";16" in raw and not raw.startswith("BGR") for raw in raw_modes)


def _read(path: Path, size: int) -> Accepted | str:
    with Image.open(path, formats=FORMATS) as image:
        original = image.size
        if original[0] * original[1] > MAX_PIXELS:
            return f"more than {MAX_PIXELS:,} pixels ({original[0]}×{original[1]})"
        if min(original) < MIN_SIDE:
            return f"too small to show a lesion ({original[0]}×{original[1]})"
        frames = getattr(image, "n_frames", 1)
        if frames > 1:
            return f"animated or several pictures in one ({frames})"
        if _over_8_bits(image):
            return "more than 8 bits a channel"
        if image.mode not in ("RGB", "L", "1", "P", "RGBA", "LA", "PA"):
            return f"colour space {image.mode}, whose conversion would be a guess"
        notes: tuple[str, ...] = ()
        if image.mode in ("L", "1", "LA"):
            notes += ("grey",)
        if image.mode in ("P", "PA"):
            notes += ("palette",)
        rotated = image.getexif().get(0x0112) in range(2, 9)  # cameras also write 0, which says nothing
        if rotated:
            notes += ("rotated",)
        if min(original) < size:
            notes += ("scaled up",)
        image.draft(None, (2 * size, 2 * size))  # a large JPEG is decoded at a fraction of its size
        if rotated:
            ImageOps.exif_transpose(image, in_place=True)
        may_be_transparent = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
        if may_be_transparent and np.asarray(image.convert("RGBA").getchannel("A")).min() < 255:
            return "transparent in places"
        colour = image if image.mode == "RGB" else image.convert("RGB")
        small = colour.resize((size, size), Image.Resampling.LANCZOS)
        small.info = {}  # or the original's profile and text would stand in every PNG
        return Accepted(encode_png(small), pixel_sha256(np.asarray(small)), thumbnail(small), original, notes)
