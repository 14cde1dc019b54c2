"""The graph, and nothing else: its parameters are the form in the Kubeflow UI, its tasks the phases in
`components/`."""

from kfp import dsl

from components.balance_dataset.component import balance_dataset
from components.evaluate.component import evaluate
from components.generate_images.component import generate_images
from components.prepare_data.component import prepare_data
from components.publish.component import publish
from components.train_classifier.component import train_classifier
from components.train_gan.component import train_gan


@dsl.pipeline(name="counterweight")
def counterweight(
    data: str = "demo",
    data_version: str = "1",
    output: str = "runs/output",
    image_size: int = 128,
    rare_classes: str = "auto",
    max_bad_images: int = 10,
    synthetic_per_class: int = 500,
    gan_architecture: str = "dcgan",
    gan_kimg: float = 12.0,
    classifier_epochs: int = 50,
    classifier_patience: int = 10,
    augmentation: str = "none",
    seed: int = 1,
) -> None:
    """Do synthetic images of the rare classes help? Trains a CNN as the data is (baseline), with real images repeated
    (oversampled, the control) and with one GAN's images for each rare class (augmented), and compares them on real
    lesions that no model has seen.

    Args:
        data: demo, kaggle, gs://bucket/prefix or a folder in HAM10000's layout.
        data_version: Any word; change it when the data has changed, so that no cached result of the old data is taken.
        output: Folder for the models, synthetic images, figures and report of this run.
        image_size: Height and width that images are scaled to, in pixels; a multiple of 16 from 32 to 512.
        rare_classes: Classes to make synthetic images for, with commas between them; auto takes all but the largest.
        max_bad_images: So many unusable images are listed and left out; more end the run.
        synthetic_per_class: Synthetic images for each rare class, and repeated real ones in the control.
        gan_architecture: dcgan (the original).
        gan_kimg: Budget of each GAN, in thousand real images shown.
        classifier_epochs: Epochs of each classifier at the most; an epoch has equal steps in all arms.
        classifier_patience: Epochs without a better validation before a classifier's training stops.
        augmentation: Classical augmentation, equal in all arms; none or flips_and_turns.
        seed: Of the split, the weights and everything drawn.
    """
    prepared = prepare_data(
        data=data,
        data_version=data_version,
        image_size=image_size,
        rare_classes=rare_classes,
        max_bad_images=max_bad_images,
        seed=seed,
    ).set_display_name("Prepare data")
    train, validation = prepared.outputs["train"], prepared.outputs["validation"]

    def trained(arm: str, images: dsl.Dataset) -> dsl.PipelineTask:
        """The classifier of one arm: everything but its training set is the same."""
        task = train_classifier(
            arm=arm,
            train=images,
            validation=validation,
            epochs=classifier_epochs,
            patience=classifier_patience,
            augmentation=augmentation,
            seed=seed,
        )
        return task.set_display_name(f"Train classifier: {arm}")

    baseline = trained("baseline", train)

    with dsl.ParallelFor(prepared.outputs["Output"], name="rare-classes") as dx:
        gan = train_gan(
            dx=dx, train=train, architecture=gan_architecture, kimg=gan_kimg, failed_class="fail", seed=seed
        )
        gan.set_display_name("Train GAN")
        drawn = generate_images(
            generator=gan.outputs["generator"], record=gan.outputs["record"], count=synthetic_per_class, seed=seed
        )
        drawn.set_display_name("Generate images")
    # The compiler changes a Collected where it is used: each consumer gets one of its own.
    balanced = balance_dataset(train=train, synthetic=dsl.Collected(drawn.outputs["images"]), seed=seed)
    balanced.set_display_name("Balance data set")
    oversampled = trained("oversampled", balanced.outputs["oversampled"])
    augmented = trained("augmented", balanced.outputs["augmented"])

    arms = {
        "baseline": baseline.outputs["model"],
        "baseline_record": baseline.outputs["record"],
        "oversampled": oversampled.outputs["model"],
        "oversampled_record": oversampled.outputs["record"],
        "augmented": augmented.outputs["model"],
        "augmented_record": augmented.outputs["record"],
    }
    judged = evaluate(
        data=data,
        rare_classes=prepared.outputs["Output"],
        seed=seed,
        test=prepared.outputs["test"],
        train=train,
        validation=validation,
        synthetic=dsl.Collected(drawn.outputs["images"]),
        gan_records=dsl.Collected(gan.outputs["record"]),
        **arms,
    ).set_display_name("Evaluate")
    published = publish(
        output=output,
        generators=dsl.Collected(gan.outputs["generator"]),
        gan_records=dsl.Collected(gan.outputs["record"]),
        gan_progress=dsl.Collected(gan.outputs["progress"]),
        synthetic=dsl.Collected(drawn.outputs["images"]),
        contact_sheets=dsl.Collected(drawn.outputs["contact_sheet"]),
        results=judged.outputs["results"],
        predictions=judged.outputs["predictions"],
        report=judged.outputs["report"],
        comparison=judged.outputs["comparison"],
        data_profile=prepared.outputs["data_profile"],
        **arms,
    ).set_display_name("Publish")
    # Someone may have emptied the output since: whether it is complete is for publish to find out, not for the cache.
    published.set_caching_options(False)
