"""Spec of drawing the synthetic images of some classes: see `generate.py`."""

from kfp import dsl

from components.container_images import image


@dsl.component(base_image=image("generate_images"), install_kfp_package=False)
def generate_images(
    generators: dsl.Input[dsl.Model],
    record: dsl.Input[dsl.Artifact],
    features: dsl.Input[dsl.Model],
    train: dsl.Input[dsl.Dataset],
    validation: dsl.Input[dsl.Dataset],
    count: int,
    reject: float,
    seed: int,
    images: dsl.Output[dsl.Dataset],
    contact_sheet: dsl.Output[dsl.HTML],
    quality: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Draws synthetic images of each class that has a generator, drops copies of training images and the worst share,
    and measures what is kept; each row of the set says where it comes from."""
    from components.shared.errors import exit_on_user_error

    with exit_on_user_error():
        from components.generate_images.generate import generate
        from components.shared.kfp_metrics import log_metrics

        measured = generate(
            generators=generators.path,
            record=record.path,
            features=features.path,
            train_set=train.path,
            validation_set=validation.path,
            count=count,
            reject=reject,
            seed=seed,
            images=images.path,
            sheet=contact_sheet.path,
            quality=quality.path,
        )
        log_metrics(metrics, measured)
