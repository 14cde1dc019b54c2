"""Spec of the classifier's training, the same for all arms: see `train.py`."""

from kfp import dsl

from components.container_images import image


@dsl.component(base_image=image("train_classifier"), install_kfp_package=False)
def train_classifier(
    arm: str,
    train: dsl.Input[dsl.Dataset],
    validation: dsl.Input[dsl.Dataset],
    epochs: int,
    patience: int,
    augmentation: str,
    seed: int,
    model: dsl.Output[dsl.Model],
    record: dsl.Output[dsl.Artifact],
    curves: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Trains the CNN on one arm's training set and keeps the weights with the best balanced accuracy on validation."""
    from components.shared.errors import exit_on_user_error

    with exit_on_user_error():
        from components.shared.kfp_metrics import log_metrics
        from components.train_classifier.train import train as train_arm

        model.path += ".keras"
        measured = train_arm(
            arm=arm,
            train_set=train.path,
            validation_set=validation.path,
            epochs=epochs,
            patience=patience,
            augmentation=augmentation,
            seed=seed,
            model=model.path,
            record=record.path,
            curves=curves.path,
        )
        log_metrics(metrics, {f"{arm}_{name}": value for name, value in measured.items()})
