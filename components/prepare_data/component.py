"""Spec of phase 1: see `prepare.py`."""

from kfp import dsl

from components.container_images import image


@dsl.component(base_image=image("prepare_data"), install_kfp_package=False)
def prepare_data(
    data: str,
    data_version: str,
    split: str,
    external: str,
    duplicates: str,
    image_size: int,
    rare_classes: str,
    gans_per_task: int,
    max_bad_images: int,
    seed: int,
    train: dsl.Output[dsl.Dataset],
    validation: dsl.Output[dsl.Dataset],
    test: dsl.Output[dsl.Dataset],
    external_set: dsl.Output[dsl.Dataset],
    splits: dsl.Output[dsl.Dataset],
    data_profile: dsl.Output[dsl.HTML],
    rare: dsl.OutputPath(list),  # type: ignore[valid-type]
) -> list[str]:
    """Checks and resizes the images of a source, splits them by lesion, writes the names of the rare classes, and
    returns them in groups, one for each task that trains GANs.

    `data_version` is not read: another value makes Kubeflow read the source again instead of taking the cached result.
    The groups are what is returned, since `kfp.local` goes in a loop over nothing else.
    """
    from components.shared.errors import exit_on_user_error

    with exit_on_user_error():
        import json

        from components.prepare_data.prepare import packs, prepare
        from components.shared.files import write_text

        packs([], gans_per_task)  # what can't be used comes out before the work
        names = prepare(
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
        write_text(rare, json.dumps(names))
        return packs(names, gans_per_task)
