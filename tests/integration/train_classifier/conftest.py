from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from components.shared.image_set import Pixels, encode_png, open_pixels, pixel_sha256, read_header, write_image_set
from components.train_classifier.resume import Resume

SYNTHETIC_IMAGES = 20


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A function that makes training fail after this number of further epochs; 0 for never."""
    original = Resume.on_epoch_end

    def arrange(epochs: int) -> None:
        count = 0

        def on_epoch_end(self: Resume, epoch: int, logs: dict[str, float] | None = None) -> None:
            nonlocal count
            original(self, epoch, logs)
            count += 1
            if count == epochs:
                raise InterruptedError

        monkeypatch.setattr(Resume, "on_epoch_end", on_epoch_end)

    return arrange


@pytest.fixture(scope="session")
def synthetic_images(training_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the form that balance_dataset writes."""
    folder = tmp_path_factory.mktemp("synthetic_images")
    (folder / "synthetic").mkdir()
    rng = np.random.default_rng(3)
    for dx in ("df", "vasc"):
        pixels = rng.integers(0, 256, (SYNTHETIC_IMAGES, 32, 32, 3), np.uint8)
        rows = pd.DataFrame(
            {
                "image_id": [f"{dx}-{n}" for n in range(SYNTHETIC_IMAGES)],
                "dx": dx,
                "source": "gan",
                "pixel_sha256": [pixel_sha256(image) for image in pixels],
            }
        )
        with write_image_set(
            folder / "synthetic" / f"{dx}.parquet", read_header(training_data / "train.parquet")
        ) as out:
            out.write(rows, [encode_png(image) for image in pixels])
    return folder


@pytest.fixture(scope="session")
def pool(training_data: Path, synthetic_images: Path) -> Iterator[Pixels]:
    """Real and synthetic training images: 10, 60 and 14 real ones of df, nv and vasc, 20 synthetic of df and vasc."""
    sets = [training_data / "train.parquet", *sorted((synthetic_images / "synthetic").glob("*.parquet"))]
    with open_pixels(sets, "train") as pixels:
        yield pixels
