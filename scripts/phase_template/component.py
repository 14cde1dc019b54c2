"""Component specification of new_phase; see `new_phase.py`."""

from kfp import dsl

from components.container_images import image


@dsl.component(base_image=image("new_phase"), install_kfp_package=False)
def new_phase(training_data: dsl.Input[dsl.Dataset], counts: dsl.Output[dsl.Artifact]) -> None:
    """Count the training images of each class."""
    from components.shared.errors import exit_on_user_error

    with exit_on_user_error():
        from components.new_phase.new_phase import run

        run(training_data=training_data.path, counts=counts.path)
