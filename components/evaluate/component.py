"""Spec of the comparison: see `evaluate.py`."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("evaluate"), install_kfp_package=False)
def evaluate(
    data: str,
    rare_classes: list[str],
    seed: int,
    test: dsl.Input[dsl.Dataset],
    train: dsl.Input[dsl.Dataset],
    validation: dsl.Input[dsl.Dataset],
    synthetic: dsl.Input[list[dsl.Dataset]],
    gan_records: dsl.Input[list[dsl.Artifact]],
    baseline: dsl.Input[dsl.Model],
    baseline_record: dsl.Input[dsl.Artifact],
    oversampled: dsl.Input[dsl.Model],
    oversampled_record: dsl.Input[dsl.Artifact],
    augmented: dsl.Input[dsl.Model],
    augmented_record: dsl.Input[dsl.Artifact],
    results: dsl.Output[dsl.Artifact],
    predictions: dsl.Output[dsl.Dataset],
    report: dsl.Output[dsl.HTML],
    comparison: dsl.Output[dsl.Markdown],
    metrics: dsl.Output[dsl.Metrics],
    baseline_figures: dsl.Output[dsl.ClassificationMetrics],
    oversampled_figures: dsl.Output[dsl.ClassificationMetrics],
    augmented_figures: dsl.Output[dsl.ClassificationMetrics],
) -> str:
    """Judges the arms on the test split, which no other phase reads, and returns the verdict."""
    from components.shared.errors import exit_on_user_error

    with exit_on_user_error():
        from components.evaluate.evaluate import evaluate as judge
        from components.evaluate.evaluate import roc_points
        from components.shared.outputs import log_classification, log_metrics

        outcome = judge(
            data=data,
            rare_classes=rare_classes,
            seed=seed,
            test_set=test.path,
            train_set=train.path,
            validation_set=validation.path,
            synthetic_sets=[images.path for images in synthetic],
            gan_records=[gan.path for gan in gan_records],
            models={"baseline": baseline.path, "oversampled": oversampled.path, "augmented": augmented.path},
            records={
                "baseline": baseline_record.path,
                "oversampled": oversampled_record.path,
                "augmented": augmented_record.path,
            },
            results=results.path,
            predictions=predictions.path,
            report_page=report.path,
            comparison=comparison.path,
        )
        effect = outcome["effect"]["augmented_minus_oversampled"]
        log_metrics(
            metrics,
            {f"gan_effect_{name}": value for name, value in effect.items()}
            | {
                f"{arm}_{name}": figures[name]
                for arm, figures in outcome["arms"].items()
                for name in ("accuracy", "balanced_accuracy", "macro_auc")
            },
        )
        for arm, artifact in (
            ("baseline", baseline_figures),
            ("oversampled", oversampled_figures),
            ("augmented", augmented_figures),
        ):
            points = roc_points(predictions.path, arm, outcome["classes"])
            log_classification(artifact, outcome["classes"], outcome["arms"][arm]["confusion"], points)
        return outcome["verdict"]
