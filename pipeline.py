"""The graph, and nothing else: its parameters are the form in the Kubeflow UI, its tasks the phases in
`components/`."""

from kfp import dsl, kubernetes

from components.balance_dataset.component import balance_dataset
from components.evaluate.component import evaluate
from components.generate_images.component import generate_images
from components.notify.component import notify
from components.placement import place, placement, rates
from components.prepare_data.component import prepare_data
from components.publish.component import publish
from components.train_classifier.component import train_classifier
from components.train_gan.component import shared_pretraining, train_gan


@dsl.pipeline(name="counterweight")
def counterweight(
    data: str = "demo",
    data_version: str = "1",
    split: str = "random",
    duplicates: str = "refuse",
    external: str = "none",
    output: str = "runs/output",
    image_size: int = 128,
    rare_classes: str = "auto",
    max_bad_images: int = 10,
    synthetic_per_class: int = 500,
    synthetic_reject: float = 0.2,
    gan_architecture: str = "resnet",
    gan_kimg: float = 8.0,
    shared_kimg: float = 24.0,
    gans_per_task: int = 1,
    checkpoints: str = "auto",
    failed_class: str = "fail",
    classifier_epochs: int = 50,
    classifier_patience: int = 10,
    augmentation: str = "none",
    seed: int = 1,
    seeds: list[int] = [1, 2, 3],  # noqa: B006 (the compiler reads it)
    malignant: str = "mel,bcc,akiec",
    promote_if: str = "improved",
) -> None:
    """Do synthetic images of the rare classes help? Trains a CNN as the data is (baseline), with real images repeated
    (oversampled, the control) and with one GAN's images for each rare class (augmented), and compares them on real
    lesions that no model has seen.

    Args:
        data: demo, kaggle, gs://bucket/prefix or a folder in HAM10000's layout.
        data_version: Any word; change it when the data has changed, so that no cached result of the old data is taken.
        split: random (by lesion), k/n (fold k of n) or a CSV file with image_id and split.
        duplicates: What becomes of the same picture on two sides of the split; refuse (the run ends) or move_to_train.
        external: Images from elsewhere to judge all arms on, laid out as data; none, gs://bucket/prefix or a folder.
        output: Folder or gs://bucket/prefix for the models, synthetic images, figures and report of this run.
        image_size: Height and width that images are scaled to, in pixels; a multiple of 16 from 32 to 512.
        rare_classes: Classes to make synthetic images for, with commas between them; auto takes all but the largest.
        max_bad_images: So many unusable images are listed and left out; more end the run.
        synthetic_per_class: Synthetic images for each rare class, and repeated real ones in the control.
        synthetic_reject: Share of the images drawn that curation rejects as the worst and draws anew, from 0 to 0.9.
        gan_architecture: resnet (residual networks, for few images) or dcgan (the original).
        gan_kimg: Budget of each GAN, in thousand real images shown.
        shared_kimg: Budget of one GAN of all rare classes together, from which that of each class starts; 0 for none.
        gans_per_task: So many classes' GANs are trained in one task, on one GPU.
        checkpoints: Where GAN training goes on from after a break; auto (beside the artifacts), none or gs://bucket/prefix.
        failed_class: When the GAN of a class fails; fail (the run ends) or continue (without it; the report says so).
        classifier_epochs: Epochs of each classifier at the most; an epoch has equal steps in all arms.
        classifier_patience: Epochs without a better validation before a classifier's training stops.
        augmentation: Classical augmentation, equal in all arms; none or flips_and_rotations.
        seed: Of the split, the GANs and everything drawn.
        seeds: Of the classifiers; each arm is trained once with each.
        malignant: Classes whose sensitivity at 90 % specificity is told, with commas between them.
        promote_if: When the augmented model becomes a candidate; improved, not_worse, always or never.
    """
    ended = notify(
        run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        run_name=dsl.PIPELINE_JOB_NAME_PLACEHOLDER,
        data=data,
        api=placement().api,
        ui=placement().ui,
        rates=rates(),
    ).set_display_name("Tell how it ended")
    place(ended, "notify")
    # The end of an earlier run is no news.
    ended.set_caching_options(False)
    if placement().webhook_secret:
        kubernetes.use_secret_as_env(ended, placement().webhook_secret, {"url": "COUNTERWEIGHT_WEBHOOK"}, optional=True)

    with dsl.ExitHandler(ended, name="run"):
        prepared = prepare_data(
            data=data,
            data_version=data_version,
            split=split,
            duplicates=duplicates,
            external=external,
            image_size=image_size,
            rare_classes=rare_classes,
            gans_per_task=gans_per_task,
            max_bad_images=max_bad_images,
            seed=seed,
        ).set_display_name("Prepare data")
        place(prepared, "prepare_data")
        train, validation = prepared.outputs["train"], prepared.outputs["validation"]

        def trained(arm: str, images: dsl.Dataset) -> dsl.PipelineTask:
            """The classifiers of one arm, one for each seed: everything but its training set is the same."""
            with dsl.ParallelFor(seeds, name=f"{arm}-seeds") as classifier_seed:
                task = train_classifier(
                    arm=arm,
                    train=images,
                    validation=validation,
                    epochs=classifier_epochs,
                    patience=classifier_patience,
                    augmentation=augmentation,
                    seed=classifier_seed,
                ).set_display_name(f"Train classifier: {arm}")
                return place(task, "train_classifier")

        baseline = trained("baseline", train)

        def on_gpu(task: dsl.PipelineTask) -> dsl.PipelineTask:
            """Places a task that trains GANs, and tells it its run, which its checkpoints are keyed by: not as a
            parameter, or no run could take another's cached result."""
            kubernetes.use_field_path_as_env(task, "COUNTERWEIGHT_RUN", "metadata.labels['pipeline/runid']")
            return place(task, "train_gan")

        shared = shared_pretraining(
            classes=prepared.outputs["rare"],
            train=train,
            validation=validation,
            architecture=gan_architecture,
            kimg=shared_kimg,
            seed=seed,
            checkpoints=checkpoints,
        ).set_display_name("Pretrain for all rare classes")
        on_gpu(shared)
        features = shared.outputs["features"]
        groups = dsl.ParallelFor(
            prepared.outputs["Output"], name="rare-classes", parallelism=placement().accelerator.at_a_time
        )
        with groups as classes:
            gan = train_gan(
                classes=classes,
                train=train,
                validation=validation,
                features=features,
                start=shared.outputs["start"],
                architecture=gan_architecture,
                kimg=gan_kimg,
                failed_class=failed_class,
                seed=seed,
                checkpoints=checkpoints,
            ).set_display_name("Train GAN")
            on_gpu(gan)
            drawn = generate_images(
                generators=gan.outputs["generators"],
                record=gan.outputs["record"],
                features=features,
                train=train,
                validation=validation,
                count=synthetic_per_class,
                reject=synthetic_reject,
                seed=seed,
            ).set_display_name("Generate images")
            place(drawn, "generate_images")
        # The compiler changes a Collected where it is used: each consumer gets one of its own.
        balanced = balance_dataset(train=train, synthetic=dsl.Collected(drawn.outputs["images"]), seed=seed)
        place(balanced, "balance_dataset").set_display_name("Balance data set")
        arms = {
            "baseline": baseline,
            "oversampled": trained("oversampled", balanced.outputs["oversampled"]),
            "augmented": trained("augmented", balanced.outputs["augmented"]),
        }

        def models() -> dict[str, dsl.Collected]:
            """Models and records of all arms, as both phases behind take them."""
            of_arm = {name: dsl.Collected(task.outputs["model"]) for name, task in arms.items()}
            return of_arm | {f"{name}_records": dsl.Collected(task.outputs["record"]) for name, task in arms.items()}

        judged = evaluate(
            data=data,
            rare_classes=prepared.outputs["rare"],
            malignant=malignant,
            split=split,
            external_data=external,
            seed=seed,
            test=prepared.outputs["test"],
            external=prepared.outputs["external_set"],
            train=train,
            validation=validation,
            synthetic=dsl.Collected(drawn.outputs["images"]),
            gan_records=dsl.Collected(gan.outputs["record"]),
            quality=dsl.Collected(drawn.outputs["quality"]),
            **models(),
        ).set_display_name("Evaluate")
        place(judged, "evaluate")
        published = publish(
            output=output,
            run=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            verdict=judged.outputs["Output"],
            promote_if=promote_if,
            features=features,
            shared_record=shared.outputs["record"],
            shared_progress=shared.outputs["progress"],
            generators=dsl.Collected(gan.outputs["generators"]),
            gan_records=dsl.Collected(gan.outputs["record"]),
            gan_progress=dsl.Collected(gan.outputs["progress"]),
            synthetic=dsl.Collected(drawn.outputs["images"]),
            contact_sheets=dsl.Collected(drawn.outputs["contact_sheet"]),
            quality=dsl.Collected(drawn.outputs["quality"]),
            results=judged.outputs["results"],
            predictions=judged.outputs["predictions"],
            report=judged.outputs["report"],
            comparison=judged.outputs["comparison"],
            model_card=judged.outputs["model_card"],
            data_sheet=judged.outputs["data_sheet"],
            splits=prepared.outputs["splits"],
            data_profile=prepared.outputs["data_profile"],
            **models(),
        ).set_display_name("Publish")
        place(published, "publish")
        # Someone may have emptied the output since: whether it is complete is for publish to find out, not for the
        # cache.
        published.set_caching_options(False)
