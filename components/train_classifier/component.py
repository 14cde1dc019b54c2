"""Component specification of classifier training, the same for all arms; see `train.py`."""

from kfp import dsl

from components.container_images import image


@dsl.component(base_image=image("train_classifier"), install_kfp_package=False)
def train_classifier(
    pack: str,
    training_data: dsl.Input[dsl.Dataset],
    synthetic_per_class: int,
    random_seed: int,
    epochs: int,
    metadata: str,
    classifier: str,
    weights: str,
    synthetic_scope: str,
    synthetic_until: float,
    synthetic_weight: float,
    synthetic_smoothing: float,
    classifiers: dsl.Output[dsl.Model],
    synthetic_images: dsl.Input[dsl.Dataset] = None,
) -> None:
    """Train the network of each arm and seed of a pack.

    The option `checkpoints` is not a parameter, so that finished classifiers are taken from the cache when it changes.
    """
    from components.shared.errors import exit_on_user_error

    with exit_on_user_error():
        import os

        from components.shared.arms import Use
        from components.shared.skip import skip
        from components.shared.storage import checkpoint_address
        from components.shared.workflow_size import parse_pack

        jobs = parse_pack(pack)
        if not jobs:
            skip(classifiers.path, "train_classifier", "no arm uses synthetic images")
            return
        from components.train_classifier.train import train

        train(
            jobs=jobs,
            training_data=training_data.path,
            synthetic_images=synthetic_images.path if synthetic_images else None,
            synthetic_per_class=synthetic_per_class,
            random_seed=random_seed,
            epochs=epochs,
            metadata=metadata,
            classifier=classifier,
            weights=weights,
            use=Use(
                synthetic_until,
                synthetic_weight,
                synthetic_scope=synthetic_scope,  # type: ignore[arg-type]
                synthetic_smoothing=synthetic_smoothing,
            ),
            classifiers=classifiers.path,
            checkpoints=checkpoint_address(classifiers.uri, os.environ),
        )
