"""Records that one phase writes and another reads: typed, and validated as untrusted input when they are read.

A record may come from a run folder that someone else published. Every name in it that becomes part of a path matches a
pattern, and `path_below` is the one place that turns such a name into a path.
"""

from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from components.shared.arms import BASELINE, CONTROL, recipe, share_of
from components.shared.errors import UserError
from components.shared.files import write_text

MAX_RECORD_BYTES = 16 * 2**20
MAX_SEED = 2**53  # above it, Kubeflow's numbers (doubles) are not exact

Verdict = Literal["improved", "no evidence", "worse", "not established"]
"""`not established`: the run has one seed, so chance in one training run cannot be separated from an effect."""


def _check_arm(name: str) -> str:
    try:
        recipe(name)
    except UserError as error:
        raise ValueError(error.message) from None
    return name


ArmName = Annotated[str, Field(max_length=40), AfterValidator(_check_arm)]
"""Name of an arm that `components.shared.arms` knows."""
ClassName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,30}$")]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
DataHash = Annotated[str, Field(pattern=r"^[0-9A-Za-z-]{0,64}$")]
"""Hash from the header of an image set; empty if its writer did not set it."""
SeenHash = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
"""First 16 hexadecimal digits of the pixel hash of an image that a model was trained or selected on."""
Text = Annotated[str, Field(max_length=2_000)]
ImageSize = Annotated[int, Field(ge=1, le=4_096)]
Count = Annotated[int, Field(ge=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Jpeg = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/=]*$", max_length=200_000)]
"""A JPEG image in base64."""
Scalar = str | int | float | bool | None


class Record(BaseModel):
    """Base of all records: unknown keys, converted types, NaN and infinity are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class DataClasses(Record):
    """Record of the classes, `classes.json`; written by prepare_data.

    Attributes:
        rare: the classes to rebalance.
    """

    rare: list[ClassName]


class ClassifierSettings(Record):
    """Settings of a classifier's training; all except the seed are equal in all arms.

    Attributes:
        epochs: maximum number of epochs.
        patience: epochs without improvement after which training stopped; in older records only.
        augmentation: `none` or `flips_and_rotations`.
        seed: seed of weights, order, dropout and augmentation.
        batch: images per batch.
        precision: name of the Keras dtype policy.
    """

    epochs: Count
    patience: Count | None = None
    augmentation: Text
    seed: Seed
    batch: Count
    precision: Text


class ClassifierRecord(Record):
    """Record of one classifier, `models/<arm>.json`; written by train_classifier.

    Attributes:
        arm: the arm.
        parameters: number of the network's weights.
        model_sha256: hash of the `.keras` file.
        data_sha256: hash of the data; see `RunRecord`.
        split_sha256: hash of the split; see `RunRecord`.
        train_set_sha256: hash of the training rows of the arm.
        train_rows: number of training images per epoch, including repeats.
        settings: training settings.
        epochs: number of epochs that were trained.
        best_epoch: epoch whose weights were kept, from 1.
        history: metric → value of each epoch.
        versions: versions of the libraries.
        seconds: duration of the training.
        seen: the real images that it was trained or selected on, as hashes.
    """

    arm: ArmName
    parameters: Count
    model_sha256: Sha256
    data_sha256: DataHash
    split_sha256: DataHash
    train_set_sha256: Sha256
    train_rows: Count
    settings: ClassifierSettings
    epochs: Count
    best_epoch: Count
    history: dict[Text, list[float]]
    versions: dict[Text, Text]
    seconds: NonNegative
    seen: list[SeenHash]


class Losses(Record):
    """Losses of a GAN.

    Attributes:
        kimg: thousand real images shown, at each point.
        generator: losses of the generator.
        discriminator: losses of the discriminator, without penalties.
    """

    kimg: list[NonNegative]
    generator: list[float]
    discriminator: list[float]


class KidImages(Record):
    """Numbers of images from which KID was computed.

    Attributes:
        validation: validation images of the class.
        synthetic: samples of each snapshot.
    """

    validation: Count
    synthetic: Count


class KidCurve(Record):
    """KID of each snapshot.

    Attributes:
        kimg: thousand real images shown, at each snapshot.
        value: KID of each snapshot.
        against: splits of the real images; training images are added if there are few validation images.
        images: numbers of images.
    """

    kimg: list[NonNegative]
    value: list[float]
    against: Literal["validation", "validation and training"]
    images: KidImages


class Snapshot(Record):
    """Samples of a GAN during training; all snapshots use the same noise.

    Attributes:
        kimg: thousand real images shown.
        jpeg: the samples in one row, as a JPEG image in base64.
    """

    kimg: NonNegative
    jpeg: Jpeg


class _OfClass(Record):
    """Common fields of the records of trained and failed GANs.

    Attributes:
        dx: the class.
        architecture: name of the module with the networks.
        classes: all classes of the data.
        image_size: height and width in pixels.
        data_sha256: hash of the data; see `RunRecord`.
        split_sha256: hash of the split; see `RunRecord`.
    """

    dx: ClassName
    architecture: Text
    classes: list[ClassName]
    image_size: ImageSize
    data_sha256: DataHash
    split_sha256: DataHash

    @model_validator(mode="after")
    def _class_is_known(self) -> "_OfClass":
        if self.dx not in self.classes:
            raise ValueError("dx is not one of the classes")
        return self


class TrainedGan(_OfClass):
    """Record of a class's GAN, `models/gan-<class>.json`; written by train_gan.

    Attributes:
        status: always `trained`.
        recipe: losses, regularisation and other choices of training; see `components/train_gan/recipe.py`.
        latent: length of the generator's noise vector.
        kimg: training budget, in thousand real images shown.
        start_kimg: budget of the shared GAN whose weights it started from; 0 for random weights.
        best_kimg: thousand real images shown at the selected snapshot.
        real_images: number of training images of the class.
        parameters: network → number of its weights.
        precision: name of the Keras dtype policy; several if training resumed on other hardware.
        rolled_back_kimg: thousand images after which training diverged and was rolled back; null if it did not.
        losses: losses over the training.
        kid: KID of the snapshots.
        snapshots: samples for the report.
        settings: seed, batch size and learning rate.
        versions: versions of the libraries.
        seconds: duration of the training.
        model_sha256: hash of the `.keras` file.
        seen: the real images that it was trained or selected on, as hashes.
    """

    status: Literal["trained"] = "trained"
    recipe: dict[Text, Scalar]
    latent: Annotated[int, Field(ge=1, le=65_536)]
    kimg: NonNegative
    start_kimg: NonNegative
    best_kimg: NonNegative
    real_images: Count
    parameters: dict[Text, Count]
    precision: Text
    rolled_back_kimg: NonNegative | None
    losses: Losses
    kid: KidCurve
    versions: dict[Text, Text]
    seconds: NonNegative
    model_sha256: Sha256
    seen: list[SeenHash]
    settings: dict[Text, Scalar]
    snapshots: list[Snapshot]


class FailedGan(_OfClass):
    """Record of a class whose GAN failed while `failed_class` is `continue`.

    Attributes:
        status: always `failed`.
        failed: the error, on one line.
    """

    status: Literal["failed"] = "failed"
    failed: Text


GanRecord = Annotated[TrainedGan | FailedGan, Field(discriminator="status")]


class SharedGan(BaseModel):
    """The part of `models/shared.json` that evaluate reads; written by pretrain_gan.

    Attributes:
        seconds: duration of the pretraining.
    """

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, allow_inf_nan=False)

    seconds: NonNegative


class NearestPair(Record):
    """A synthetic image near a training image.

    Attributes:
        distance: distance of the copy check, from 0 for the same image to about 1 for unrelated images.
        image_id: id of the training image.
        index: index of the synthetic image in the sequence of its generator.
    """

    distance: NonNegative
    image_id: Text
    index: Count


class SampleQuality(Record):
    """Quality of the synthetic images of a class, `synthetic/<class>.json`; written by generate_images.

    Attributes:
        dx: the class.
        images: number of images in the set.
        drawn: number of images that were generated.
        kid: Kernel Inception Distance; null if there are too few images, like the next metrics.
        density: how closely real images surround a synthetic image; about 1 for real images.
        coverage: share of real images with a synthetic image nearby.
        other_coverage: coverage by real images of other classes, which a useful generator exceeds.
        texture: fine detail relative to that of training images.
        separability: AUC of a classifier that distinguishes real from synthetic images by their features, from 0.5 (it
            cannot) to 1 (it always can); null with fewer than 20 images of either kind, or fewer than 5 lesions.
        separability_spectrum: the same by the power in eight rings of the spectrum.
        copies: number of images that the copy check dropped.
        copy_threshold: distance to a training image below which an image is a copy.
        curated: number of images rejected as the worst.
        reject: share of the images that was to be rejected as the worst.
        against: splits of the real images that the metrics compare with.
        nearest: the pairs of a synthetic and a training image with the smallest distances.
        pairs_jpeg: these pairs as a JPEG image in base64.
    """

    dx: ClassName
    images: Count
    drawn: Count
    kid: float | None
    density: NonNegative | None
    coverage: Share | None
    other_coverage: Share | None = None
    texture: NonNegative | None
    separability: Share | None = None
    separability_spectrum: Share | None = None
    copies: Count
    copy_threshold: NonNegative
    curated: Count
    reject: Share
    against: Literal["validation", "validation and training"]
    nearest: list[NearestPair]
    pairs_jpeg: Jpeg


def _check_unique(values: list[Any]) -> list[Any]:
    if len(set(values)) < len(values):
        raise ValueError("a value is repeated")
    return values


def _check_relative(name: str) -> str:
    path = PurePosixPath(name)
    unsafe = path.is_absolute() or set(path.parts) & {"..", "."} or str(path) != name or name == "."
    if unsafe or "\\" in name or not name.isprintable() or len(name) > 400 or any(":" in part for part in path.parts):
        raise ValueError("not a relative path below the folder")
    return name


RelativePath = Annotated[str, AfterValidator(_check_relative)]


class ManifestEntry(Record):
    """Hash and size of a published file.

    Attributes:
        sha256: hash of the content.
        bytes: size.
    """

    sha256: Sha256
    bytes: Count


class Manifest(Record):
    """Record of a publication, `manifest.json`; written last by publish.

    Attributes:
        files: relative path → hash and size.
        candidate: the model that is proposed for use; null if the verdict does not allow it.
        promote_if: the condition for a candidate, an option of the pipeline.
        verdict: the verdict of the evaluation.
    """

    files: dict[RelativePath, ManifestEntry]
    candidate: RelativePath | None
    promote_if: Text
    verdict: Text


class RunRecord(Record):
    """`run` of `metrics.json`: what identifies a run and what its result depends on.

    Attributes:
        data: source of the data, the parameter `data`.
        data_sha256: hash of all accepted rows and their pixels.
        split: how the data was split, the parameter `data_split`.
        split_sha256: hash of the assignment of images to splits.
        seed: seed of split, GANs and sampling.
        seeds: seeds of the classifiers.
        image_size: height and width in pixels.
        rare_classes: the classes to rebalance.
        rebalanced_classes: the rare classes that have synthetic images.
        malignant: the classes whose sensitivity as a group is measured.
        pretraining_s: duration of shared pretraining in seconds; null without it.
        settings: settings of the classifiers, equal in all arms.
        parameters: parameters of the pipeline, by their names in its form.
        versions: versions of the libraries.
        folds: split and verdict of each fold, if the run pools folds.
        pooled_lesions: number of lesions that were tested in a fold, and of all, if the run pools folds.
    """

    data: Text
    data_sha256: DataHash
    split: Text
    split_sha256: DataHash
    seed: Seed
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=100), AfterValidator(_check_unique)]
    image_size: ImageSize
    rare_classes: list[ClassName]
    rebalanced_classes: list[ClassName]
    malignant: list[ClassName]
    pretraining_s: NonNegative | None = None
    settings: dict[Text, Scalar]
    parameters: dict[Text, Scalar]
    versions: dict[Text, Text]
    folds: list[dict[Text, Scalar]] | None = None
    pooled_lesions: dict[Literal["tested", "all"], Count] | None = None


Figure = float | None
"""A metric; None if it is undefined, such as the recall of a class without images."""
Interval = Annotated[list[Figure], Field(min_length=2, max_length=2)]
ByClass = dict[ClassName, Figure]


class Difference(Record):
    """Difference of two arms in a metric.

    Attributes:
        value: the difference.
        low: lower limit of the interval: 95 %, or more for a field that is corrected for a choice.
        high: upper limit of the interval.
    """

    value: Figure
    low: Figure
    high: Figure


class ClassDifference(Difference):
    """Effect of the synthetic images on a class's recall.

    Attributes:
        value: the difference in recall, augmented − oversampled.
        low: lower limit of the 95 % interval.
        high: upper limit of the 95 % interval.
        p: p-value of the paired permutation test at lesion level; null with several seeds.
        p_holm: the same, with Holm's correction for the number of classes.
        lesions: number of tested lesions.
        few: whether an effect of 0.10 would most likely be missed.
        lesions_needed: number of lesions that would detect it with a probability of 80 %; null if it takes more seeds.
    """

    p: Figure
    p_holm: Figure
    lesions: Count
    few: bool
    lesions_needed: Count | None


class ArmDifference(Difference):
    """Difference of an arm to another in the primary metric.

    Attributes:
        value: the difference.
        low: lower limit of the interval.
        high: upper limit of the interval; both limits hold for all differences of the same list at once.
        arm: the arm.
    """

    arm: ArmName


class MetricDifferences(Record):
    """Differences in a metric.

    Attributes:
        gan: augmented − oversampled.
        improvement: augmented − baseline.
    """

    gan: Difference
    improvement: Difference


class McNemar(Record):
    """McNemar's exact test of the rare classes' lesions.

    Attributes:
        lesions_gained: lesions that the augmented arm classifies correctly in more seeds than the oversampled arm.
        lesions_lost: the reverse.
        p: p-value; null with several seeds.
    """

    lesions_gained: Count
    lesions_lost: Count
    p: Figure


class Permutation(Record):
    """Paired permutation test of the primary metric.

    Attributes:
        p: p-value; null with several seeds.
        passed: whether the test is significant at the 5 % level.
        draws: number of sign arrangements.
    """

    p: Figure
    passed: bool
    draws: Count


class Effect(Difference):
    """GAN effect: the difference augmented − oversampled, for the share of synthetic images with the best validation.

    Attributes:
        value: the difference in the primary metric.
        low: lower limit of the interval, which is corrected for the number of shares.
        high: upper limit of the interval.
        metric: name of the primary metric.
        arm: the augmented arm with the lowest balanced log loss on validation.
        doses: augmented − oversampled for each share of synthetic images; the intervals hold at once.
        best_control: the arm without synthetic images, other than the baseline, with the lowest balanced log loss on
            validation.
        augmented_minus_best_control: the difference augmented − best control; corrected for all pairs of them.
        remedies: difference of each arm to the baseline; the intervals hold at once.
        best: the arm with the lowest balanced log loss on validation.
        augmented_minus_baseline: the improvement in the primary metric, which includes rebalancing.
        by_metric: other metric → its differences.
        by_class: class → the effect on its recall.
        mcnemar: McNemar's exact test.
        permutation: the permutation test that the verdict requires.
        draws: number of bootstrap resamples.
    """

    metric: Text
    arm: ArmName
    doses: list[ArmDifference]
    best_control: ArmName
    augmented_minus_best_control: Difference
    remedies: list[ArmDifference]
    best: ArmName
    augmented_minus_baseline: Difference
    by_metric: dict[Text, MetricDifferences]
    by_class: dict[ClassName, ClassDifference]
    mcnemar: McNemar
    permutation: Permutation
    draws: Count


class Curves(Record):
    """Curves of an arm.

    Attributes:
        roc: class → ROC curve.
        pr: class → precision–recall curve.
        reliability: reliability diagram before and after temperature scaling.
    """

    roc: dict[ClassName, dict[Literal["fpr", "tpr"], list[Figure]]]
    pr: dict[ClassName, dict[Literal["recall", "precision"], list[Figure]]]
    reliability: dict[Literal["before", "after"], dict[Literal["confidence", "accuracy", "count"], list[Figure]]]


class ModelCurves(Record):
    """Training of one classifier, as in its record.

    Attributes:
        epochs: number of epochs that were trained.
        best_epoch: epoch whose weights were kept, from 1.
        history: metric → value of each epoch.
        seconds: duration of the training.
    """

    epochs: Count
    best_epoch: Count
    history: dict[Text, list[Figure]]
    seconds: NonNegative


class ArmResults(Record):
    """Metrics of an arm, means over its seeds.

    Attributes:
        accuracy: share of images that are classified correctly.
        balanced_accuracy: mean recall of all classes with images.
        rare_recall: mean recall of the rare classes that have synthetic images, the primary metric.
        macro_f1: mean F1 of the classes.
        macro_auc: mean area under the ROC curve of each class against the rest.
        malignant_sensitivity: sensitivity for malignant images at the threshold fitted on validation.
        malignant_specificity: specificity at the same threshold.
        brier: Brier score, from 0 (best) to 2.
        ece: expected calibration error of the predicted class.
        ece_scaled: the same, after temperature scaling.
        balanced_log_loss: mean over the classes of the mean log loss of their images, after temperature scaling.
        corrected_recall: the primary metric after prior correction.
        validation_log_loss: balanced log loss on validation, by which arms are chosen.
        prior_strength: power of the class frequencies by which probabilities are divided for the prior correction; has
            the lowest balanced log loss on validation.
        intervals: metric → limits of its 95 % interval.
        by_seed: seed → metric → value.
        recall: class → recall.
        precision: class → precision.
        f1: class → F1.
        auc: class → area under the ROC curve.
        support: class → number of images.
        recall_interval: class → limits of the 95 % interval of recall.
        confusion: confusion matrix, true classes in rows, summed over seeds.
        curves: curves by class.
        temperature: temperature of each model, fitted on validation.
        train_rows: number of training images per epoch; on the test set only.
        models: seed → training of its classifier; on the test set only.
    """

    accuracy: Figure
    balanced_accuracy: Figure
    rare_recall: Figure
    macro_f1: Figure
    macro_auc: Figure
    malignant_sensitivity: Figure
    malignant_specificity: Figure
    brier: Figure
    ece: Figure
    ece_scaled: Figure
    balanced_log_loss: Figure
    corrected_recall: Figure
    validation_log_loss: Figure = None
    prior_strength: Figure = None
    intervals: dict[Text, Interval]
    by_seed: dict[Text, dict[Text, Figure]]
    recall: ByClass
    precision: ByClass
    f1: ByClass
    auc: ByClass
    support: dict[ClassName, Count]
    recall_interval: dict[ClassName, Interval]
    confusion: list[list[Count]]
    curves: Curves
    temperature: list[NonNegative]
    train_rows: Count = 0
    models: dict[Text, ModelCurves] = {}


class ImageCounts(Record):
    """Size of a class.

    Attributes:
        images: number of images.
        lesions: number of lesions.
    """

    images: Count
    lesions: Count


class SyntheticDetails(Record):
    """Synthetic images of a class and their GAN; see `SampleQuality` and `TrainedGan` for the other fields.

    Attributes:
        images: number of synthetic images; 0 if the GAN failed.
        architecture: name of the module with the networks.
        failed: the error of the GAN; absent if it was trained.
        positions: number of flips and rotations of each image that the GAN learned from, 1 or 8.
        seconds: duration of the training of the GAN.
        label_fidelity: share of the synthetic images that the classifiers of the oversampled arm assign to the class,
            mean over seeds.
        validation_recall: share of the real validation images that they assign to it.
    """

    images: Count
    architecture: Text
    failed: Text | None = None
    positions: Count | None = None
    kimg: Figure = None
    best_kimg: Figure = None
    model_sha256: Sha256 | None = None
    real_images: Count | None = None
    seconds: Figure = None
    losses: Losses | None = None
    kid: Figure = None
    density: Figure = None
    coverage: Figure = None
    other_coverage: Figure = None
    texture: Figure = None
    separability: Share | None = None
    separability_spectrum: Share | None = None
    label_fidelity: Share | None = None
    validation_recall: Share | None = None
    drawn: Count | None = None
    copies: Count | None = None
    copy_threshold: Figure = None
    curated: Count | None = None
    reject: Figure = None
    against: Text | None = None
    nearest: list[NearestPair] = []


class Ages(Record):
    """Ages in years.

    Attributes:
        median: median age.
        low: lowest age.
        high: highest age.
        missing: number of images without age.
    """

    median: Figure
    low: Figure
    high: Figure
    missing: Count


class Population(Record):
    """Population of a split according to its metadata, counted by image.

    Attributes:
        images: number of images.
        lesions: number of lesions.
        age: ages.
        sex: value → number of images.
        localization: value → number of images.
        dx_type: value → number of images.
    """

    images: Count
    lesions: Count
    age: Ages
    sex: dict[Text, Count]
    localization: dict[Text, Count]
    dx_type: dict[Text, Count]


class Outcome(Record):
    """Comparison of the arms on one set of images.

    Attributes:
        arms: arm → metrics.
        effect: the effect of the synthetic images.
        verdict: the result in words.
    """

    arms: dict[ArmName, ArmResults]
    effect: Effect
    verdict: Verdict

    @model_validator(mode="after")
    def _compared_arms_exist(self) -> "Outcome":
        effect = self.effect
        compared = {BASELINE, CONTROL, effect.arm, effect.best, effect.best_control}
        compared |= {it.arm for it in (*effect.doses, *effect.remedies)}
        if not compared <= set(self.arms):
            raise ValueError("an arm is missing")
        if share_of(effect.arm) is None:
            raise ValueError("the arm of the effect has no synthetic images")
        return self


class ExternalOutcome(Outcome):
    """Comparison of the arms on external images.

    Attributes:
        arms: arm → metrics.
        effect: the effect of the synthetic images.
        verdict: the result in words.
        data: source of the images.
        counts: class → size.
    """

    data: Text
    counts: dict[ClassName, ImageCounts]


class Results(Outcome):
    """Record of an evaluation, `metrics.json`.

    Attributes:
        arms: arm → metrics on the test set.
        effect: the effect of the synthetic images.
        verdict: the result in words.
        run: what the result depends on.
        classes: all classes of the data.
        splits: split → class → size.
        population: split → population; absent if folds are pooled.
        synthetic: class → its synthetic images.
        external: comparison on external images; null without an external set.
    """

    run: RunRecord
    classes: Annotated[list[ClassName], Field(min_length=1, max_length=1_000), AfterValidator(_check_unique)]
    splits: dict[Literal["train", "validation", "test"], dict[ClassName, ImageCounts]]
    population: dict[Literal["train", "validation", "test"], Population] | None = None
    synthetic: dict[ClassName, SyntheticDetails]
    external: ExternalOutcome | None

    @model_validator(mode="after")
    def _shapes_agree(self) -> "Results":
        size = len(self.classes)
        for outcome in (self, *([self.external] if self.external else [])):
            for arm in outcome.arms.values():
                if len(arm.confusion) != size or any(len(row) != size for row in arm.confusion):
                    raise ValueError("a confusion matrix does not have one row and column per class")
        if set(self.splits) != {"train", "validation", "test"}:
            raise ValueError("a split is missing")
        return self


R = TypeVar("R")


def load_record(path: str | Path, model: type[R]) -> R:
    """Return the record in a JSON file.

    Args:
        path: the file.
        model: a class of this module; for `GanRecord` use `load_gan_record`.

    Raises:
        UserError: `record.invalid`: the file is missing, or is not such a record.

    Example:
        >>> load_record("models/baseline.json", ClassifierRecord).arm
        'baseline'
    """
    return _load(path, model, getattr(model, "__name__", "record"))


def load_gan_record(path: str | Path) -> TrainedGan | FailedGan:
    """Return the record of a GAN; errors as in `load_record`."""
    return _load(path, GanRecord, "GanRecord")


def _load(path: str | Path, model: Any, kind: str) -> Any:
    def invalid(field: str, problem: str) -> UserError:
        return UserError(
            f"{path} is not a valid {kind}: {f'{field}: ' if field else ''}{problem}",
            "use the unchanged files of one run of this version",
            "record.invalid",
            path=str(path),
            record=kind,
            field=field,
        )

    file = Path(path)
    if not file.is_file():
        raise invalid("", "the file does not exist")
    if file.stat().st_size > MAX_RECORD_BYTES:
        raise invalid("", f"the file has more than {MAX_RECORD_BYTES:,} bytes")
    try:
        return TypeAdapter(model).validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise invalid(".".join(map(str, first["loc"]))[:200], first["msg"][:300]) from error


def write_record(path: str | Path, record: Record) -> None:
    """Write a record as JSON, atomically."""
    write_text(path, record.model_dump_json(indent=1))


def path_below(root: str | Path, name: str) -> Path:
    """Return the path of a name from a record below a folder; the one place that turns such names into paths.

    Links are resolved: a link inside the folder that leads out of it is refused.

    Raises:
        UserError: `path.outside`: the name leads out of the folder.
    """
    top = Path(root).resolve()
    try:
        path = (top / _check_relative(name)).resolve()
        if path.is_relative_to(top) and path != top:
            return path
    except (ValueError, OSError, RuntimeError):  # RuntimeError: a loop of links
        pass
    raise UserError(
        f"{name[:200]!r} is not a path inside {root}", "use the unchanged folder of a run", "path.outside", name=name
    )
