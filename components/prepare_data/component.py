"""Component specifications of the two tasks that read images; see `prepare.py` and `other_data.py`."""

from kfp import dsl

from components.container_images import image


@dsl.component(base_image=image("prepare_data"), install_kfp_package=False)
def prepare_data(
    data: str,
    data_identity: str,
    columns: str,
    split: str,
    duplicates: str,
    image_size: int,
    rare_classes: str,
    gans_per_task: int,
    max_bad_images: int,
    seed: int,
    training_data: dsl.Output[dsl.Dataset],
    test_data: dsl.Output[dsl.Dataset],
    data_profile: dsl.Output[dsl.HTML],
    rare: dsl.OutputPath(list),  # type: ignore[valid-type]
    every: dsl.OutputPath(list),  # type: ignore[valid-type]
) -> list[str]:
    """Check and scale the images, split them by lesion, and return the rare classes in groups, one per GAN task.

    `data_identity` is part of the cache key: a new value makes Kubeflow read the source again. The task fails if the
    source has another identity after it was read, so that nothing is cached under the identity of other data.
    The groups are the return value because `kfp.local` can only iterate over return values. `every` has the groups of
    all classes, for the option `synthetic_scope=all`.
    """
    from components.shared.errors import exit_on_user_error

    with exit_on_user_error():
        import json
        from pathlib import Path

        from components.prepare_data.prepare import prepare
        from components.shared.files import write_text
        from components.shared.image_set import read_header
        from components.shared.workflow_size import group_all_classes, group_classes

        names = prepare(
            data=data,
            data_identity=data_identity,
            columns=columns,
            split=split,
            duplicates=duplicates,
            image_size=image_size,
            rare=rare_classes,
            max_bad_images=max_bad_images,
            seed=seed,
            training_data=training_data.path,
            test_data=test_data.path,
            data_profile=data_profile.path,
        )
        groups = group_classes(names, gans_per_task)
        write_text(rare, json.dumps(names))
        classes = read_header(Path(training_data.path) / "train.parquet").classes
        write_text(every, json.dumps(group_all_classes(names, classes, gans_per_task)))
        return groups


@dsl.component(base_image=image("prepare_data"), install_kfp_package=False)
def read_other_data(
    synthetic: str,
    external: str,
    others_identity: str,
    columns: str,
    duplicates: str,
    training_data: dsl.Input[dsl.Dataset],
    test_data: dsl.Input[dsl.Dataset],
    count: int,
    max_bad_images: int,
    scope: str,
    seed: int,
    sources: dsl.Output[dsl.Dataset],
) -> None:
    """Read the external set and the synthetic images of other generators; refuse copies of images of the run.

    They are read here and not in prepare_data, so that a GAN does not start again when they change.
    """
    from components.shared.errors import exit_on_user_error

    with exit_on_user_error():
        from components.prepare_data.other_data import read_other_data as read

        read(
            synthetic=synthetic,
            external=external,
            columns=columns,
            duplicates=duplicates,
            training_data=training_data.path,
            test_data=test_data.path,
            count=count,
            max_bad_images=max_bad_images,
            scope=scope,  # type: ignore[arg-type]
            seed=seed,
            out=sources.path,
            identity=others_identity,
        )
