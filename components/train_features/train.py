"""Train the feature extractor of a run, and copy the part of the training data that the tasks of its GANs read.

The extractor is the network whose features compare real and synthetic images. It sees the training split alone. GANs
select their checkpoint with it, and the quality of synthetic images is measured with it; see
`components.shared.sample_metrics`.
"""

from pathlib import Path

import numpy as np

from components.shared.arms import Scope
from components.shared.features import SAMPLE_FILE, load_features, train_features
from components.shared.files import atomic_folder, atomic_write
from components.shared.image_set import iter_tables, open_pixels, read_header, write_image_set
from components.shared.records import DataClasses, load_record
from components.shared.seeds import derive_seed

SAMPLE_IMAGES = 1_000
"""Training images of all classes whose features are compared with those of a class to which they do not belong."""


def train(
    training_data: str | Path, seed: int, features: str | Path, rare_data: str | Path, scope: Scope = "rare"
) -> None:
    """Train the feature extractor and write what the tasks of the rare classes read.

    Args:
        training_data: folder that prepare_data wrote.
        seed: seed of the run; the extractor has its own below it.
        features: path of the `.keras` file to write.
        rare_data: folder to write; see `write_rare_data`.
        scope: the option `synthetic_scope`: `all` if every class has a GAN.

    Raises:
        UserError: the training set cannot be used.
    """
    with atomic_write(features) as part:
        train_features(Path(training_data) / "train.parquet", derive_seed(seed, "features"), part, "train_features")
    write_rare_data(training_data, features, seed, rare_data, scope)


def write_rare_data(
    training_data: str | Path, features: str | Path, seed: int, rare_data: str | Path, scope: Scope = "rare"
) -> None:
    """Copy the images of the rare classes, so that a task which trains a GAN downloads no others.

    Args:
        training_data: folder that prepare_data wrote.
        features: the feature extractor.
        seed: seed of the run.
        rare_data: folder to write: `train.parquet` and `validation.parquet` with the rows of the rare classes, and
            `features.npz` with features and labels of random training images of all classes.
        scope: `all` to copy the images of every class, for GANs of all classes.
    """
    source = Path(training_data)
    wanted = load_record(source / "classes.json", DataClasses).rare
    if scope == "all":
        wanted = list(read_header(source / "train.parquet").classes)
    with atomic_folder(rare_data) as folder:
        for name in ("train.parquet", "validation.parquet"):
            with write_image_set(folder / name, read_header(source / name)) as out:
                for table in iter_tables(source / name, *wanted):
                    out.write_table(table)
        with open_pixels(source / "train.parquet", "train") as pixels:
            rng = np.random.default_rng(derive_seed(seed, "generate_images", "others"))
            rows = np.sort(rng.permutation(len(pixels.images))[:SAMPLE_IMAGES])
            values = load_features(features)(pixels.images[rows])
            np.savez(folder / SAMPLE_FILE, features=values.astype(np.float32), labels=pixels.labels[rows])
