"""Generate images that resemble skin lesions, in the layout of HAM10000, for trials without a download.

They show no real person. They share the layout and classes of the real dataset, the shape of its imbalance, and several
images per lesion. Each class tends to show the signs that a dermatoscopist looks for.
"""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Array = NDArray[np.floating[Any]]

SEED = 10_015
WIDTH, HEIGHT, QUALITY = 200, 150, 92
COUNTS = {"akiec": 60, "bcc": 70, "bkl": 100, "df": 44, "mel": 110, "nv": 600, "vasc": 48}
IMAGES_PER_LESION = (0.6, 0.25, 0.15)  # probabilities of 1, 2 and 3
COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")
SITES = ("back", "lower extremity", "trunk", "upper extremity", "abdomen", "face", "chest", "neck", "scalp")
MEAN_AGE = {"akiec": 66, "bcc": 67, "bkl": 64, "df": 52, "mel": 61, "nv": 46, "vasc": 51}
UNKNOWN = 0.02  # probability that an age is empty, or that a sex or a site is "unknown"


class Signs(NamedTuple):
    """The signs of a lesion: a colour in 0..255, lengths in pixels, and strengths in 0..1."""

    red: float
    green: float
    blue: float
    radius: float
    softness: float  # width of the border
    irregularity: float  # of the outline, relative to the radius
    asymmetry: float = 0  # dark pigment on one side
    veil: float = 0  # blue-grey, without structure
    network: float = 0  # brown lines around lighter holes
    dots: float = 0
    milia: float = 0  # small pale cysts
    nests: float = 0  # blue-grey and ovoid
    lacunae: float = 0  # red to purple lagoons
    vessels: float = 0
    scale: float = 0  # white and patchy
    scar: float = 0  # one white patch in the centre


TYPICAL = {
    "akiec": Signs(196, 122, 110, 46, 14, 0.20, dots=0.1, scale=0.8, vessels=0.3),
    "bcc": Signs(192, 134, 122, 42, 13, 0.14, veil=0.1, nests=0.7, scale=0.1, scar=0.1, vessels=0.8),
    "bkl": Signs(160, 112, 88, 47, 4, 0.14, asymmetry=0.2, network=0.1, dots=0.2, milia=0.8, scale=0.15),
    "df": Signs(174, 118, 100, 38, 20, 0.06, network=0.4, scar=1.0),
    "mel": Signs(124, 82, 68, 52, 8, 0.26, asymmetry=0.8, veil=0.6, network=0.4, dots=0.4, scar=0.1),
    "nv": Signs(150, 94, 76, 40, 11, 0.08, asymmetry=0.15, network=0.6, dots=0.25),
    "vasc": Signs(168, 84, 84, 36, 8, 0.12, veil=0.05, lacunae=0.8),
}
SPREAD = Signs(5, 5, 5, 8, 2.5, 0.05, *[0.13] * 10)  # standard deviations within a class
SHADE = 0.09  # relative standard deviation of the brightness
# Each lesion is mixed with a class that resembles it; otherwise the classes would be too easy to separate.
LOOKALIKES = {
    "akiec": ("bkl", "bcc"), "bcc": ("akiec", "df", "nv"), "bkl": ("nv", "mel", "akiec"), "df": ("nv", "bcc"),
    "mel": ("nv", "bkl"), "nv": ("mel", "bkl", "df"), "vasc": ("bcc", "nv"),
}  # fmt: skip
LEANING = (1.0, 5.0)  # parameters of the Beta distribution of the mixing weight


class Mark(NamedTuple):
    """A kind of small structure: discs of a radius, or lines of a width, in pixels; at most `most` of them."""

    colour: tuple[int, int, int]  # 0..255
    opacity: float
    blur: float
    most: int
    radius: tuple[float, float] = (0, 0)
    line: int = 0


MARKS = {
    "nests": Mark((104, 102, 122), 0.8, 2.2, 9, radius=(4, 10)),
    "lacunae": Mark((128, 26, 48), 0.8, 2.6, 12, radius=(5, 11)),
    "dots": Mark((66, 42, 36), 0.8, 0.9, 50, radius=(1, 2.6)),
    "milia": Mark((234, 214, 186), 0.8, 0.9, 36, radius=(1, 2.8)),
    "vessels": Mark((168, 48, 58), 0.7, 0.7, 11, line=2),
    "hairs": Mark((50, 38, 34), 0.9, 0.5, 20, line=1),
}


@dataclass
class Lesion:
    """The properties that all images of a lesion share; positions are in pixels from its centre."""

    signs: Signs
    skin: Array  # (3,), 0..255
    aspect: float
    waves: Array  # (6, 2): strength and phase of the outline's harmonics, from the second on
    side: float  # direction of the asymmetry, radians
    origins: Array  # (3, 2) float32: offsets of its textures in the noise tiles
    marks: dict[str, list[Array]]  # kind → corners (n, 2) of each disc or line


def noise(finest: float, slope: float) -> Array:
    """Return smooth, tileable noise: (512, 512) float32, mean 0, variance 1, little below `finest` pixels."""
    frequency = np.hypot(np.fft.fftfreq(512)[:, None], np.fft.fftfreq(512))
    # No structure is wider than a lesion: it would only shift the colour.
    strength = np.maximum(frequency, 1 / 80) ** -slope * np.exp(-((frequency * finest) ** 2))
    tile = np.fft.ifft2(np.fft.fft2(np.random.default_rng(SEED).standard_normal((512, 512))) * strength).real
    return np.asarray((tile - tile.mean()) / tile.std(), np.float32)


COARSE, FINE = noise(12, 2), noise(2.5, 0.5)
ROW, COLUMN = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)


def step(x: Array) -> Array:
    """Interpolate smoothly from 0 at x = 0 to 1 at x = 1."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def outline(waves: Array, irregularity: float, angle: Array) -> Array:
    """Return the radius of the lesion at each `angle` (radians), relative to its mean radius; same shape as `angle`."""
    radius = np.ones_like(angle)
    for k, (strength, phase) in enumerate(waves.tolist(), start=2):
        radius += irregularity * strength / (k - 1) ** 0.8 * np.cos(k * angle + phase)
    return radius


def disc(rng: np.random.Generator, centre: Array, mark: Mark) -> Array:
    """Return a random ellipse as a polygon: (12, 2)."""
    angle, turn = np.linspace(0, 2 * np.pi, 12, endpoint=False), rng.uniform(0, np.pi)
    radius = rng.uniform(*mark.radius) * (1 + rng.uniform(0, 0.35) * np.cos(2 * (angle - turn)))
    return centre + np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def walk(rng: np.random.Generator, start: Array, length: float, bend: float) -> Array:
    """Return a randomly bending line: (16, 2), points `length` pixels apart."""
    angle = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, bend, 16))
    return start + length * np.cumsum(np.stack([np.cos(angle), np.sin(angle)], axis=1), axis=0)


def sample_lesion(dx: str, rng: np.random.Generator) -> Lesion:
    """Sample the properties of a lesion of class `dx`."""
    leaning, other = rng.beta(*LEANING), str(rng.choice(LOOKALIKES[dx]))
    values = rng.normal((1 - leaning) * np.array(TYPICAL[dx]) + leaning * np.array(TYPICAL[other]), SPREAD)
    values[:3] *= rng.normal(1, SHADE)
    signs = Signs(*np.clip(values, [0, 0, 0, 16, 2.5] + [0] * 11, [255] * 5 + [1] * 11).tolist())
    waves = np.stack([rng.normal(0, 0.7, 6).clip(-1, 1), rng.uniform(0, 2 * np.pi, 6)], axis=1)
    marks = {}
    for name, mark in MARKS.items():
        if name == "hairs":
            n = int(rng.integers(3, mark.most)) if rng.random() < 0.06 else 0
            marks[name] = [walk(rng, rng.uniform(-110, 110, 2), 7, 0.06) for _ in range(n)]
            continue
        n = round(mark.most * max(getattr(signs, name) - 0.2, 0))  # weak signs are not visible
        angle = rng.uniform(0, 2 * np.pi, n)
        reach = 0.88 * signs.radius * np.sqrt(rng.random(n)) * outline(waves, signs.irregularity, angle)
        centres = np.stack([reach * np.cos(angle), reach * np.sin(angle)], axis=1)
        marks[name] = [walk(rng, at, 2.4, 0.4) if mark.line else disc(rng, at, mark) for at in centres]
    skin = np.array([226, 182, 168]) - rng.random() * np.array([28, 40, 44]) + rng.normal(0, 4, 3)
    aspect, side = rng.uniform(0.75, 1.3), rng.uniform(0, 2 * np.pi)
    return Lesion(signs, skin, aspect, waves, side, 512 * rng.random((3, 2), np.float32), marks)


def render_view(lesion: Lesion, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Render one image of the lesion with a random position, rotation, zoom and lighting: (150, 200, 3) uint8."""
    signs = lesion.signs
    zoom, turn = rng.uniform(1.1, 1.4), rng.uniform(-0.35, 0.35)
    centre = np.array([WIDTH / 2, HEIGHT / 2]) + rng.normal(0, (6, 4))
    rotation = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    # Position of each pixel in the coordinates of the lesion: (150, 200) float32 each.
    place = np.stack([COLUMN, ROW]) - centre.astype(np.float32)[:, None, None]
    x, y = np.tensordot((rotation / zoom).astype(np.float32), place, 1)
    image = np.empty((3, HEIGHT, WIDTH), np.float32)
    image[:] = lesion.skin[:, None, None]

    def texture(tile: Array, origin: Array) -> Array:
        down, across = ((at + by).astype(np.int32) & 511 for at, by in ((y, origin[1]), (x, origin[0])))
        return np.asarray(tile[down, across])

    def lay(colour: Sequence[float], opacity: Array) -> None:
        for channel, level in zip(image, colour, strict=True):
            channel += opacity * (level - channel)

    def coverage(shapes: list[Array], mark: Mark) -> Array:
        layer = Image.new("L", (WIDTH, HEIGHT))
        draw = ImageDraw.Draw(layer)
        for shape in shapes:
            corners = (shape @ rotation * zoom + centre).ravel().tolist()
            draw.line(corners, fill=255, width=mark.line) if mark.line else draw.polygon(corners, fill=255)
        return np.asarray(layer.filter(ImageFilter.GaussianBlur(mark.blur)), np.float32) / 255

    rough = texture(FINE, lesion.origins[0])
    blotch, cloud = (texture(COARSE, origin) for origin in lesion.origins[1:])
    image += np.array([3, 4, 4], np.float32)[:, None, None] * (rough + 1.2 * cloud)

    distance = np.hypot(x * lesion.aspect, y)
    edge = signs.radius * outline(lesion.waves, signs.irregularity, np.arctan2(y, x))
    inside = step((edge + 1.5 * blotch + 0.5 * rough - distance) / signs.softness + 0.5)
    colour = signs[:3]
    lay(colour, 0.9 * inside)
    image *= 1 - inside * (0.06 * blotch + 0.04 * rough)
    across = (math.cos(lesion.side) * x + math.sin(lesion.side) * y) / signs.radius
    lay((64, 42, 42), 0.8 * signs.asymmetry * inside * step(0.5 + across + 0.5 * blotch))
    lay((116, 118, 136), 0.85 * signs.veil * inside * step(0.1 - 0.9 * across + 0.6 * cloud))
    # Three waves at 60 degrees form a honeycomb; its walls are the network. Noise bends and interrupts them.
    bent_x, bent_y = x + 2.2 * blotch + rough, y + 2.2 * cloud - rough
    third = 2 * math.pi / 3
    comb = sum(np.cos(math.cos(a) * bent_x + math.sin(a) * bent_y) for a in (0, third, -third))
    walls = step(0.3 - 0.6 * comb) * step(0.8 + 0.5 * cloud)
    lay([0.5 * level for level in colour], 0.7 * signs.network * inside * walls)
    lay((234, 212, 204), 0.9 * signs.scar * inside * np.exp(-((distance / (0.5 * signs.radius)) ** 2)))
    lay((238, 220, 210), 0.8 * signs.scale * inside * step(0.6 * cloud + 0.15 * rough + 0.1))
    for name, mark in MARKS.items():
        if lesion.marks[name]:
            within = 1 if name == "hairs" else inside
            lay(mark.colour, mark.opacity * within * coverage(lesion.marks[name], mark))

    light = 1 + rng.normal(0, 0.06) * (COLUMN / WIDTH - 0.5) + rng.normal(0, 0.06) * (ROW / HEIGHT - 0.5)
    if rng.random() < 0.3:  # a vignette: the edge of the dermatoscope's field
        corner = np.hypot(COLUMN - WIDTH / 2, ROW - HEIGHT / 2) / (WIDTH / 2)
        light *= 1 - rng.uniform(0.2, 0.6) * step(corner - 0.75)
    tint = rng.normal(1, 0.04) * rng.normal(1, 0.012, 3)
    image *= tint.astype(np.float32)[:, None, None] * light
    image += 2 * rng.standard_normal((HEIGHT, WIDTH), np.float32)
    return np.clip(image, 0, 255).astype(np.uint8).transpose(1, 2, 0)


def patient(dx: str, rng: np.random.Generator) -> tuple[str, str, str, str]:
    """Sample the columns dx_type, age, sex and localization of a lesion."""
    others = str(rng.choice(["follow_up", "consensus", "confocal"], p=[0.7, 0.25, 0.05]))
    proof = "histo" if dx in ("akiec", "bcc", "mel") or rng.random() < 0.5 else others
    age = f"{5 * round(float(np.clip(rng.normal(MEAN_AGE[dx], 14), 5, 85)) / 5):.1f}"
    sex, site = str(rng.choice(["male", "female"])), str(rng.choice(SITES))
    no_age, no_sex, no_site = rng.random(3) < UNKNOWN
    return proof, "" if no_age else age, "unknown" if no_sex else sex, "unknown" if no_site else site


def handles(data: str) -> bool:
    """Handle the value `demo`."""
    return data == "demo"


def fetch(data: str, scratch: Path, draw: bool = True) -> Path:
    """Generate the demo set below `scratch` and return the folder, in the Kaggle layout of HAM10000.

    Args:
        data: the parameter.
        scratch: an empty folder.
        draw: False for metadata with empty image files, which takes a second.
    """
    folder, total = scratch / "demo", sum(COUNTS.values())
    for part in (1, 2):
        (folder / f"HAM10000_images_part_{part}").mkdir(parents=True, exist_ok=True)
    # As in the real set, the number and the folder of an image are independent of its class.
    numbers = np.random.default_rng(SEED).permutation(total).tolist()
    rows: list[tuple[str, ...]] = []
    lesion_index = 0
    for dx, left in COUNTS.items():
        while left:
            rng = np.random.default_rng([SEED, lesion_index])
            views = min(left, int(rng.choice([1, 2, 3], p=IMAGES_PER_LESION)))
            about, lesion = patient(dx, rng), sample_lesion(dx, rng)
            for _ in range(views):
                number = numbers.pop()
                image_id, part = f"DEMO_{number + 1:07}", 1 + 2 * number // total
                path = folder / f"HAM10000_images_part_{part}" / f"{image_id}.jpg"
                if draw:
                    Image.fromarray(render_view(lesion, rng)).save(path, quality=QUALITY)
                else:
                    path.touch()
                rows.append((f"DEMO_L{lesion_index + 1:06}", image_id, dx, *about))
            left -= views
            lesion_index += 1
    with (folder / "HAM10000_metadata.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    return folder
