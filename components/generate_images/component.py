"""Component specification of generating the synthetic images of some classes; see `generate.py`."""

from kfp import dsl

from components.container_images import image


@dsl.component(base_image=image("generate_images"), install_kfp_package=False)
def generate_images(
    gans: dsl.Input[dsl.Model],
    features: dsl.Input[dsl.Model],
    training_data: dsl.Input[dsl.Dataset],
    count: int,
    seed: int,
    synthetic: dsl.Output[dsl.Dataset],
) -> None:
    """Generate images of each class that has a generator, drop copies of training images, and reject the worst."""
    from components.shared.errors import exit_on_user_error

    with exit_on_user_error():
        from components.generate_images.generate import REJECT, generate

        generate(
            gans=gans.path,
            features=features.path,
            training_data=training_data.path,
            count=count,
            reject=REJECT,
            seed=seed,
            synthetic=synthetic.path,
        )
