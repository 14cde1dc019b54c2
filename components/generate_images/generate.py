"""Generate the synthetic images of one or several classes, and take those of other generators.

Copies of training images are dropped, and the worst share of the rest is rejected and replaced. Each row of an image
set identifies the origin of its image: generator, seed and index, or its name in the source.
"""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from components.generate_images.curate import select
from components.generate_images.origins import GanOrigin, GivenOrigin, Origin
from components.generate_images.page import render_parts, stack_pairs
from components.generate_images.real_images import RealImages, load_other_features, load_real_images
from components.generate_images.sample import SHOWN_COPIES, ImageFile, sample
from components.generate_images.separability import MAX_IMAGES, ring_powers, separability
from components.shared import html_page, keras_setup
from components.shared.arms import CANDIDATES, REALISM, Selection
from components.shared.dihedral import to_position
from components.shared.errors import UserError
from components.shared.features import SAMPLE_FILE, Features, load_features
from components.shared.files import atomic_folder, file_sha256
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
from components.shared.log import log_line
from components.shared.parameters import check
from components.shared.records import (
    FailedGan,
    NearestPair,
    SampleQuality,
    SyntheticSources,
    TrainedGan,
    load_gan_record,
    load_record,
    write_record,
)
from components.shared.sample_metrics import density_and_coverage, kid, texture
from components.shared.seeds import derive_seed

REJECT = 0.2
"""Share of the samples that is rejected as the least realistic, after copies are removed."""
SHEET_IMAGES = 64
NEAREST_PAIRS = 5
TEXTURE_IMAGES = 256
PAIRS_BYTES = 12_000
"""Maximum size of the image with the nearest pairs in the quality record, in base64."""


def _write_images(rows: pd.DataFrame, origin: Origin, file: ImageFile, out: ImageSetWriter) -> None:
    """Write images in row groups; `rows` are numbered as in the file."""
    with ThreadPoolExecutor() as threads:
        for start in range(0, len(rows), ROW_GROUP):
            part = rows.iloc[start : start + ROW_GROUP]
            images = file[part.index.to_numpy()]
            table = origin.describe_rows(part["index"].to_numpy()).assign(
                dx=origin.dx, source=origin.source, pixel_sha256=[pixel_sha256(pixels) for pixels in images]
            )
            out.write(table, list(threads.map(encode_png, images)))


def _generate_class(
    origin: Origin,
    features: Features,
    real: RealImages,
    count: int,
    reject: float,
    selection: Selection,
    seed: int,
    out: ImageSetWriter,
) -> tuple[SampleQuality, list[Any]]:
    """Take, curate and write the images of one class; return their quality and the parts of their page."""
    required = math.ceil(count / (1 - reject) - 1e-9)
    if selection != REALISM:
        required = max(required, CANDIDATES * count)
    with closing(ImageFile(out.header.image_size)) as file:
        samples = sample(origin, out.header.classes.index(origin.dx), features, real, required, file)
        passed = len(samples.rows)
        chance = derive_seed(seed, "generate_images", "select", origin.key)
        order, meets = select(selection, samples.rows, samples.features, real.features, real.lesions, chance)
        images = count if passed == required else min(count, math.floor(passed * (1 - reject) + 1e-9))
        accepted = samples.rows.iloc[np.sort(order[:images])]
        _write_images(accepted, origin, file, out)
        shown = file[accepted.index.to_numpy()[:MAX_IMAGES]]
        worst = file[order[images:][::-1][:SHOWN_COPIES]]
        near = accepted.sort_values("distance", kind="stable")[:NEAREST_PAIRS]
        nearest = near["nearest"].astype(int).tolist()
        pairs = [
            (to_position(image, int(position)), real.training[row])
            for image, position, row in zip(file[near.index.to_numpy()], near["position"], nearest, strict=True)
        ]
    accepted_features = samples.features[accepted.index.to_numpy()]
    is_measured = images >= 2 and len(real.reference) >= 2
    density = coverage = other_coverage = None
    if is_measured:
        # Both coverages are by as many images; there may be fewer of other classes.
        group = min(len(real.reference), images, len(real.others) or images)
        density, coverage = density_and_coverage(real.reference, accepted_features, group=group)
        if len(real.others):
            other_coverage = density_and_coverage(real.reference, real.others, group=group)[1]
    training = real.training[:: 1 + len(real.training) // TEXTURE_IMAGES]
    part = slice(None, None, 1 + (len(real.training) - 1) // MAX_IMAGES)
    lesions = real.lesions[part]
    quality = SampleQuality(
        dx=origin.dx,
        source=origin.source,
        images=images,
        drawn=samples.count,
        kid=kid(real.reference, accepted_features) if is_measured else None,
        density=density,
        coverage=coverage,
        other_coverage=other_coverage,
        texture=texture(training, shown[:TEXTURE_IMAGES]) if is_measured else None,
        separability=separability(real.features[part], lesions, accepted_features[:MAX_IMAGES]),
        separability_spectrum=separability(ring_powers(real.training[part]), lesions, ring_powers(shown)),
        copies=samples.copies,
        copy_threshold=float(real.check.threshold),
        curated=passed - images,
        reject=float(reject),
        selection=selection,
        meeting=None if meets is None else int(meets.sum()),
        against="validation and training" if real.has_training else "validation",
        nearest=[
            NearestPair(distance=round(distance, 4), image_id=real.names[row], index=index)
            for distance, row, index in zip(near["distance"].tolist(), nearest, near["index"].tolist(), strict=True)
        ],
        pairs_jpeg=html_page.encode_jpeg_base64(stack_pairs(pairs), len(pairs), PAIRS_BYTES, (96, 85)) if pairs else "",
    )
    line = f"{images:,} of {samples.count:,} samples accepted; "
    line += f"{samples.copies:,} were copies, {passed - images:,} rejected"
    if meets is not None:
        line += f"; {meets.sum():,} met the condition of {selection}"
    if images < count:
        line += f"; warning: fewer than the {count:,} requested"
    log_line(f"generate_images {origin.key}", line)
    first = shown[:SHEET_IMAGES]
    return quality, render_parts(origin, quality, count, first, pairs, samples.shown_copies, worst)


def _read_records(gans: Path, header: Header) -> list[TrainedGan | FailedGan]:
    """Return the records of the GANs in a folder, if any, after a check that they belong to this run's data."""
    records = []
    for path in sorted((gans / "models").glob("gan-*.json")):
        record = load_gan_record(path)
        if path.stem != f"gan-{record.dx}" or (
            (tuple(record.classes), record.image_size, record.data_sha256, record.split_sha256)
            != (header.classes, header.image_size, header.data_sha256, header.split_sha256)
        ):
            raise UserError(
                f"{path} belongs to other data",
                "use the GANs of this run",
                "generate_images.other_data",
                path=str(path),
            )
        records.append(record)
    return records


def _load_generator(path: Path, record: TrainedGan) -> keras.Model:
    """Return the generator of a record.

    Raises:
        UserError: the file does not match the record.
    """
    error = UserError(
        f"the generator of {record.dx} does not match its record",
        "use the unchanged output of train_gan",
        "generate_images.wrong_generator",
        dx=record.dx,
    )
    if not path.is_file() or file_sha256(path) != record.model_sha256:
        raise error
    model = keras.saving.load_model(path, compile=False)
    size = record.image_size
    if model.input_shape != (None, record.latent) or model.output_shape != (None, size, size, 3):
        raise error
    return model


def _find_given(sources: Path, classes: Sequence[str], header: Header, stack: ExitStack) -> Iterator[GivenOrigin]:
    """Yield the images of other generators, of each source and class; `stack` closes them."""
    for name in load_record(sources / "sources.json", SyntheticSources).sources:
        path = sources / f"{name}.parquet"
        if read_header(path) != header:
            raise UserError(
                f"the images of {name} were not read for this training set",
                "use the output of read_other_data of this run",
                "image_set.mixed",
                path=str(path),
            )
        rows = read_rows(path, "train", ["dx", "image_id"])
        for dx in classes:
            names = rows.loc[rows["dx"] == dx, "image_id"].tolist()
            yield GivenOrigin(name, dx, stack.enter_context(open_pixels(path, "train", dx)), names)


def _load_extractor(path: str | Path, header: Header) -> Features:
    """Return the feature extractor of the run, after a check that it fits the image sets."""
    extractor = load_features(path)
    inputs, (_, probabilities) = extractor.model.input_shape, extractor.model.output_shape
    if inputs != (None, header.image_size, header.image_size, 3) or probabilities != (None, len(header.classes)):
        raise UserError(
            f"{path} was trained on other images or classes",
            "use the feature extractor of this run",
            "features.other_data",
        )
    return extractor


def generate(
    classes: Sequence[str],
    gans: str | Path,
    sources: str | Path,
    features: str | Path,
    rare_data: str | Path,
    count: int,
    reject: float,
    seed: int,
    synthetic: str | Path,
    selection: Selection = REALISM,
) -> None:
    """Generate images of each class that has a generator, and take those of other sources.

    Args:
        classes: the classes.
        gans: folder that train_gan wrote, for these classes, or without any GAN; a class whose GAN failed gets no
            images from it.
        sources: folder that read_other_data wrote.
        features: the feature extractor of the run.
        rare_data: folder that train_features wrote, with these classes.
        count: images per class and source; fewer if too many are copies of training images.
        reject: share of the remaining images that is rejected as the worst, in [0, 1).
        seed: seed of the noise. The images of a class do not depend on which other classes are generated.
        synthetic: folder to write, for each class: `synthetic/<class>.parquet` (an image set of the split `train`),
            `.json` (its quality) and `.html` (a contact sheet); for other sources in `synthetic/<source>/`.
        selection: the option `synthetic_selection`; all but `realism` select from three times as many images.

    Raises:
        UserError: the count or share is out of range, or the files do not belong together; nothing is written then.
    """
    check({"synthetic_per_class": count})
    if not 0 <= reject < 1:
        raise UserError(
            f"reject is {reject:g}",
            "choose a share from 0 to below 1, such as 0.2",
            "parameter.out_of_range",
            name="reject",
        )
    train_set, validation_set = Path(rare_data) / "train.parquet", Path(rare_data) / "validation.parquet"
    header = read_header(train_set)
    if read_header(validation_set).split_sha256 != header.split_sha256:
        raise UserError(
            "the training and the validation set are from different splits", "use both from one run", "image_set.mixed"
        )
    records = _read_records(Path(gans), header)
    keras_setup.seed_everything(derive_seed(seed, "generate_images"))
    extractor = _load_extractor(features, header)
    with ExitStack() as stack:
        folder = stack.enter_context(atomic_folder(synthetic))
        (folder / "synthetic").mkdir()
        origins: list[Origin] = []
        for record in records:
            if isinstance(record, TrainedGan):
                model = _load_generator(Path(gans) / "models" / f"gan-{record.dx}.keras", record)
                origins.append(GanOrigin(record, model, seed))
                continue
            log_line(f"generate_images {record.dx}", "skipped: its GAN failed")
            page = html_page.render(f"Synthetic images of {record.dx}", [f"None: the GAN failed ({record.failed})."])
            (folder / "synthetic" / f"{record.dx}.html").write_text(page, encoding="utf-8")
        origins.extend(_find_given(Path(sources), classes, header, stack))
        if missing := sorted(set(classes) - {it.dx for it in (*records, *origins)}):
            raise UserError(
                f"{gans} has no GAN of {', '.join(missing)}",
                "use the output of train_gan for these classes",
                "generate_images.no_gans",
                classes=missing,
            )
        others = load_other_features(Path(rare_data) / SAMPLE_FILE, header.classes)
        for dx in classes:
            of_class = [origin for origin in origins if origin.dx == dx]
            real = load_real_images(dx, train_set, validation_set, extractor, others[dx]) if of_class else None
            for origin in of_class:
                assert real is not None
                stem = folder / "synthetic" / origin.key
                stem.parent.mkdir(exist_ok=True)
                with closing(ImageSetWriter(stem.with_name(f"{dx}.parquet"), header)) as out:
                    quality, parts = _generate_class(origin, extractor, real, count, reject, selection, seed, out)
                write_record(stem.with_name(f"{dx}.json"), quality)
                page = html_page.render(f"Synthetic images of {dx}", parts)
                stem.with_name(f"{dx}.html").write_text(page, encoding="utf-8")
