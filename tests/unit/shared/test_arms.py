"""Names and recipes of arms."""

from dataclasses import replace

import pytest

from components.shared.arms import (
    ALL,
    CHOICES,
    GAN,
    Use,
    expand,
    parse_synthetic_key,
    recipe,
    source_of,
    synthetic_key,
    title_of,
)
from tests.helpers.errors import raises_user_error


def test_expand_gives_each_source_an_arm_for_each_share():
    arms = expand(["augmented", "oversampled", "baseline"], [1.0, 0.5], ("zoo", GAN))
    assert arms == ["baseline", "oversampled", "augmented@0.5", "augmented@1", "zoo@0.5", "zoo@1"]


def test_expand_without_augmented_has_no_arm_of_a_source():
    assert expand(["baseline", "class_weights"], [1.0], (GAN, "zoo")) == ["baseline", "class_weights"]


def test_all_is_every_choice_that_needs_images_alone():
    assert [arm for arm in CHOICES if arm not in ALL] == ["metadata"]


@pytest.mark.parametrize(
    ("arm", "source", "share", "title"),
    [
        ("augmented@0.25", "gan", 0.25, "augmented 25 %"),
        ("style_gan2@1", "style_gan2", 1.0, "style gan2 100 %"),
        ("oversampled", None, 0.0, "oversampled"),
    ],
)
def test_recipe_names_source_and_share(arm: str, source: str | None, share: float, title: str):
    assert source_of(arm) == source
    assert (recipe(arm).source, recipe(arm).synthetic_share) == (source or "", share)
    assert title_of(arm) == title


def test_recipe_of_another_source_says_so():
    assert recipe("zoo@1").title == "real images; rare classes with synthetic images, from zoo"


def test_recipe_states_how_synthetic_images_are_used():
    use = Use(synthetic_until=0.5)
    assert recipe("oversampled", use) == recipe("oversampled")
    assert recipe("augmented@1", use).synthetic_until == 0.5
    title = "real images; rare classes with synthetic images; only repeats after 50 % of the epochs"
    assert recipe("augmented@1", use).title == title


def test_recipe_with_synthetic_images_of_every_class():
    use = Use(synthetic_scope="all")
    assert recipe("oversampled", use) == recipe("oversampled")
    assert recipe("augmented@0.25", use).title == "as oversampled; 25 % of each class are synthetic images"
    with raises_user_error("arms.no_real_images"):
        recipe("augmented@1", use)


def test_recipe_states_the_selection_of_synthetic_images():
    use = Use(synthetic_selection="label")
    assert recipe("oversampled", use) == recipe("oversampled")
    title = recipe("augmented@1").title + "; synthetic images selected by the class that the feature extractor predicts"
    assert recipe("augmented@1", use).title == title


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("synthetic_weight", 0.5, "added images weigh 0.5 in the loss"),
        ("synthetic_smoothing", 0.2, "label smoothing of 0.2 for added images"),
    ],
)
def test_recipe_states_how_added_images_are_used_if_it_adds_any(option: str, value: float, words: str):
    use = replace(Use(), **{option: value})
    for arm in ("oversampled", "strong_augmentation", "augmented@0.5"):
        assert getattr(recipe(arm, use), option) == value
        assert recipe(arm, use).title == f"{recipe(arm).title}; {words}"
    for arm in ("baseline", "class_weights", "balanced_sampling"):
        assert recipe(arm, use) == recipe(arm)


@pytest.mark.parametrize(("source", "dx", "key"), [("gan", "df", "df"), ("zoo", "a-b", "zoo/a-b")])
def test_synthetic_key_is_reversible(source: str, dx: str, key: str):
    assert synthetic_key(source, dx) == key
    assert parse_synthetic_key(key) == (source, dx)
