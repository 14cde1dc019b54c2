"""Component specification of feature-extractor training; see `train.py`."""

from kfp import dsl

from components.container_images import image


@dsl.component(base_image=image("train_features"), install_kfp_package=False)
def train_features(
    training_data: dsl.Input[dsl.Dataset],
    scope: str,
    seed: int,
    features: dsl.Output[dsl.Model],
    rare_data: dsl.Output[dsl.Dataset],
) -> None:
    """Train the small classifier whose features compare images in this run.

    `rare_data` is the part of the training data that the GANs need, of the rare classes or of all (`scope`): Kubeflow's
    launcher copies an input as a whole, to each task of the loop over the classes.
    """
    from components.shared.errors import exit_on_user_error

    with exit_on_user_error():
        from components.train_features.train import train

        features.path += ".keras"
        train(
            training_data=training_data.path,
            scope=scope,  # type: ignore[arg-type]
            seed=seed,
            features=features.path,
            rare_data=rare_data.path,
        )
