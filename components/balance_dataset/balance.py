"""Collect the synthetic images of all classes, with the models and records that made them, in one folder."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from components.shared.arms import GAN, parse_synthetic_key
from components.shared.errors import UserError
from components.shared.files import EXTERNAL, atomic_folder
from components.shared.image_set import read_header, read_rows
from components.shared.log import log_line
from components.shared.records import FailedGan, SyntheticSources, load_gan_record, load_record


def balance(
    rare_data: str | Path,
    features: str | Path,
    start: str | Path,
    gans: Sequence[str | Path],
    synthetic: Sequence[str | Path],
    sources: str | Path,
    failed_class: str,
    synthetic_images: str | Path,
) -> None:
    """Merge the folders of all classes. The names of the files are those of the publication.

    Args:
        rare_data: folder that train_features wrote.
        features: the feature extractor of the run; becomes `models/features.keras`.
        start: folder that pretrain_gan wrote; its `models/` are included.
        gans: folders that train_gan wrote.
        synthetic: folders that generate_images wrote, from that training set.
        sources: folder that read_other_data wrote; its `sources.json` and `external.parquet` are included.
        failed_class: `fail` refuses a class whose GAN failed in a run with `continue`, from which it was cached;
            `continue` requires one whose GAN did not.
        synthetic_images: folder to write: `models/`, `synthetic/`, `sources.json` and, with an external set,
            `external.parquet`.

    Raises:
        UserError: images were generated for another training set, a source has none of any class, or a GAN failed.
    """
    header = read_header(Path(rare_data) / "train.parquet")
    if failed_class == "fail":
        _refuse_failed(gans)
    described = Path(sources) / "sources.json"
    counts: dict[str, dict[str, int]] = {name: {} for name in load_record(described, SyntheticSources).sources}
    if any(path for folder in gans for path in Path(folder).glob("models/gan-*.json")):
        counts[GAN] = {}
    tops = [Path(folder, "synthetic") for folder in synthetic]
    for path, folder_of in sorted((path, top) for top in tops for path in top.rglob("*.parquet")):
        if read_header(path) != header:
            raise UserError(
                f"{path} was not made from this training set",
                "use the synthetic images of this run",
                "image_set.mixed",
                path=str(path),
            )
        source, dx = parse_synthetic_key(path.relative_to(folder_of).with_suffix("").as_posix())
        counts.setdefault(source, {})[dx] = len(read_rows(path, "train", ["dx"]))
    if not counts.get(GAN, True):
        raise _all_failed(gans)
    _check_counts(counts)
    with atomic_folder(synthetic_images) as folder:
        (folder / "models").mkdir()
        for part in (*gans, *synthetic, start):
            for name in ("models", "synthetic"):
                if (Path(part) / name).is_dir():
                    shutil.copytree(Path(part) / name, folder / name, dirs_exist_ok=True, copy_function=shutil.copyfile)
        shutil.copyfile(features, folder / "models" / "features.keras")
        shutil.copyfile(described, folder / "sources.json")
        if (external := Path(sources, EXTERNAL)).exists():
            shutil.copyfile(external, folder / EXTERNAL)  # for evaluate; no task that trains reads it
    if not counts:
        log_line("balance_dataset", "no arm uses synthetic images: only the feature extractor is kept")
    for source, by_class in counts.items():
        listed = ", ".join(f"{dx} {count:,}" for dx, count in sorted(by_class.items()))
        log_line("balance_dataset", f"{sum(by_class.values()):,} synthetic images of {source}: {listed}")


def _failed(gans: Sequence[str | Path]) -> list[FailedGan]:
    """Return the records of the GANs that failed."""
    paths = sorted(path for folder in gans for path in Path(folder).glob("models/gan-*.json"))
    return [record for record in map(load_gan_record, paths) if isinstance(record, FailedGan)]


def _refuse_failed(gans: Sequence[str | Path]) -> None:
    for record in _failed(gans):
        raise UserError(
            f"the GAN of {record.dx} failed ({record.failed})",
            "change gan_kimg or random_seed, or set the option failed_class to continue",
            "balance_dataset.failed_class",
            dx=record.dx,
        )


def _all_failed(gans: Sequence[str | Path]) -> UserError:
    """Return the error for a run without any image of a GAN: the arms of the GANs would equal the control."""
    first, *others = _failed(gans)
    more = f", and those of {len(others)} other classes did, too" if others else ""
    return UserError(
        f"no class has synthetic images of a GAN: that of {first.dx} failed ({first.failed}){more}",
        "change gan_kimg, random_seed or the option gan_architecture, or remove augmented from arms",
        "balance_dataset.no_images",
        dx=first.dx,
        failed=first.failed,
        count=1 + len(others),
    )


def _check_counts(counts: Mapping[str, Mapping[str, int]]) -> None:
    """Raise if all images of a source are copies; source → class → images."""
    for source, by_class in counts.items():
        if not any(by_class.values()):
            raise UserError(
                f"all synthetic images of {source} are copies of training images",
                "lower gan_kimg, or add images of these classes"
                if source == GAN
                else "use a generator that does not copy its training images",
                "balance_dataset.only_copies",
                source=source,
            )
