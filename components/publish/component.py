"""Spec of the publication: see `publish.py`."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("publish"), install_kfp_package=False)
def publish(
    output: str,
    generators: dsl.Input[list[dsl.Model]],
    gan_records: dsl.Input[list[dsl.Artifact]],
    gan_progress: dsl.Input[list[dsl.HTML]],
    synthetic: dsl.Input[list[dsl.Dataset]],
    contact_sheets: dsl.Input[list[dsl.HTML]],
    baseline: dsl.Input[dsl.Model],
    baseline_record: dsl.Input[dsl.Artifact],
    oversampled: dsl.Input[dsl.Model],
    oversampled_record: dsl.Input[dsl.Artifact],
    augmented: dsl.Input[dsl.Model],
    augmented_record: dsl.Input[dsl.Artifact],
    results: dsl.Input[dsl.Artifact],
    predictions: dsl.Input[dsl.Dataset],
    report: dsl.Input[dsl.HTML],
    comparison: dsl.Input[dsl.Markdown],
    data_profile: dsl.Input[dsl.HTML],
    manifest: dsl.Output[dsl.Artifact],
) -> str:
    """Copies models, synthetic images, figures and report to the output, the manifest last, and returns where they
    are."""
    from components.shared.errors import exit_on_user_error

    with exit_on_user_error():
        from components.publish.publish import named
        from components.publish.publish import publish as copy

        files = named(
            models={"baseline": baseline.path, "oversampled": oversampled.path, "augmented": augmented.path},
            records={
                "baseline": baseline_record.path,
                "oversampled": oversampled_record.path,
                "augmented": augmented_record.path,
            },
            generators=[generator.path for generator in generators],
            gan_records=[gan.path for gan in gan_records],
            gan_pages=[page.path for page in gan_progress],
            synthetic_sets=[images.path for images in synthetic],
            sheets=[sheet.path for sheet in contact_sheets],
            others={
                "metrics.json": results.path,
                "predictions.parquet": predictions.path,
                "report.html": report.path,
                "comparison.md": comparison.path,
                "data_profile.html": data_profile.path,
            },
        )
        return copy(output=output, files=files, manifest=manifest.path)
