"""Read what the other phases wrote: image sets, classifiers, and the records of GANs and synthetic images."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from components.shared.arms import (
    AUGMENTED,
    REALISM,
    Use,
    parse_synthetic_key,
    recipe,
    sort_arms,
    synthetic_key,
    uses_synthetic,
)
from components.shared.errors import UserError
from components.shared.files import EXTERNAL
from components.shared.image_set import read_header
from components.shared.records import (
    ClassifierRecord,
    DataClasses,
    DataSource,
    FailedGan,
    SampleQuality,
    SharedGan,
    SyntheticSource,
    SyntheticSources,
    TrainedGan,
    load_gan_record,
    load_record,
)


@dataclass(frozen=True)
class Classifier:
    """A trained classifier: its `.keras` file and its record."""

    model: Path
    record: ClassifierRecord


@dataclass(frozen=True)
class Inputs:
    """Everything that `evaluate` reads.

    Attributes:
        sets: split → image set; `external` only if it has rows.
        train_set: image set of the split `train`.
        rare: the classes to rebalance.
        gan_records: class → record of its GAN; empty if no synthetic images, or those of other generators, are used.
        qualities: `synthetic_key` → quality of the synthetic images, except those of classes whose GAN failed.
        synthetic_sets: `synthetic_key` → the synthetic images, likewise.
        classifiers: arm → classifiers, in the order of their seeds, the run's first seed first.
        pretraining_s: seconds that shared pretraining took; None without it.
        sources: name → source of synthetic images other than the run's GANs.
        source: how the data was read; None if its writer did not record it.
    """

    sets: dict[str, Path]
    train_set: Path
    rare: tuple[str, ...]
    gan_records: dict[str, TrainedGan | FailedGan]
    qualities: dict[str, SampleQuality]
    synthetic_sets: dict[str, Path]
    classifiers: dict[str, list[Classifier]]
    pretraining_s: float | None = None
    sources: dict[str, SyntheticSource] = field(default_factory=dict)
    source: DataSource | None = None

    @property
    def synthetic_keys(self) -> tuple[str, ...]:
        """Keys of the synthetic images, without those of which none is left."""
        return tuple(key for key, quality in self.qualities.items() if quality.images)

    @property
    def rebalanced(self) -> tuple[str, ...]:
        """The rare classes that have synthetic images of every source; in others, an arm would equal its control."""
        sources = {parse_synthetic_key(key)[0] for key in (*self.qualities, *self.gan_records)}
        return tuple(
            dx for dx in self.rare if all(synthetic_key(source, dx) in self.synthetic_keys for source in sources)
        )

    @property
    def use(self) -> Use:
        """How the arms used the images that they add; `guards` refuses arms that differ in it."""
        adding = [of_arm[0].record for arm, of_arm in self.classifiers.items() if recipe(arm).adds]
        if not adding:
            return Use()
        record = adding[-1]  # of an arm with synthetic images if there is one; these come last
        selection = next((quality.selection for quality in self.qualities.values()), REALISM)
        return Use(
            record.synthetic_until,
            record.synthetic_weight,
            selection,
            record.synthetic_scope,
            record.synthetic_smoothing,
        )


def read_classifiers(folders: Sequence[str | Path]) -> dict[str, list[Classifier]]:
    """Return the classifiers in `models/` of some folders, by arm, in the order in which pages show the arms.

    Raises:
        UserError: a record is invalid, or its file does not have the name of its arm and seed.
    """
    first: dict[str, list[Classifier]] = {}
    others: dict[str, list[Classifier]] = {}
    for folder in folders:
        for path in sorted(Path(folder, "models").glob("*.json")):
            record = load_record(path, ClassifierRecord)
            classifier = Classifier(path.with_suffix(".keras"), record)
            if path.stem == record.arm:
                first.setdefault(record.arm, []).append(classifier)
            elif path.stem == f"{record.arm}-seed{record.settings.seed}":
                others.setdefault(record.arm, []).append(classifier)
            else:
                raise UserError(
                    f"{path} is the record of another classifier (arm {record.arm}, seed {record.settings.seed})",
                    "use the unchanged files of one run",
                    "evaluate.wrong_record",
                    arm=record.arm,
                    seed=record.settings.seed,
                )
    return {
        arm: first.get(arm, []) + sorted(others.get(arm, []), key=lambda it: it.record.settings.seed)
        for arm in sort_arms({*first, *others})
    }


def read_gan_records(folder: str | Path) -> dict[str, TrainedGan | FailedGan]:
    """Return class → record of its GAN, from `models/gan-<class>.json` of a folder."""
    records = {}
    for path in sorted(Path(folder, "models").glob("gan-*.json")):
        record = load_gan_record(path)
        if path.stem != f"gan-{record.dx}":
            raise UserError(
                f"{path} is the record of the class {record.dx}",
                "use the unchanged files of one run",
                "evaluate.wrong_record",
                dx=record.dx,
            )
        records[record.dx] = record
    return records


def _check_gan_classes(gans: Collection[str], rare: Sequence[str], every: set[str], has_sources: bool) -> None:
    """Refuse GANs that are neither of the rare nor of all classes; with other sources there may be none.

    Args:
        gans: classes that have the record of a GAN.
        rare, every: the classes to rebalance, and all classes.
        has_sources: whether there are synthetic images of other sources.

    Raises:
        UserError: `evaluate.other_classes`.
    """
    if set(gans) not in (set(rare), every) and (gans or not has_sources):
        raise UserError(
            f"the rare classes are {', '.join(rare)}, but the GAN records are of {', '.join(gans) or 'none'}",
            "use the synthetic images of this run",
            "evaluate.other_classes",
            rare=list(rare),
            gans=list(gans),
        )


def read_inputs(
    training_data: str | Path,
    test_data: str | Path,
    synthetic_images: str | Path,
    classifiers: Sequence[str | Path],
) -> Inputs:
    """Read and validate the folders that `evaluate` gets.

    Args:
        training_data: folder with `train.parquet`, `validation.parquet` and `classes.json`.
        test_data: folder with `test.parquet` and `data_source.json`.
        synthetic_images: folder with `models/gan-<class>.json`, `models/features.keras`, `sources.json`, and
            `synthetic/<class>.parquet` and `synthetic/<class>.json`, the latter also in `synthetic/<source>/`; with an
            external set also `external.parquet`.
        classifiers: folders with `models/<arm>.json` and `models/<arm>.keras` of the run's first seed, and
            `models/<arm>-seed<N>.*` of the others.

    Raises:
        UserError: a file is missing or invalid, or the classes of the folders differ.
    """
    training, test, synthetic = Path(training_data), Path(test_data), Path(synthetic_images)
    sets = {"validation": training / "validation.parquet", "test": test / "test.parquet"}
    if (synthetic / EXTERNAL).exists():
        sets["external"] = synthetic / EXTERNAL
    rare = tuple(load_record(training / "classes.json", DataClasses).rare)
    gan_records = read_gan_records(synthetic)
    folder, shared = synthetic / "synthetic", synthetic / "models" / "shared.json"
    sources = load_record(synthetic / "sources.json", SyntheticSources).sources
    every, trained = set(read_header(training / "train.parquet").classes), read_classifiers(classifiers)
    if uses_synthetic(trained):
        _check_gan_classes(gan_records, rare, every, bool(sources))
    elif gan_records or sources:
        raise UserError(
            "there are synthetic images, but the arm augmented has no classifier",
            "train every arm",
            "evaluate.missing_classifiers",
            arm=AUGMENTED,
        )
    ordered = [*rare, *sorted(every - set(rare))]
    keys = [dx for dx in ordered if isinstance(gan_records.get(dx), TrainedGan)]
    keys += [synthetic_key(name, dx) for name, source in sources.items() for dx in ordered if dx in source.images]
    described = test / "data_source.json"
    return Inputs(
        sets=sets,
        train_set=training / "train.parquet",
        rare=rare,
        gan_records={dx: gan_records[dx] for dx in ordered if dx in gan_records},
        qualities={key: load_record(folder / f"{key}.json", SampleQuality) for key in keys},
        synthetic_sets={key: folder / f"{key}.parquet" for key in keys},
        classifiers=trained,
        pretraining_s=load_record(shared, SharedGan).seconds if shared.is_file() else None,
        sources=sources,
        source=load_record(described, DataSource) if described.is_file() else None,
    )
