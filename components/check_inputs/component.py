"""Component specification of the input check; see `check.py`."""

from kfp import dsl

from components.container_images import image


@dsl.component(base_image=image("check_inputs"), install_kfp_package=False)
def check_inputs(
    classifier_augmentation: str,
    classifier_epochs: int,
    classifier_seeds: list[int],
    data: str,
    data_duplicates: str,
    data_external: str,
    data_image_size: int,
    data_split: str,
    gan_architecture: str,
    gan_kimg: float,
    gan_shared_kimg: float,
    output: str,
    positive_classes: str,
    random_seed: int,
    synthetic_classes: str,
    synthetic_per_class: int,
    synthetic_reject: float,
    gans_per_task: int,
    classifiers_per_task: int,
    checkpoints: str,
    data_identity: dsl.OutputPath(str),  # type: ignore[valid-type]
) -> list[str]:
    """Check everything that can fail before training, and return the seeds of each classifier task.

    `kfp.local` can only iterate over a return value. `data_identity` is a hash of the names, sizes and versions of the
    input files: tasks that get it are taken from the cache until the data changes.
    """
    from components.shared.errors import exit_on_user_error

    with exit_on_user_error():
        import os

        from components.check_inputs.check import check
        from components.shared.files import write_text

        checked = check(
            parameters={
                "classifier_augmentation": classifier_augmentation,
                "classifier_epochs": classifier_epochs,
                "classifier_seeds": classifier_seeds,
                "data": data,
                "data_duplicates": data_duplicates,
                "data_external": data_external,
                "data_image_size": data_image_size,
                "data_split": data_split,
                "gan_architecture": gan_architecture,
                "gan_kimg": gan_kimg,
                "gan_shared_kimg": gan_shared_kimg,
                "output": output,
                "positive_classes": positive_classes,
                "random_seed": random_seed,
                "synthetic_classes": synthetic_classes,
                "synthetic_per_class": synthetic_per_class,
                "synthetic_reject": synthetic_reject,
            },
            gans_per_task=gans_per_task,
            classifiers_per_task=classifiers_per_task,
            checkpoints=checkpoints,
            environment=os.environ,
        )
        write_text(data_identity, checked.data_identity)
        return checked.seed_packs
