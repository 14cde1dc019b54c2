import pytest

from components.train_gan.recipe import Recipe


@pytest.mark.parametrize("field", ["loss", "augmentation", "precision"])
def test_recipe_with_an_unknown_name_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} is 'r3': choose from"):
        Recipe(**{"loss": "bce", field: "r3"})
