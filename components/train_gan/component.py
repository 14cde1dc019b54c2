"""Spec of one class's GAN training: see `train.py`."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("train_gan"), install_kfp_package=False)
def train_gan(
    dx: str,
    train: dsl.Input[dsl.Dataset],
    validation: dsl.Input[dsl.Dataset],
    architecture: str,
    kimg: float,
    failed_class: str,
    seed: int,
    generator: dsl.Output[dsl.Model],
    record: dsl.Output[dsl.Artifact],
    progress: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    checkpoints: str = "",
) -> None:
    """Trains the GAN of one class on that class's real training images."""
    from components.shared.errors import exit_on_user_error

    with exit_on_user_error():
        from components.shared.outputs import log_metrics
        from components.train_gan.train import train_or_tell

        generator.path += ".keras"
        measured = train_or_tell(
            dx=dx,
            train_set=train.path,
            validation_set=validation.path,
            architecture=architecture,
            kimg=kimg,
            failed_class=failed_class,
            seed=seed,
            generator=generator.path,
            record=record.path,
            progress_page=progress.path,
            checkpoints=checkpoints,
        )
        log_metrics(metrics, {f"{dx}_{name}": value for name, value in measured.items()})
