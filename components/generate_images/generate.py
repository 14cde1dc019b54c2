"""Phase 3b: draws synthetic images of one class.

Reads a generator and its record. Writes an image set in which each row says where it comes from, and a contact sheet.
"""

import json
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from components.shared import keras_run, page
from components.shared.errors import UserError
from components.shared.files import file_sha256, write_text
from components.shared.image_set import ROW_GROUP, Header, encode_png, pixel_sha256, write_image_set
from components.shared.progress import Progress, say
from components.shared.seeds import seed_of

SHEET = 64


def generate(
    generator: str | Path,
    record: str | Path,
    count: int,
    seed: int,
    images: str | Path,
    sheet: str | Path,
) -> str:
    """Draws images.

    Args:
        generator: `.keras` model from (N, latent) standard normal to (N, S, S, 3) in [-1, 1].
        record: JSON that train_gan wrote beside it; where it says that the GAN failed, no image is drawn.
        count: how many.
        seed: of the noise.
        images: where the image set, of the split `train`, goes.
        sheet: where the contact sheet, an HTML page, goes.

    Returns:
        The class.

    Raises:
        UserError: the count can't be used, or the record is not this model's.
    """
    if count < 1:
        raise UserError(f"synthetic_per_class is {count}; choose 1 or more.")
    facts = json.loads(Path(record).read_text(encoding="utf-8"))
    dx, model_sha256 = facts["dx"], file_sha256(generator)
    header = Header(
        classes=tuple(facts["classes"]),
        image_size=facts["image_size"],
        split="train",
        data_sha256=facts["data_sha256"],
        split_sha256=facts["split_sha256"],
    )
    if "failed" in facts:
        with write_image_set(images, header):
            pass
        write_text(sheet, page.render(f"Synthetic {dx}", [f"None: the GAN of {dx} failed ({facts['failed']})."]))
        say(f"generate_images {dx}", "none, since its GAN failed")
        return dx
    if model_sha256 != facts["model_sha256"]:
        raise UserError(f"the record does not belong to the generator of {dx}; take both from one run.")
    keras_run.start(seed_of(seed, "generate_images", dx))
    rng = np.random.default_rng(seed_of(seed, "generate_images", dx))
    model = keras.saving.load_model(generator, compile=False)
    progress = Progress(f"generate_images {dx}", count, "images")
    shown: list[np.ndarray] = []
    with write_image_set(images, header) as out:
        for start in range(0, count, ROW_GROUP):
            noise = rng.standard_normal((min(ROW_GROUP, count - start), facts["latent"])).astype(np.float32)
            drawn = np.clip(np.rint((model.predict_on_batch(noise) + 1) * 127.5), 0, 255).astype(np.uint8)
            numbers = range(start, start + len(drawn))
            rows = pd.DataFrame(
                {
                    "image_id": [f"{dx}-{facts['architecture']}-{model_sha256[:8]}-{number:06d}" for number in numbers],
                    "dx": dx,
                    "source": facts["architecture"],
                    "pixel_sha256": [pixel_sha256(pixels) for pixels in drawn],
                    "model_sha256": model_sha256,
                    "seed": seed,
                    "index": numbers,
                }
            )
            out.write(rows, [encode_png(pixels) for pixels in drawn])
            if start == 0:
                shown = list(drawn[:SHEET])
            progress.update(start + len(drawn))
    columns = min(8, len(shown))
    whole = np.stack(shown[: len(shown) // columns * columns])
    note = (
        f"{count} images by {facts['architecture']} after {facts['kimg']:g} kimg; the first {len(whole)}, not chosen."
    )
    picture = page.picture(page.contact_sheet(whole, columns), f"synthetic {dx}")
    write_text(sheet, page.render(f"Synthetic {dx}", [note, picture]))
    return dx
