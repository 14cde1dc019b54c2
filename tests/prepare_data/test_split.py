"""The split: by lesion, within each class, and nobody's business but the seed's, the class's and its lesions'."""

from collections import Counter

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.prepare_data import split
from components.shared.errors import UserError


def table(lesions: dict[str, list[int]]) -> pd.DataFrame:
    """Class → number of images of each of its lesions."""
    rows = [
        {"lesion_id": f"{dx}-{lesion}", "image_id": f"{dx}-{lesion}-{image}", "dx": dx}
        for dx, counts in lesions.items()
        for lesion, count in enumerate(counts)
        for image in range(count)
    ]
    return pd.DataFrame(rows)


def of_images(rows: pd.DataFrame, seed: int) -> dict[str, str]:
    return dict(zip(rows["image_id"], split.at_random(rows, seed), strict=True))


counts = st.lists(st.integers(1, 4), min_size=3, max_size=40)
tables = st.dictionaries(st.sampled_from(["akiec", "bcc", "df", "mel", "nv"]), counts, min_size=1).map(table)
seeds = st.integers(0, 2**31 - 1)


@settings(max_examples=60, deadline=None)
@given(tables, seeds)
def test_invariants(rows, seed):
    assigned = rows.assign(split=split.at_random(rows, seed))
    assert set(assigned["split"]) == {"train", "validation", "test"}
    # No lesion on two sides; every class on every side.
    assert (assigned.groupby("lesion_id")["split"].nunique() == 1).all()
    assert (assigned.groupby("dx")["split"].nunique() == 3).all()
    lesions = assigned.drop_duplicates("lesion_id")
    for _, of_class in lesions.groupby("dx"):
        shares = of_class["split"].value_counts()
        assert shares["test"] == shares["validation"]
        assert abs(shares["test"] - 0.15 * len(of_class)) <= max(0.5, 1 - 0.15 * len(of_class))
        assert shares["train"] >= 1


@settings(max_examples=40, deadline=None)
@given(tables, seeds, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(rows, seed, random):
    order = list(range(len(rows)))
    random.shuffle(order)
    assert of_images(rows.iloc[order], seed) == of_images(rows, seed)
    assert split.at_random(rows.iloc[order], seed).index.tolist() == order


@settings(max_examples=40, deadline=None)
@given(tables, seeds, counts)
def test_another_class_moves_no_lesion(rows, seed, other):
    before = of_images(rows, seed)
    after = of_images(pd.concat([rows, table({"vasc": other})], ignore_index=True), seed)
    assert {name: after[name] for name in before} == before


@settings(max_examples=40, deadline=None)
@given(tables, seeds)
def test_another_image_of_a_lesion_goes_where_the_lesion_is(rows, seed):
    one = rows.iloc[[0]].assign(image_id="another")
    more = of_images(pd.concat([rows, one], ignore_index=True), seed)
    assert more["another"] == of_images(rows, seed)[rows["image_id"].iloc[0]]


def test_large_classes_have_the_shares_of_images_as_well():
    rows = table({"nv": [1, 2, 1] * 700, "mel": [1, 1, 2, 3] * 100})
    for dx, of_class in rows.assign(split=split.at_random(rows, 3)).groupby("dx"):
        shares = of_class["split"].value_counts(normalize=True)
        assert shares["train"] == pytest.approx(0.70, abs=0.03), dx
        assert shares["validation"] == pytest.approx(0.15, abs=0.03), dx
        assert shares["test"] == pytest.approx(0.15, abs=0.03), dx


def test_the_seed_decides():
    rows = table({"nv": [1] * 100, "mel": [1] * 40})
    assert of_images(rows, 1) == of_images(rows, 1)
    test_sets = {
        frozenset(name for name, part in of_images(rows, seed).items() if part == "test") for seed in range(20)
    }
    assert len(test_sets) == 20


def test_over_many_seeds_every_lesion_is_tested_on_as_often():
    rows = table({"nv": [1] * 20, "mel": [1] * 20})
    tested = Counter(name for seed in range(400) for name, part in of_images(rows, seed).items() if part == "test")
    # 3 of 20 in 400 draws: 60 on average, with a standard deviation of 7.
    assert len(tested) == 40
    assert all(25 < count < 95 for count in tested.values())


@pytest.mark.parametrize(("lesions", "said"), [(1, "1 lesion,"), (2, "2 lesions,")])
def test_a_class_with_too_few_lesions_is_named(lesions, said):
    with pytest.raises(UserError, match=f"^the class df has {said} too few .*; add lesions or leave the class out"):
        split.at_random(table({"nv": [1] * 9, "df": [5] * lesions}), 1)


def test_three_lesions_are_enough():
    rows = table({"nv": [1] * 9, "df": [1, 1, 1]})
    assert sorted(split.at_random(rows, 1)[rows["dx"] == "df"]) == ["test", "train", "validation"]
