"""Define the pipeline: its parameters are the form in the Kubeflow UI, its tasks are the phases in `components/`.

Names and defaults of the parameters are those of `components.shared.parameters.Parameters`, which checks their values
and describes them. Where tasks run, and the options that are compiled in, are in `manifests/placement.yaml`.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

from kfp import dsl, kubernetes

from components.balance_dataset.component import balance_dataset
from components.check_inputs.component import check_inputs
from components.evaluate.component import evaluate
from components.generate_images.component import generate_images
from components.notify.component import notify
from components.placement import place, placement, plan_text, rates
from components.prepare_data.component import prepare_data, read_other_data
from components.publish.component import publish, read_champion
from components.train_classifier.component import train_classifier
from components.train_features.component import train_features
from components.train_gan.component import pretrain_gan, train_gan

OPTIONS = placement().options


def keep_checkpoints(task: dsl.PipelineTask) -> None:
    """Pass a task the option `checkpoints`, and its run's id, which is in the address of its checkpoints.

    Neither is a parameter: with the id, no run could take another run's cached result, and the option changes no
    result. Kubeflow's cache key contains parameters and variables with fixed values, but no labels and annotations.
    """
    kubernetes.add_pod_annotation(task, "counterweight/checkpoints", OPTIONS.checkpoints)
    kubernetes.use_field_path_as_env(
        task, "COUNTERWEIGHT_CHECKPOINTS", "metadata.annotations['counterweight/checkpoints']"
    )
    kubernetes.use_field_path_as_env(task, "COUNTERWEIGHT_RUN", "metadata.labels['pipeline/runid']")


def notified_end(data: str) -> AbstractContextManager[object]:
    """Return the exit handler that reports the run's end; without a notification, the graph stays flat."""
    if not placement().notifies:
        return nullcontext()
    task = notify(
        run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        run_name=dsl.PIPELINE_JOB_NAME_PLACEHOLDER,
        data=data,
        api=placement().api,
        ui=placement().ui,
        rates=rates(),
    ).set_display_name("Notify")
    place(task, "notify")
    task.set_caching_options(False)
    if placement().webhook_secret:
        kubernetes.use_secret_as_env(task, placement().webhook_secret, {"url": "COUNTERWEIGHT_WEBHOOK"}, optional=True)
    return dsl.ExitHandler(task, name="run")


class SyntheticImages(NamedTuple):
    """Output of the nested pipeline."""

    synthetic_images: dsl.Dataset


@dsl.pipeline(name="make-synthetic-images")
def make_synthetic_images(
    training_data: dsl.Input[dsl.Dataset],
    test_data: dsl.Input[dsl.Dataset],
    synthetic: str,
    external: str,
    others_identity: str,
    columns: str,
    duplicates: str,
    train_gans: bool,
    class_groups: list[str],
    rare: list[str],
    kimg: float,
    shared_kimg: float,
    count: int,
    seed: int,
) -> SyntheticImages:
    """Train a GAN for each class and generate images with it, or take images of other generators."""
    given = read_other_data(
        synthetic=synthetic,
        external=external,
        others_identity=others_identity,
        columns=columns,
        duplicates=duplicates,
        training_data=training_data,
        test_data=test_data,
        count=count,
        max_bad_images=OPTIONS.max_bad_images,
        scope=OPTIONS.synthetic_scope,
        seed=seed,
    ).set_display_name("Read other data")
    place(given, "prepare_data")
    features = train_features(training_data=training_data, scope=OPTIONS.synthetic_scope, seed=seed)
    features.set_display_name("Train features")
    place(features, "train_features")
    # Runs with a budget of 0, too, and takes seconds then: a condition would cost three more drivers.
    pretrained = pretrain_gan(
        train_gans=train_gans,
        classes=rare,
        training_data=training_data,
        features=features.outputs["features"],
        architecture=OPTIONS.gan_architecture,
        kimg=shared_kimg,
        seed=seed,
    ).set_display_name("Pretrain GAN")
    keep_checkpoints(pretrained)
    place(pretrained, "train_gan")
    with dsl.ParallelFor(class_groups, name="classes", parallelism=placement().accelerator.at_a_time) as classes:
        trained = train_gan(
            train_gans=train_gans,
            classes=classes,
            rare_data=features.outputs["rare_data"],
            features=features.outputs["features"],
            start=pretrained.outputs["start"],
            architecture=OPTIONS.gan_architecture,
            kimg=kimg,
            seed=seed,
        ).set_display_name("Train GAN")
        # As in `keep_checkpoints`, for the same reason.
        kubernetes.add_pod_annotation(trained, "counterweight/failed-class", OPTIONS.failed_class)
        kubernetes.use_field_path_as_env(
            trained, "COUNTERWEIGHT_FAILED_CLASS", "metadata.annotations['counterweight/failed-class']"
        )
        keep_checkpoints(trained)
        place(trained, "train_gan")
        generated = generate_images(
            classes=classes,
            gans=trained.outputs["gans"],
            sources=given.outputs["sources"],
            features=features.outputs["features"],
            rare_data=features.outputs["rare_data"],
            count=count,
            selection=OPTIONS.synthetic_selection,
            seed=seed,
        ).set_display_name("Generate images")
        place(generated, "generate_images")
    collected = balance_dataset(
        rare_data=features.outputs["rare_data"],
        features=features.outputs["features"],
        start=pretrained.outputs["start"],
        gans=dsl.Collected(trained.outputs["gans"]),
        synthetic=dsl.Collected(generated.outputs["synthetic"]),
        sources=given.outputs["sources"],
        failed_class=OPTIONS.failed_class,
    ).set_display_name("Collect images")
    place(collected, "balance_dataset")
    return SyntheticImages(synthetic_images=collected.outputs["synthetic_images"])


def read_promoted(checked: dsl.PipelineTask, prepared: dsl.PipelineTask) -> dsl.PipelineTask | None:
    """Return the task that copies the champion; without the option, the graph has no such task."""
    if OPTIONS.champion == "none":
        return None
    task = read_champion(
        champion=checked.outputs["champion_run"], training_data=prepared.outputs["training_data"]
    ).set_display_name("Read champion")
    return place(task, "publish")


@dsl.pipeline(name="counterweight")
def counterweight(
    arms: str = "all",
    classifier_epochs: int = 20,
    classifier_seeds: list[int] = [1, 2, 3],  # noqa: B006 (the compiler reads it)
    data: str = "demo",
    data_columns: str = "auto",
    data_duplicates: str = "refuse",
    data_external: str = "none",
    data_image_size: int = 64,
    data_split: str = "random",
    gan_kimg: float = 8.0,
    gan_shared_kimg: float = 100.0,
    output: str = "auto",
    positive_classes: str = "auto",
    random_seed: int = 1,
    synthetic: str = "gan",
    synthetic_classes: str = "auto",
    synthetic_per_class: int = 500,
    synthetic_shares: list[float] = [0.25, 0.5, 1.0],  # noqa: B006
) -> None:
    """Compare remedies for class imbalance, among them the synthetic images of a GAN per rare class."""
    with notified_end(data):
        checked = check_inputs(
            arms=arms,
            classifier_epochs=classifier_epochs,
            classifier_seeds=classifier_seeds,
            data=data,
            data_columns=data_columns,
            data_duplicates=data_duplicates,
            data_external=data_external,
            data_image_size=data_image_size,
            data_split=data_split,
            gan_kimg=gan_kimg,
            gan_shared_kimg=gan_shared_kimg,
            output=output,
            positive_classes=positive_classes,
            random_seed=random_seed,
            synthetic=synthetic,
            synthetic_classes=synthetic_classes,
            synthetic_per_class=synthetic_per_class,
            synthetic_shares=synthetic_shares,
            classifiers_per_task=OPTIONS.classifiers_per_task,
            checkpoints=OPTIONS.checkpoints,
            champion=OPTIONS.champion,
            max_bad_images=OPTIONS.max_bad_images,
            metadata=OPTIONS.metadata,
            synthetic_scope=OPTIONS.synthetic_scope,
            weights=OPTIONS.weights,
        ).set_display_name("Check inputs")
        place(checked, "check_inputs")
        checked.set_caching_options(False)  # detects changed data

        prepared = prepare_data(
            data=data,
            data_identity=checked.outputs["data_identity"],
            columns=data_columns,
            split=data_split,
            duplicates=data_duplicates,
            image_size=data_image_size,
            rare_classes=synthetic_classes,
            gans_per_task=OPTIONS.gans_per_task,
            max_bad_images=OPTIONS.max_bad_images,
            seed=random_seed,
        ).set_display_name("Prepare data")
        place(prepared, "prepare_data")
        for task in (checked, prepared):
            if placement().kaggle_secret:
                variables = {"username": "KAGGLE_USERNAME", "key": "KAGGLE_KEY"}
                kubernetes.use_secret_as_env(task, placement().kaggle_secret, variables)
        training_data = prepared.outputs["training_data"]
        champion = read_promoted(checked, prepared)

        made = make_synthetic_images(
            training_data=training_data,
            test_data=prepared.outputs["test_data"],
            synthetic=synthetic,
            external=data_external,
            others_identity=checked.outputs["others_identity"],
            columns=data_columns,
            duplicates=data_duplicates,
            train_gans=checked.outputs["train_gans"],
            class_groups=prepared.outputs["every" if OPTIONS.synthetic_scope == "all" else "Output"],
            rare=prepared.outputs["rare"],
            kimg=gan_kimg,
            shared_kimg=gan_shared_kimg,
            count=synthetic_per_class,
            seed=random_seed,
        ).set_display_name("Synthetic images")
        if champion:
            made.after(champion)  # a champion that cannot be used fails the run before anything is trained
        synthetic_images = made.outputs["synthetic_images"]

        with dsl.ParallelFor(checked.outputs["real"], name="train-on-real") as pack:
            real = train_classifier(
                pack=pack,
                training_data=training_data,
                synthetic_per_class=synthetic_per_class,
                random_seed=random_seed,
                epochs=classifier_epochs,
                metadata=OPTIONS.metadata,
                classifier=OPTIONS.classifier,
                weights=OPTIONS.weights,
                synthetic_scope="rare",
                synthetic_until=1.0,
                synthetic_weight=OPTIONS.synthetic_weight,
                synthetic_smoothing=OPTIONS.synthetic_smoothing,
            ).set_display_name("Train classifier")
            if champion:
                real.after(champion)
            keep_checkpoints(real)
            place(real, "train_classifier")
        with dsl.ParallelFor(checked.outputs["synthetic"], name="train-synthetic") as pack:
            mixed = train_classifier(
                pack=pack,
                training_data=training_data,
                synthetic_images=synthetic_images,
                synthetic_per_class=synthetic_per_class,
                random_seed=random_seed,
                epochs=classifier_epochs,
                metadata=OPTIONS.metadata,
                classifier=OPTIONS.classifier,
                weights=OPTIONS.weights,
                synthetic_scope=OPTIONS.synthetic_scope,
                synthetic_until=OPTIONS.synthetic_until,
                synthetic_weight=OPTIONS.synthetic_weight,
                synthetic_smoothing=OPTIONS.synthetic_smoothing,
            ).set_display_name("Train classifier")
            keep_checkpoints(mixed)
            place(mixed, "train_classifier")

        evaluated = evaluate(
            training_data=training_data,
            test_data=prepared.outputs["test_data"],
            synthetic_images=synthetic_images,
            classifiers_real=dsl.Collected(real.outputs["classifiers"]),
            classifiers_synthetic=dsl.Collected(mixed.outputs["classifiers"]),
            arms=arms,
            data=data,
            data_columns=data_columns,
            data_duplicates=data_duplicates,
            data_external=data_external,
            data_split=data_split,
            gan_architecture=OPTIONS.gan_architecture,
            gan_kimg=gan_kimg,
            gan_shared_kimg=gan_shared_kimg,
            positive_classes=positive_classes,
            random_seed=random_seed,
            synthetic=synthetic,
            synthetic_per_class=synthetic_per_class,
            synthetic_shares=synthetic_shares,
            plan=plan_text(),
            **({"champion": champion.outputs["champion_files"]} if champion else {}),
        ).set_display_name("Evaluate")
        place(evaluated, "evaluate")

        published = publish(
            test_data=prepared.outputs["test_data"],
            data_profile=prepared.outputs["data_profile"],
            synthetic_images=synthetic_images,
            classifiers_real=dsl.Collected(real.outputs["classifiers"]),
            classifiers_synthetic=dsl.Collected(mixed.outputs["classifiers"]),
            results=evaluated.outputs["results"],
            report=evaluated.outputs["report"],
            output=output,
            run=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            verdict=evaluated.outputs["Output"],
            promote_if=OPTIONS.promote_if,
        ).set_display_name("Publish")
        place(published, "publish")
        published.set_caching_options(False)  # the output may have been emptied since
