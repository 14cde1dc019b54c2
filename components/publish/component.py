"""Spec of the publication: see `publish.py`."""

from kfp import dsl

from components.container_images import image


@dsl.component(base_image=image("publish"), install_kfp_package=False)
def publish(
    output: str,
    run: str,
    verdict: str,
    promote_if: str,
    features: dsl.Input[dsl.Model],
    shared_record: dsl.Input[dsl.Artifact],
    shared_progress: dsl.Input[dsl.HTML],
    generators: dsl.Input[list[dsl.Model]],
    gan_records: dsl.Input[list[dsl.Artifact]],
    gan_progress: dsl.Input[list[dsl.HTML]],
    synthetic: dsl.Input[list[dsl.Dataset]],
    contact_sheets: dsl.Input[list[dsl.HTML]],
    quality: dsl.Input[list[dsl.Artifact]],
    baseline: dsl.Input[list[dsl.Model]],
    baseline_records: dsl.Input[list[dsl.Artifact]],
    oversampled: dsl.Input[list[dsl.Model]],
    oversampled_records: dsl.Input[list[dsl.Artifact]],
    augmented: dsl.Input[list[dsl.Model]],
    augmented_records: dsl.Input[list[dsl.Artifact]],
    results: dsl.Input[dsl.Artifact],
    predictions: dsl.Input[dsl.Dataset],
    report: dsl.Input[dsl.HTML],
    comparison: dsl.Input[dsl.Markdown],
    model_card: dsl.Input[dsl.Markdown],
    data_sheet: dsl.Input[dsl.Markdown],
    data_profile: dsl.Input[dsl.HTML],
    splits: dsl.Input[dsl.Dataset],
    manifest: dsl.Output[dsl.Artifact],
) -> str:
    """Copies models, synthetic images, figures and report to the output, the manifest last, and returns where they
    are."""
    from components.shared.errors import exit_on_user_error

    with exit_on_user_error():
        import tempfile
        from pathlib import Path

        from components.publish.publish import named
        from components.publish.publish import publish as copy

        with tempfile.TemporaryDirectory(prefix="counterweight-") as scratch:
            files = named(
                models={
                    "baseline": [model.path for model in baseline],
                    "oversampled": [model.path for model in oversampled],
                    "augmented": [model.path for model in augmented],
                },
                records={
                    "baseline": [record.path for record in baseline_records],
                    "oversampled": [record.path for record in oversampled_records],
                    "augmented": [record.path for record in augmented_records],
                },
                generators=[generator.path for generator in generators],
                gan_records=[gan.path for gan in gan_records],
                gan_pages=[page.path for page in gan_progress],
                synthetic_sets=[images.path for images in synthetic],
                sheets=[sheet.path for sheet in contact_sheets],
                quality=[one.path for one in quality],
                others={
                    "metrics.json": results.path,
                    "predictions.parquet": predictions.path,
                    "report.html": report.path,
                    "comparison.md": comparison.path,
                    "model_card.md": model_card.path,
                    "data_sheet.md": data_sheet.path,
                    "data_profile.html": data_profile.path,
                    "splits.csv": splits.path,
                    "models/features.keras": features.path,
                    "models/shared.json": shared_record.path,
                    "models/shared.html": shared_progress.path,
                },
                scratch=Path(scratch),
            )
            # A cluster's runs share an output; a folder on this machine is one run's own.
            own = run if "://" in output else ""
            return copy(
                output=output, run=own, files=files, manifest=manifest.path, verdict=verdict, promote_if=promote_if
            )
