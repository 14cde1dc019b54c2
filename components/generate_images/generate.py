"""Phase 3b: draws synthetic images of one class or several, and lets through what passes two gates.

A copy of a training image is dropped, and of the rest the worst share is rejected, and drawn anew. Reads the
generators and their records, the run's ruler, the training and the validation set. Writes an image set in which each
row says where it comes from, a contact sheet, and how good the images are.
"""

import io
import json
import math
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pandas as pd

from components.generate_images.copy_detection import CopyCheck, positions
from components.shared import html_page, keras_setup
from components.shared.errors import UserError
from components.shared.files import atomic_writes, file_sha256
from components.shared.image_set import (
    ROW_GROUP,
    Header,
    ImageSetWriter,
    encode_png,
    open_pixels,
    pixel_sha256,
    read_header,
    read_rows,
)
from components.shared.log import Progress, log_line
from components.shared.sample_metrics import (
    ENOUGH,
    NEIGHBOURS,
    Features,
    density_and_coverage,
    distances,
    kid,
    load_features,
    neighbour_radii,
    texture,
)
from components.shared.seeds import derive_seed

BLOCK = keras_setup.DRAWN_BATCH
MOST = 4
"""At most so many times the images that are needed are drawn."""
SHEET = 64
NEAREST = 5
REJECTED = 8
DETAILED = 256
"""Images that their fine detail is measured on."""
PAIRS_BYTES = 12_000
"""Of the nearest pairs' picture in the quality file, in base64."""


def draw_block(model: keras.Model, dx: str, latent: int, seed: int, block: int) -> np.ndarray:
    """Images `BLOCK · block` to `BLOCK · (block + 1) - 1` of a class's stream without end.

    Each image's noise depends on seed, class and index alone. A network may round otherwise in a batch of another size,
    so images are always drawn in these batches: an image of a set is `draw_block(…, index // BLOCK)[index % BLOCK]`.

    Args:
        model: from (N, latent) standard normal to (N, S, S, 3) in [-1, 1].
        dx: the class.
        latent: length of the noise.
        seed: as in the image's row.
        block: 0 or more.

    Returns:
        (BLOCK, S, S, 3) uint8.
    """
    own = derive_seed(seed, "generate_images", dx)
    indices = range(BLOCK * block, BLOCK * (block + 1))
    noise = [np.random.default_rng([own, index]).standard_normal(latent, np.float32) for index in indices]
    return keras_setup.sample_images(model, np.stack(noise))


class _Stream:
    """Images in a file, so that memory does not grow with them."""

    def __init__(self, size: int) -> None:
        self._file = tempfile.TemporaryFile(prefix="counterweight-")  # noqa: SIM115 (closed by `close`)
        self._shape = (size, size, 3)
        self.length = 0

    def append(self, images: np.ndarray) -> None:
        self._file.seek(0, io.SEEK_END)
        self._file.write(images.tobytes())
        self.length += len(images)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """(N, S, S, 3) uint8 images of (N,) rows."""
        images = np.empty((len(rows), *self._shape), np.uint8)
        for image, row in zip(images, rows.tolist(), strict=True):
            self._file.seek(row * image.nbytes)
            image[:] = np.frombuffer(self._file.read(image.nbytes), np.uint8).reshape(self._shape)
        return images

    def close(self) -> None:
        self._file.close()


def best_first(probability: np.ndarray, strangeness: np.ndarray) -> np.ndarray:
    """Rows from the best image to the worst. An image is as bad as the worse of its two ranks: by the probability of
    the class that it should show, and by its distance from real images.

    Args:
        probability: (N,) in [0, 1].
        strangeness: (N,) 0 or more.

    Returns:
        (N,) int64; of equals, the earlier row comes first.
    """
    ranks = [np.argsort(np.argsort(values, kind="stable")) for values in (-probability, strangeness)]
    return np.argsort(np.maximum(*ranks), kind="stable")


class _Real(NamedTuple):
    """Real images of a class.

    Attributes:
        training: (T, S, S, 3) uint8.
        names: their image ids.
        features: theirs, (T, 224).
        reference: features of the images that synthetic ones are compared with.
        against: which those are.
        check: the copy check.
    """

    training: np.ndarray
    names: list[str]
    features: np.ndarray
    reference: np.ndarray
    against: str
    check: CopyCheck


def _real(dx: str, train_set: str | Path, validation_set: str | Path, ruler: Features) -> _Real:
    rows = read_rows(train_set, "train", ["dx", "image_id", "lesion_id"])
    rows = rows[rows["dx"] == dx]
    with open_pixels(train_set, "train", dx) as pixels, open_pixels(validation_set, "validation", dx) as held_out:
        if not len(pixels.images) or not len(held_out.images):
            raise UserError(f"the class {dx} has no training or no validation image; make the split anew.")
        training, validation = np.array(pixels.images), np.array(held_out.images)
    features, reference = ruler(training), ruler(validation)
    few = len(validation) < ENOUGH
    return _Real(
        training=training,
        names=rows["image_id"].tolist(),
        features=features,
        reference=np.concatenate([reference, features]) if few else reference,
        against="validation and training" if few else "validation",
        check=CopyCheck(training, rows["lesion_id"].to_numpy(), validation),
    )


class _Drawn(NamedTuple):
    """What passed the copy check, N images.

    Attributes:
        rows: of each its index in the class's stream, its distance from the nearest training image, that one's number,
            the position in which they are most alike, the probability of the intended class, and `strangeness`: the
            distance from the nearest training image in features, over that one's from its fifth nearest other one.
        features: (N, 224).
        copies: how many did not pass.
        shown: the first of these: pairs of (synthetic, real), turned alike.
        drawn: how many images were looked at.
    """

    rows: pd.DataFrame
    features: np.ndarray
    copies: int
    shown: list[tuple[np.ndarray, np.ndarray]]
    drawn: int


def _alike(image: np.ndarray, position: int) -> np.ndarray:
    """An image in one of its positions."""
    return list(positions(image[None]))[position][0]


def _draw(
    facts: dict[str, Any],
    model: keras.Model,
    ruler: Features,
    real: _Real,
    needed: int,
    seed: int,
    stream: _Stream,
) -> _Drawn:
    """Draws until so many images as are needed are no copies, or `MOST` times as many have been drawn."""
    dx, label = facts["dx"], facts["classes"].index(facts["dx"])
    radii = np.maximum(neighbour_radii(real.features, NEIGHBOURS), 1e-6)
    progress = Progress(f"generate_images {dx}", needed, "images")
    columns = ["index", "distance", "nearest", "position", "probability", "strangeness"]
    tables: list[pd.DataFrame] = []
    features: list[np.ndarray] = []
    shown: list[tuple[np.ndarray, np.ndarray]] = []
    copies = drawn = 0
    while stream.length < needed and drawn < MOST * needed:
        images = draw_block(model, dx, facts["latent"], seed, drawn // BLOCK)
        apart, nearest, position = real.check.nearest(images)
        of_images, probabilities = ruler.both(images)
        to_real = distances(of_images, real.features)
        strangeness = to_real.min(axis=1) / radii[to_real.argmin(axis=1)]
        # The rest of the block is left where there are enough.
        passed = apart >= real.check.threshold
        last = min(int(np.searchsorted(np.cumsum(passed), needed - stream.length)) + 1, BLOCK, MOST * needed - drawn)
        own, of_block = np.flatnonzero(passed[:last]), np.flatnonzero(~passed[:last])
        copies += len(of_block)
        for i in of_block[: REJECTED - len(shown)]:
            shown.append((_alike(images[i], position[i]), real.training[nearest[i]]))
        stream.append(images[own])
        features.append(of_images[own])
        values = (drawn + np.arange(BLOCK), apart, nearest, position, probabilities[:, label], strangeness)
        tables.append(pd.DataFrame({name: value[own] for name, value in zip(columns, values, strict=True)}))
        drawn += last
        progress.update(stream.length)
    return _Drawn(pd.concat(tables, ignore_index=True), np.concatenate(features), copies, shown, drawn)


def _write(rows: pd.DataFrame, facts: dict[str, Any], seed: int, stream: _Stream, out: ImageSetWriter) -> None:
    """Writes images, a row group at a time; `rows` are numbered as in the stream."""
    dx, architecture, model = facts["dx"], facts["architecture"], facts["model_sha256"]
    with ThreadPoolExecutor() as threads:
        for start in range(0, len(rows), ROW_GROUP):
            part = rows.iloc[start : start + ROW_GROUP]
            images = stream[part.index.to_numpy()]
            table = pd.DataFrame(
                {
                    "image_id": [f"{dx}-{architecture}-{model[:8]}-{index:06d}" for index in part["index"]],
                    "dx": dx,
                    "source": architecture,
                    "pixel_sha256": [pixel_sha256(pixels) for pixels in images],
                    "model_sha256": model,
                    "seed": seed,
                    "index": part["index"].to_numpy(),
                }
            )
            out.write(table, list(threads.map(encode_png, images)))


def _generate_class(
    facts: dict[str, Any],
    model: keras.Model,
    ruler: Features,
    real: _Real,
    count: int,
    reject: float,
    seed: int,
    out: ImageSetWriter,
) -> tuple[dict[str, Any], list[str]]:
    """Draws, sifts and writes the images of one class.

    Returns:
        What the quality file says of it, and its parts of the page.
    """
    dx, threshold = facts["dx"], real.check.threshold
    needed = math.ceil(count / (1 - reject) - 1e-9)
    with closing(_Stream(facts["image_size"])) as stream:
        found = _draw(facts, model, ruler, real, needed, seed, stream)
        passed = len(found.rows)
        order = best_first(found.rows["probability"].to_numpy(), found.rows["strangeness"].to_numpy())
        images = count if passed == needed else math.floor(passed * (1 - reject) + 1e-9)
        kept = found.rows.iloc[np.sort(order[:images])]
        _write(kept, facts, seed, stream, out)
        some = stream[kept.index.to_numpy()[:DETAILED]]
        first = some[:SHEET]
        worst = stream[order[images:][::-1][:REJECTED]]
        near = kept.sort_values("distance", kind="stable")[:NEAREST]
        nearest = near["nearest"].astype(int).tolist()
        pairs = [
            (_alike(image, int(position)), real.training[row])
            for image, position, row in zip(stream[near.index.to_numpy()], near["position"], nearest, strict=True)
        ]

    own = found.features[kept.index.to_numpy()]
    measured = images >= 2 and len(real.reference) >= 2
    density, coverage = density_and_coverage(real.reference, own) if measured else (None, None)
    entry = {
        "dx": dx,
        "images": images,
        "drawn": found.drawn,
        "kid": kid(real.reference, own) if measured else None,
        "density": density,
        "coverage": coverage,
        "texture": texture(real.training[:: 1 + len(real.training) // DETAILED], some) if measured else None,
        "copies": found.copies,
        "copy_threshold": threshold,
        "curated": passed - images,
        "reject": reject,
        "against": real.against,
        "nearest": [
            {"distance": round(distance, 4), "image_id": real.names[row], "index": index}
            for distance, row, index in zip(near["distance"].tolist(), nearest, near["index"].tolist(), strict=True)
        ],
        "pairs_jpeg": html_page.jpeg(_stacked(pairs), len(pairs), PAIRS_BYTES, (96, 85)) if pairs else "",
    }
    said = f"{images:,} of {found.drawn:,} drawn; {found.copies:,} were copies, {passed - images:,} rejected"
    short = f"Fewer than the {count:,} asked for: too many are copies of training images. " if images < count else ""
    log_line(f"generate_images {dx}", said + (f"; warning: {short[:-2].lower()}" if short else ""))
    parts = [
        f"{dx}: {images:,} images by {facts['architecture']} after {facts['best_kimg']:g} of {facts['kimg']:g} kimg, "
        f"trained on {facts['real_images']:,} real ones. {short}{found.drawn:,} were drawn; {found.copies:,} of them "
        f"were too near a training image and were dropped, {passed - images:,} were rejected as the worst."
    ]
    if measured:
        parts.append(
            f"Against {real.against} images: KID {entry['kid']:.3f}, density {density:.2f}, coverage {coverage:.2f}; "
            "these are by the run's own small classifier, and not to be compared with published figures. Texture "
            f"(fine detail, as a share of the training images'): {entry['texture']:.2f}."
        )
    if images:
        columns = min(8, images)
        whole = first[: len(first) // columns * columns]
        caption = f"{dx}: the first {len(whole)} in the order they were drawn, not chosen"
        parts.append(html_page.picture(html_page.contact_sheet(whole, columns), caption))
        values = ", ".join(f"{distance:.3f}" for distance in near["distance"])
        caption = (
            f"{dx}: those nearest to a training image, above it; distances {values}, a copy's below {threshold:.3f}"
        )
        parts.append(html_page.picture(_stacked(pairs), caption))
    if found.shown:
        caption = f"{dx}: dropped as copies, above the training images that they repeat"
        parts.append(html_page.picture(_stacked(found.shown), caption))
    if len(worst):
        parts.append(html_page.picture(html_page.contact_sheet(worst, len(worst)), f"{dx}: rejected as the worst"))
    return entry, parts


def _stacked(pairs: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """One picture: synthetic images above real ones."""
    return html_page.contact_sheet(np.stack([image for side in zip(*pairs, strict=True) for image in side]), len(pairs))


def _read_records(path: str | Path, header: Header) -> list[dict[str, Any]]:
    """The records of train_gan, checked as far as they are used here."""
    wrong = UserError(f"{path} is not a list of records of GANs; give what train_gan wrote.")
    try:
        records = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise wrong from error
    expected = {
        "architecture": str,
        "latent": int,
        "kimg": int | float,
        "best_kimg": int | float,
        "real_images": int,
        "model_sha256": str,
    }
    if not isinstance(records, list) or not records or not all(isinstance(facts, dict) for facts in records):
        raise wrong
    for facts in records:
        kinds = {"dx": str} | ({"failed": str} if "failed" in facts else expected)
        if not all(isinstance(facts.get(key), kind) for key, kind in kinds.items()):
            raise wrong
        own = {"classes": list(header.classes), "image_size": header.image_size}
        own |= {"data_sha256": header.data_sha256, "split_sha256": header.split_sha256}
        if any(facts.get(key) != value for key, value in own.items()) or facts["dx"] not in header.classes:
            raise UserError(f"the record of the class {facts['dx'][:40]} is of other data; take both from one run.")
    if len({facts["dx"] for facts in records}) < len(records):
        raise UserError(f"{path} holds two records of one class; give what train_gan wrote.")
    return records


def _load_generator(path: Path, facts: dict[str, Any]) -> keras.Model:
    """The generator that a record is of."""
    if not path.is_file() or file_sha256(path) != facts["model_sha256"]:
        raise UserError(f"the record does not belong to the generator of {facts['dx']}; take both from one run.")
    model = keras.saving.load_model(path, compile=False)
    size = facts["image_size"]
    if model.input_shape != (None, facts["latent"]) or model.output_shape != (None, size, size, 3):
        raise UserError(f"the generator of {facts['dx']} does not fit its record; take both from one run.")
    return model


def generate(
    generators: str | Path,
    record: str | Path,
    features: str | Path,
    train_set: str | Path,
    validation_set: str | Path,
    count: int,
    reject: float,
    seed: int,
    images: str | Path,
    sheet: str | Path,
    quality: str | Path,
) -> dict[str, float]:
    """Draws images of each class that has a generator.

    Args:
        generators: folder with each class's `<dx>.keras`, from (N, latent) standard normal to (N, S, S, 3) in [-1, 1].
        record: JSON that train_gan wrote beside it, a list; of a class whose GAN failed no image is drawn.
        features: the run's ruler, which `train_features` saved.
        train_set, validation_set: image sets of the splits `train` and `validation`.
        count: images of each class; there are fewer where too many of those drawn are copies.
        reject: share of what is no copy that is rejected as the worst, and drawn anew; in [0, 1).
        seed: of the noise. A class's images do not depend on which other classes are drawn.
        images: where the image set, of the split `train`, goes.
        sheet: where the page goes.
        quality: where the JSON goes, a list of one object for each class.

    Returns:
        Of each class that has a generator `<dx>_images`, `<dx>_copies`, and where two images or more are left
        `<dx>_kid`, `<dx>_density`, `<dx>_coverage` and `<dx>_texture`.

    Raises:
        UserError: the count or the share can't be used, or the files do not belong together; nothing is written then.
    """
    if count < 1:
        raise UserError(f"synthetic_per_class is {count}; choose 1 or more.")
    if not 0 <= reject < 1:
        raise UserError(f"reject is {reject:g}; choose a share from 0 to below 1, such as 0.2.")
    header = read_header(train_set)
    if read_header(validation_set).split_sha256 != header.split_sha256:
        raise UserError("the training and the validation set are of different splits; take both from one run.")
    records = _read_records(record, header)
    keras_setup.seed_everything(derive_seed(seed, "generate_images"))
    ruler = load_features(features)
    inputs, (_, probabilities) = ruler.model.input_shape, ruler.model.output_shape
    if inputs != (None, header.image_size, header.image_size, 3) or probabilities != (None, len(header.classes)):
        raise UserError(f"{features} judges other images or classes than this run's; take both from one run.")
    models = {
        facts["dx"]: _load_generator(Path(generators) / f"{facts['dx']}.keras", facts)
        for facts in records
        if "failed" not in facts
    }
    entries, parts, metrics = [], [], {}
    with atomic_writes(images, sheet, quality) as (images_part, sheet_part, quality_part):
        with closing(ImageSetWriter(images_part, header)) as out:
            for facts in records:
                dx = facts["dx"]
                if dx not in models:
                    log_line(f"generate_images {dx}", "none, since its GAN failed")
                    parts.append(f"{dx}: none, since its GAN failed ({facts['failed']}).")
                    entries.append({"dx": dx, "failed": facts["failed"]})
                    continue
                real = _real(dx, train_set, validation_set, ruler)
                entry, of_class = _generate_class(facts, models[dx], ruler, real, count, reject, seed, out)
                entries.append(entry)
                parts += of_class
                for name in ("images", "copies", "kid", "density", "coverage", "texture"):
                    if entry[name] is not None:
                        metrics[f"{dx}_{name}"] = float(entry[name])
        sheet_part.write_text(html_page.render("Synthetic images", parts), encoding="utf-8")
        quality_part.write_text(json.dumps(entries, indent=1), encoding="utf-8")
    return metrics
