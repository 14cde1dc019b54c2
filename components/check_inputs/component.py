"""Component specification of the input check; see `check.py`."""

from typing import NamedTuple

from kfp import dsl

from components.container_images import image


@dsl.component(base_image=image("check_inputs"), install_kfp_package=False)
def check_inputs(
    arms: str,
    classifier_epochs: int,
    classifier_seeds: list[int],
    data: str,
    data_columns: str,
    data_duplicates: str,
    data_external: str,
    data_image_size: int,
    data_split: str,
    gan_kimg: float,
    gan_shared_kimg: float,
    output: str,
    positive_classes: str,
    random_seed: int,
    synthetic: str,
    synthetic_classes: str,
    synthetic_per_class: int,
    synthetic_shares: list[float],
    classifiers_per_task: int,
    checkpoints: str,
    champion: str,
    max_bad_images: int,
    metadata: str,
    synthetic_scope: str,
    weights: str,
    data_identity: dsl.OutputPath(str),  # type: ignore[valid-type]
    others_identity: dsl.OutputPath(str),  # type: ignore[valid-type]
    train_gans: dsl.OutputPath(bool),  # type: ignore[valid-type]
    champion_run: dsl.OutputPath(str),  # type: ignore[valid-type]
) -> NamedTuple("Packs", real=list, synthetic=list):  # type: ignore[valid-type]
    """Check everything that can fail before training, and return the classifiers of each task.

    `data_identity` and `others_identity` are hashes of the names, sizes and versions of the input files: tasks that
    get one are taken from the cache until its files change. `train_gans` is whether the run has its own GANs.
    `champion_run` is the run that the option `champion` names, with the hash of its manifest; empty without one.
    """
    from components.shared.errors import exit_on_user_error

    with exit_on_user_error():
        import json
        import os
        from collections import namedtuple

        from components.check_inputs.check import check
        from components.shared.files import write_text

        checked = check(
            parameters={
                "arms": arms,
                "classifier_epochs": classifier_epochs,
                "classifier_seeds": classifier_seeds,
                "data": data,
                "data_columns": data_columns,
                "data_duplicates": data_duplicates,
                "data_external": data_external,
                "data_image_size": data_image_size,
                "data_split": data_split,
                "gan_kimg": gan_kimg,
                "gan_shared_kimg": gan_shared_kimg,
                "output": output,
                "positive_classes": positive_classes,
                "random_seed": random_seed,
                "synthetic": synthetic,
                "synthetic_classes": synthetic_classes,
                "synthetic_per_class": synthetic_per_class,
                "synthetic_shares": synthetic_shares,
            },
            classifiers_per_task=classifiers_per_task,
            checkpoints=checkpoints,
            champion=champion,
            max_bad_images=max_bad_images,
            metadata=metadata,
            synthetic_scope=synthetic_scope,  # type: ignore[arg-type]
            weights=weights,
            environment=os.environ,
        )
        write_text(data_identity, checked.data_identity)
        write_text(others_identity, checked.others_identity)
        write_text(train_gans, json.dumps(checked.train_gans))
        write_text(champion_run, checked.champion)
        return namedtuple("Packs", ["real", "synthetic"])(checked.packs.real, checked.packs.synthetic)  # type: ignore
