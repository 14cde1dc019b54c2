"""What the inputs of evaluate reveal about the synthetic images."""

from components.evaluate.predict.inputs import Inputs
from components.shared.records import FailedGan, SampleQuality


def quality(images: int) -> SampleQuality:
    return SampleQuality.model_construct(images=images)


def inputs(failed: tuple[str, ...] = (), **images: int) -> Inputs:
    """Return inputs with images by key, where `zoo_df` is the key `zoo/df`, and failed GANs."""
    qualities = {key.replace("_", "/"): quality(count) for key, count in images.items()}
    gans = {dx: FailedGan.model_construct(dx=dx) for dx in failed}
    return Inputs({}, None, ("df", "vasc"), gans, qualities, {}, {})  # type: ignore[arg-type]


def test_rebalanced_classes_have_images_of_every_source():
    """Where a source has none, its arm has repeats only, like the control."""
    assert inputs(df=9, vasc=9).rebalanced == ("df", "vasc")
    assert inputs(df=9, vasc=0).rebalanced == ("df",)
    assert inputs(zoo_df=9, zoo_vasc=9).rebalanced == ("df", "vasc")
    assert inputs(df=9, vasc=9, zoo_df=9, zoo_vasc=0).rebalanced == ("df",)
    assert inputs(failed=("vasc",), df=9, zoo_df=9, zoo_vasc=9).rebalanced == ("df",)
    assert inputs(failed=("df", "vasc"), zoo_df=9, zoo_vasc=9).rebalanced == ()
