"""Component specifications of the two tasks that train GANs; see `pretrain.py` and `train.py`."""

from kfp import dsl

from components.container_images import image


@dsl.component(base_image=image("train_gan"), install_kfp_package=False)
def pretrain_gan(
    train_gans: bool,
    classes: list[str],
    training_data: dsl.Input[dsl.Dataset],
    features: dsl.Input[dsl.Model],
    architecture: str,
    kimg: float,
    seed: int,
    start: dsl.Output[dsl.Model],
) -> None:
    """Train one GAN of several classes, from which the GAN of each class starts; nothing with a budget of 0.

    With `train_gans` false, the run uses no images of GANs, and nothing is trained.
    """
    from components.shared.errors import exit_on_user_error

    with exit_on_user_error():
        import os

        from components.shared.skip import skip
        from components.shared.storage import checkpoint_address

        if not train_gans:
            skip(start.path, "pretrain_gan", "this run trains no GANs")
            return
        from components.train_gan.pretrain import pretrain

        pretrain(
            classes=classes,
            training_data=training_data.path,
            features=features.path,
            architecture=architecture,
            kimg=kimg,
            seed=seed,
            start=start.path,
            checkpoints=checkpoint_address(start.uri, os.environ),
        )


@dsl.component(base_image=image("train_gan"), install_kfp_package=False)
def train_gan(
    train_gans: bool,
    classes: str,
    rare_data: dsl.Input[dsl.Dataset],
    features: dsl.Input[dsl.Model],
    start: dsl.Input[dsl.Model],
    architecture: str,
    kimg: float,
    seed: int,
    gans: dsl.Output[dsl.Model],
) -> None:
    """Train a GAN for each of some classes (comma-separated) on the real training images of that class.

    With `train_gans` false, the run uses no images of GANs, and nothing is trained. The options
    `failed_class` and `checkpoints` are not parameters: finished GANs are taken from the cache when they change.
    """
    from components.shared.errors import exit_on_user_error

    with exit_on_user_error():
        import os

        from components.shared.skip import skip
        from components.shared.storage import checkpoint_address

        if not train_gans:
            skip(gans.path, "train_gan", "this run trains no GANs")
            return
        from components.train_gan.train import train

        train(
            classes=classes.split(","),
            rare_data=rare_data.path,
            features=features.path,
            start=start.path,
            architecture=architecture,
            kimg=kimg,
            seed=seed,
            failed_class=os.environ.get("COUNTERWEIGHT_FAILED_CLASS", "fail"),
            gans=gans.path,
            checkpoints=checkpoint_address(gans.uri, os.environ),
        )
