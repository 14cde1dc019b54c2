"""Component specification of generating the synthetic images of some classes; see `generate.py`."""

from kfp import dsl

from components.container_images import image


@dsl.component(base_image=image("generate_images"), install_kfp_package=False)
def generate_images(
    classes: str,
    gans: dsl.Input[dsl.Model],
    sources: dsl.Input[dsl.Dataset],
    features: dsl.Input[dsl.Model],
    rare_data: dsl.Input[dsl.Dataset],
    count: int,
    selection: str,
    seed: int,
    synthetic: dsl.Output[dsl.Dataset],
) -> None:
    """Generate images of some classes (comma-separated), take those of other sources, and drop copies and the worst."""
    from components.shared.errors import exit_on_user_error

    with exit_on_user_error():
        from pathlib import Path

        from components.shared.records import SyntheticSources, load_record
        from components.shared.skip import is_skipped, skip

        described = Path(sources.path) / "sources.json"
        if is_skipped(gans.path) and not load_record(described, SyntheticSources).sources:
            skip(synthetic.path, "generate_images", "no arm uses synthetic images")
            return
        from components.generate_images.generate import REJECT, generate

        generate(
            classes=classes.split(","),
            gans=gans.path,
            sources=sources.path,
            features=features.path,
            rare_data=rare_data.path,
            count=count,
            reject=REJECT,
            selection=selection,  # type: ignore[arg-type]
            seed=seed,
            synthetic=synthetic.path,
        )
