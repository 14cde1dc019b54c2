"""Spec of the two balanced arms: see `balance.py`."""

from kfp import dsl

from components.container_images import image


@dsl.component(base_image=image("balance_dataset"), install_kfp_package=False)
def balance_dataset(
    train: dsl.Input[dsl.Dataset],
    synthetic: dsl.Input[list[dsl.Dataset]],
    seed: int,
    augmented: dsl.Output[dsl.Dataset],
    oversampled: dsl.Output[dsl.Dataset],
    summary: dsl.Output[dsl.Markdown],
) -> None:
    """Adds the synthetic images to the training set, and for the control the same number of repeated real ones."""
    from components.shared.errors import exit_on_user_error

    with exit_on_user_error():
        from components.balance_dataset.balance import balance

        balance(
            train_set=train.path,
            synthetic_sets=[images.path for images in synthetic],
            seed=seed,
            augmented=augmented.path,
            oversampled=oversampled.path,
            summary=summary.path,
        )
