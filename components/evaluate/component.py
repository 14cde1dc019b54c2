"""Spec of the comparison: see `evaluate.py`."""

from kfp import dsl

from components.container_images import image


@dsl.component(base_image=image("evaluate"), install_kfp_package=False)
def evaluate(
    data: str,
    split: str,
    external_data: str,
    rare_classes: list[str],
    malignant: str,
    seed: int,
    test: dsl.Input[dsl.Dataset],
    external: dsl.Input[dsl.Dataset],
    train: dsl.Input[dsl.Dataset],
    validation: dsl.Input[dsl.Dataset],
    synthetic: dsl.Input[list[dsl.Dataset]],
    gan_records: dsl.Input[list[dsl.Artifact]],
    quality: dsl.Input[list[dsl.Artifact]],
    baseline: dsl.Input[list[dsl.Model]],
    baseline_records: dsl.Input[list[dsl.Artifact]],
    oversampled: dsl.Input[list[dsl.Model]],
    oversampled_records: dsl.Input[list[dsl.Artifact]],
    augmented: dsl.Input[list[dsl.Model]],
    augmented_records: dsl.Input[list[dsl.Artifact]],
    results: dsl.Output[dsl.Artifact],
    predictions: dsl.Output[dsl.Dataset],
    report: dsl.Output[dsl.HTML],
    comparison: dsl.Output[dsl.Markdown],
    model_card: dsl.Output[dsl.Markdown],
    data_sheet: dsl.Output[dsl.Markdown],
    metrics: dsl.Output[dsl.Metrics],
    baseline_figures: dsl.Output[dsl.ClassificationMetrics],
    oversampled_figures: dsl.Output[dsl.ClassificationMetrics],
    augmented_figures: dsl.Output[dsl.ClassificationMetrics],
) -> str:
    """Judges the arms on the test split, which no other phase reads, and returns the verdict."""
    from components.shared.errors import exit_on_user_error

    with exit_on_user_error():
        from components.evaluate.evaluate import evaluate as judge
        from components.evaluate.evaluate import roc_points, scalars
        from components.shared.kfp_metrics import log_classification, log_metrics

        models = {"baseline": baseline, "oversampled": oversampled, "augmented": augmented}
        records = {"baseline": baseline_records, "oversampled": oversampled_records, "augmented": augmented_records}
        outcome = judge(
            data=data,
            split=split,
            external_data=external_data,
            rare_classes=rare_classes,
            malignant=[name.strip() for name in malignant.split(",") if name.strip()],
            seed=seed,
            test_set=test.path,
            external_set=external.path,
            train_set=train.path,
            validation_set=validation.path,
            synthetic_sets=[images.path for images in synthetic],
            gan_records=[gan.path for gan in gan_records],
            quality=[one.path for one in quality],
            models={arm: [model.path for model in artifacts] for arm, artifacts in models.items()},
            records={arm: [one.path for one in artifacts] for arm, artifacts in records.items()},
            results=results.path,
            predictions=predictions.path,
            report_page=report.path,
            comparison=comparison.path,
            model_card=model_card.path,
            data_sheet=data_sheet.path,
        )
        log_metrics(metrics, scalars(outcome))
        for arm, artifact in (
            ("baseline", baseline_figures),
            ("oversampled", oversampled_figures),
            ("augmented", augmented_figures),
        ):
            points = roc_points(predictions.path, arm, outcome["classes"])
            log_classification(artifact, outcome["classes"], outcome["arms"][arm]["confusion"], points)
        return outcome["verdict"]
