"""Specs of the two tasks that train GANs: `pretrain.py` and `train.py`."""

from kfp import dsl

from components.container_images import image


@dsl.component(base_image=image("train_gan"), install_kfp_package=False)
def shared_pretraining(
    classes: list[str],
    train: dsl.Input[dsl.Dataset],
    validation: dsl.Input[dsl.Dataset],
    architecture: str,
    kimg: float,
    seed: int,
    checkpoints: str,
    features: dsl.Output[dsl.Model],
    start: dsl.Output[dsl.Model],
    record: dsl.Output[dsl.Artifact],
    progress: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Trains the classifier whose features all synthetic images are judged in, and, for a budget above 0, one GAN on
    all rare classes together, from which that of each class starts."""
    from components.shared.errors import exit_on_user_error

    with exit_on_user_error():
        import os

        from components.shared.kfp_metrics import log_metrics
        from components.shared.storage import checkpoint_address
        from components.train_gan.pretrain import pretrain

        features.path += ".keras"
        measured = pretrain(
            classes=classes,
            train_set=train.path,
            validation_set=validation.path,
            architecture=architecture,
            kimg=kimg,
            seed=seed,
            features=features.path,
            start=start.path,
            record=record.path,
            progress_page=progress.path,
            checkpoints=checkpoint_address(checkpoints, start.uri, os.environ),
        )
        log_metrics(metrics, {f"shared_{name}": value for name, value in measured.items()})


@dsl.component(base_image=image("train_gan"), install_kfp_package=False)
def train_gan(
    classes: str,
    train: dsl.Input[dsl.Dataset],
    validation: dsl.Input[dsl.Dataset],
    features: dsl.Input[dsl.Model],
    start: dsl.Input[dsl.Model],
    architecture: str,
    kimg: float,
    failed_class: str,
    seed: int,
    checkpoints: str,
    generators: dsl.Output[dsl.Model],
    record: dsl.Output[dsl.Artifact],
    progress: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Trains a GAN for each of some classes, whose names have commas between them, on that class's real training
    images."""
    from components.shared.errors import exit_on_user_error

    with exit_on_user_error():
        import os

        from components.shared.kfp_metrics import log_metrics
        from components.shared.storage import checkpoint_address
        from components.train_gan.train import train as train_classes

        measured = train_classes(
            classes=classes.split(","),
            train_set=train.path,
            validation_set=validation.path,
            features=features.path,
            start=start.path,
            architecture=architecture,
            kimg=kimg,
            seed=seed,
            failed_class=failed_class,
            generators=generators.path,
            record=record.path,
            progress_page=progress.path,
            checkpoints=checkpoint_address(checkpoints, generators.uri, os.environ),
        )
        log_metrics(metrics, measured)
