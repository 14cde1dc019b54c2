"""Collect the synthetic images of all classes, with the models and records that made them, in one folder."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from components.shared.errors import UserError
from components.shared.files import atomic_folder
from components.shared.image_set import read_header, read_rows
from components.shared.log import log_line


def balance(
    training_data: str | Path,
    features: str | Path,
    start: str | Path,
    gans: Sequence[str | Path],
    synthetic: Sequence[str | Path],
    synthetic_images: str | Path,
) -> None:
    """Merge the folders of all classes. The names of the files are those of the publication.

    Args:
        training_data: folder that prepare_data wrote.
        features: the feature extractor of the run; becomes `models/features.keras`.
        start: folder that pretrain_gan wrote; its `models/` are included.
        gans: folders that train_gan wrote.
        synthetic: folders that generate_images wrote, from that training set.
        synthetic_images: folder to write: `models/` and `synthetic/`.

    Raises:
        UserError: images were generated for another training set, or no class has any.
    """
    train_set = Path(training_data) / "train.parquet"
    header = read_header(train_set)
    counts: dict[str, int] = {}
    for path in sorted(path for folder in synthetic for path in Path(folder).glob("synthetic/*.parquet")):
        if read_header(path) != header:
            raise UserError(
                f"{path} was not made from this training set",
                "use the synthetic images of this run",
                "image_set.mixed",
                path=str(path),
            )
        for dx, count in read_rows(path, "train", ["dx"])["dx"].value_counts().items():
            counts[str(dx)] = counts.get(str(dx), 0) + int(count)
    if not any(counts.values()):
        raise UserError(
            "no class has synthetic images",
            "read the records in `models` for the errors of the GANs, or raise gan_kimg",
            "balance_dataset.no_images",
        )
    with atomic_folder(synthetic_images) as folder:
        (folder / "models").mkdir()
        for source in (*gans, *synthetic, start):
            for name in ("models", "synthetic"):
                if (Path(source) / name).is_dir():
                    shutil.copytree(
                        Path(source) / name, folder / name, dirs_exist_ok=True, copy_function=shutil.copyfile
                    )
        shutil.copyfile(features, folder / "models" / "features.keras")
    listed = ", ".join(f"{dx} {count:,}" for dx, count in sorted(counts.items()))
    log_line("balance_dataset", f"{sum(counts.values()):,} synthetic images: {listed}")
