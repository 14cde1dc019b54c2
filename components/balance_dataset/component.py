"""Component specification of collecting the synthetic images of all classes; see `balance.py`."""

from kfp import dsl

from components.container_images import image


@dsl.component(base_image=image("balance_dataset"), install_kfp_package=False)
def balance_dataset(
    rare_data: dsl.Input[dsl.Dataset],
    features: dsl.Input[dsl.Model],
    start: dsl.Input[dsl.Model],
    gans: dsl.Input[list[dsl.Model]],
    synthetic: dsl.Input[list[dsl.Dataset]],
    sources: dsl.Input[dsl.Dataset],
    failed_class: str,
    synthetic_images: dsl.Output[dsl.Dataset],
) -> None:
    """Collect the synthetic images of all classes, with the models and records that made them."""
    from components.shared.errors import exit_on_user_error

    with exit_on_user_error():
        from components.balance_dataset.balance import balance

        balance(
            rare_data=rare_data.path,
            features=features.path,
            start=start.path,
            gans=[folder.path for folder in gans],
            synthetic=[folder.path for folder in synthetic],
            sources=sources.path,
            failed_class=failed_class,
            synthetic_images=synthetic_images.path,
        )
