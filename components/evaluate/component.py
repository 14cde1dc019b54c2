"""Component specification of the evaluation; see `evaluate.py`."""

from kfp import dsl

from components.container_images import image


@dsl.component(base_image=image("evaluate"), install_kfp_package=False)
def evaluate(
    training_data: dsl.Input[dsl.Dataset],
    test_data: dsl.Input[dsl.Dataset],
    synthetic_images: dsl.Input[dsl.Dataset],
    classifiers_real: dsl.Input[list[dsl.Model]],
    classifiers_synthetic: dsl.Input[list[dsl.Model]],
    arms: str,
    data: str,
    data_columns: str,
    data_duplicates: str,
    data_external: str,
    data_split: str,
    gan_architecture: str,
    gan_kimg: float,
    gan_shared_kimg: float,
    positive_classes: str,
    random_seed: int,
    synthetic: str,
    synthetic_per_class: int,
    synthetic_shares: list[float],
    plan: str,
    results: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    champion: dsl.Input[dsl.Artifact] = None,
) -> str:
    """Compare the arms on the test split, which no other phase predicts, and return the verdict.

    `plan` is the text of the plan that the run cites; empty for none. It is compiled in, and part of the cache key of
    this task alone. `champion` is the folder that `read_champion` wrote, likewise.
    """
    from components.shared.errors import exit_on_user_error

    with exit_on_user_error():
        from components.evaluate.evaluate import evaluate as evaluate_run
        from components.evaluate.results import headline_metrics
        from components.shared.kfp_metrics import log_metrics, note_finished

        parameters: dict[str, str | float] = {
            "arms": arms, "data": data, "data_columns": data_columns, "data_duplicates": data_duplicates,
            "data_external": data_external, "data_split": data_split, "gan_architecture": gan_architecture,
            "gan_kimg": gan_kimg, "gan_shared_kimg": gan_shared_kimg, "random_seed": random_seed,
            "synthetic": synthetic, "synthetic_per_class": synthetic_per_class,
            "synthetic_shares": ", ".join(f"{share:g}" for share in synthetic_shares),
        }  # fmt: skip
        outcome = evaluate_run(
            training_data=training_data.path,
            test_data=test_data.path,
            synthetic_images=synthetic_images.path,
            classifiers=[folder.path for folder in [*classifiers_real, *classifiers_synthetic]],
            positive_classes=positive_classes,
            parameters=parameters,
            results=results.path,
            report=report.path,
            plan=plan,
            champion=champion.path if champion else None,
        )
        log_metrics(metrics, headline_metrics(outcome))
        note_finished(results)
        return outcome.verdict
