"""Spec of phase 1: see `prepare.py`."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("prepare_data"), install_kfp_package=False)
def prepare_data(
    data: str,
    data_version: str,
    split: str,
    external: str,
    duplicates: str,
    image_size: int,
    rare_classes: str,
    max_bad_images: int,
    seed: int,
    train: dsl.Output[dsl.Dataset],
    validation: dsl.Output[dsl.Dataset],
    test: dsl.Output[dsl.Dataset],
    external_set: dsl.Output[dsl.Dataset],
    splits: dsl.Output[dsl.Dataset],
    data_profile: dsl.Output[dsl.HTML],
) -> list[str]:
    """Checks and resizes the images of a source, splits them by lesion, and returns the rare classes.

    `data_version` is not read: another value makes Kubeflow read the source again instead of taking the cached result.
    """
    from components.shared.errors import exit_on_user_error

    with exit_on_user_error():
        from components.prepare_data.prepare import prepare

        return prepare(
            data=data,
            split=split,
            external=external,
            duplicates=duplicates,
            image_size=image_size,
            rare=rare_classes,
            max_bad_images=max_bad_images,
            seed=seed,
            train=train.path,
            validation=validation.path,
            test=test.path,
            external_set=external_set.path,
            splits=splits.path,
            data_profile=data_profile.path,
        )
