"""Spec of drawing one class's synthetic images: see `generate.py`."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("generate_images"), install_kfp_package=False)
def generate_images(
    generator: dsl.Input[dsl.Model],
    record: dsl.Input[dsl.Artifact],
    count: int,
    seed: int,
    images: dsl.Output[dsl.Dataset],
    contact_sheet: dsl.Output[dsl.HTML],
) -> None:
    """Draws synthetic images of one class; each row of the set says where it comes from."""
    from components.shared.errors import exit_on_user_error

    with exit_on_user_error():
        from components.generate_images.generate import generate

        generate(
            generator=generator.path,
            record=record.path,
            count=count,
            seed=seed,
            images=images.path,
            sheet=contact_sheet.path,
        )
