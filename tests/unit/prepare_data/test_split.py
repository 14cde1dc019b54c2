"""The split by lesion within each class, by hash, fold or file; it depends on the seed and the class alone."""

from collections import Counter
from itertools import combinations

import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from components.prepare_data import split
from components.shared.errors import UserError
from tests.helpers.errors import raises_user_error


def table(lesions: dict[str, list[int]]) -> pd.DataFrame:
    """Return the metadata of a class → the number of images of each of its lesions."""
    rows = [
        {"lesion_id": f"{dx}-{lesion}", "group_id": f"{dx}-{lesion}", "image_id": f"{dx}-{lesion}-{image}", "dx": dx}
        for dx, counts in lesions.items()
        for lesion, count in enumerate(counts)
        for image in range(count)
    ]
    return pd.DataFrame(rows)


def of_images(rows: pd.DataFrame, seed: int) -> dict[str, str]:
    return dict(zip(rows["image_id"], split.assign_by_hash(rows, seed), strict=True))


counts = st.lists(st.integers(1, 4), min_size=3, max_size=40)
tables = st.dictionaries(st.sampled_from(["akiec", "bcc", "df", "mel", "nv"]), counts, min_size=1).map(table)
seeds = st.integers(0, 2**31 - 1)


@settings(max_examples=60, deadline=None)
@given(tables, seeds)
def test_assign_by_hash_covers_each_class_and_divides_no_lesion(rows, seed):
    assigned = rows.assign(split=split.assign_by_hash(rows, seed))
    assert set(assigned["split"]) == {"train", "validation", "test"}
    # No lesion is in two splits; each class is in each split.
    assert (assigned.groupby("lesion_id")["split"].nunique() == 1).all()
    assert (assigned.groupby("dx")["split"].nunique() == 3).all()


@settings(max_examples=40, deadline=None)
@given(tables, seeds, st.randoms(use_true_random=False))
def test_assign_by_hash_ignores_the_order_of_rows(rows, seed, random):
    order = list(range(len(rows)))
    random.shuffle(order)
    assert of_images(rows.iloc[order], seed) == of_images(rows, seed)
    assert split.assign_by_hash(rows.iloc[order], seed).index.tolist() == order


@settings(max_examples=60, deadline=None)
@given(tables, seeds, tables)
def test_assign_by_hash_keeps_lesions_of_classes_with_both_held_out_splits(rows, seed, others):
    """The guarantee for growing datasets: only a class without any lesion below a threshold may move one."""
    others = others.assign(**{name: "new-" + others[name] for name in ("lesion_id", "group_id", "image_id")})
    before = of_images(rows, seed)
    after = of_images(pd.concat([rows, others], ignore_index=True), seed)
    for dx, of_class in rows.groupby("dx"):
        fractions = [split.hash_fraction(seed, "split", lesion) for lesion in of_class["lesion_id"].unique()]
        has_test, has_validation = any(it < 0.15 for it in fractions), any(0.15 <= it < 0.30 for it in fractions)
        if (has_test and has_validation and any(it >= 0.30 for it in fractions)) or dx not in set(others["dx"]):
            assert all(after[name] == before[name] for name in of_class["image_id"])


def test_assign_by_hash_of_a_set_that_grows_in_five_steps_moves_no_lesion():
    rows = table({"nv": [1] * 4000, "bkl": [1] * 600, "df": [1] * 120}).sample(frac=1, random_state=0)
    splits: dict[str, str] = {}
    for step in range(1, 6):
        assigned = of_images(rows.iloc[: len(rows) * step // 5], 1)
        assert all(assigned[name] == part for name, part in splits.items())
        splits = assigned
    assert len(splits) == len(rows)


@settings(max_examples=40, deadline=None)
@given(tables, seeds, counts)
def test_assign_by_hash_with_another_class_moves_no_lesion(rows, seed, other):
    before = of_images(rows, seed)
    after = of_images(pd.concat([rows, table({"vasc": other})], ignore_index=True), seed)
    assert {name: after[name] for name in before} == before


@settings(max_examples=40, deadline=None)
@given(tables, seeds)
def test_assign_by_hash_with_another_image_keeps_its_lesion_together(rows, seed):
    one = rows.iloc[[0]].assign(image_id="another")
    more = of_images(pd.concat([rows, one], ignore_index=True), seed)
    assert more["another"] == of_images(rows, seed)[rows["image_id"].iloc[0]]


def test_assign_by_hash_of_large_classes_has_the_shares_in_images():
    rows = table({"nv": [1, 2, 1] * 700, "mel": [1, 1, 2, 3] * 100})
    for dx, of_class in rows.assign(split=split.assign_by_hash(rows, 3)).groupby("dx"):
        shares = of_class["split"].value_counts(normalize=True)
        assert shares["train"] == pytest.approx(0.70, abs=0.03), dx
        assert shares["validation"] == pytest.approx(0.15, abs=0.03), dx
        assert shares["test"] == pytest.approx(0.15, abs=0.03), dx


def test_assign_by_hash_depends_on_the_seed():
    rows = table({"nv": [1] * 100, "mel": [1] * 40})
    test_sets = {
        frozenset(name for name, part in of_images(rows, seed).items() if part == "test") for seed in range(20)
    }
    assert len(test_sets) == 20


def test_the_splits_and_folds_of_published_runs_do_not_change():
    rows = table({"nv": [1] * 12})
    initials = ["".join(name[0] for name in split.assign_by_hash(rows, seed)) for seed in (1, 2)]
    assert initials == ["ttttttttvttv", "ttttvttttttt"]
    assert "".join(name[0] for name in split.assign_fold(rows, 2, 5, 1)) == "ttvttttttttt"


def test_assign_by_hash_over_many_seeds_is_uniform():
    rows = table({"nv": [1] * 20, "mel": [1] * 20})
    tested = Counter(name for seed in range(400) for name, part in of_images(rows, seed).items() if part == "test")
    # 3 of 20 with 400 seeds: 60 on average, with a standard deviation of 7.
    assert len(tested) == 40
    assert all(25 < count < 95 for count in tested.values())


@pytest.mark.parametrize("lesions", [1, 2])
def test_assign_by_hash_rejects_a_class_with_too_few_lesions(lesions):
    with pytest.raises(UserError) as caught:
        split.assign_by_hash(table({"nv": [1] * 9, "df": [5] * lesions}), 1)
    assert caught.value.code == "split.too_few_lesions"
    assert caught.value.fields == {"dx": "df", "lesions": lesions}


def test_assign_by_hash_of_three_lesions_uses_each_split():
    rows = table({"nv": [1] * 9, "df": [1, 1, 1]})
    assert sorted(split.assign_by_hash(rows, 1)[rows["dx"] == "df"]) == ["test", "train", "validation"]


def shared_groups(size: int, groups: int) -> pd.DataFrame:
    """Return a table with a class for each combination of groups, so that no assignment gives each class each split."""
    lines = [(f"{''.join(some)}", group) for some in combinations("abcdef"[:groups], size) for group in some]
    return pd.DataFrame([{"image_id": f"{dx}-{g}", "lesion_id": g, "group_id": g, "dx": dx} for dx, g in lines])


@pytest.mark.parametrize("seed", range(5))
def test_assign_with_groups_that_classes_share_raises_if_a_class_lacks_a_split(seed, tmp_path):
    rows = shared_groups(3, 4)
    with raises_user_error("split.unassigned") as caught:
        split.assign_by_hash(rows, seed)
    assert "random_seed" in caught.value.hint
    with raises_user_error("split.unassigned"):
        split.assign_fold(shared_groups(4, 6), 1, 4, seed)
    given = pd.concat([shared_groups(2, 3).assign(split="train"), table({"ab": [1]}).assign(split="test")])
    with raises_user_error("split.unassigned"):
        split.assign(given, "random", seed, tmp_path)


# Folds.

folds = st.integers(2, 20)


def enough(rows: pd.DataFrame, n: int) -> bool:
    lesions = rows.groupby("dx")["lesion_id"].nunique()
    return bool((lesions >= max(n, 4)).all())


fold_counts = st.lists(st.integers(1, 3), min_size=4, max_size=45)
fold_tables = st.dictionaries(st.sampled_from(["akiec", "df", "mel", "nv"]), fold_counts, min_size=1).map(table)


@settings(max_examples=60, deadline=None)
@given(fold_tables, folds, seeds)
def test_assign_fold_over_all_folds_tests_each_lesion_once(rows, n, seed):
    assume(enough(rows, n))
    tested = Counter()
    for k in range(1, n + 1):
        assigned = rows.assign(split=split.assign_fold(rows, k, n, seed))
        # No lesion is in two splits; each class is in each split.
        assert (assigned.groupby("lesion_id")["split"].nunique() == 1).all()
        assert (assigned.groupby("dx")["split"].nunique() == 3).all()
        lesions = assigned.drop_duplicates("lesion_id")
        tested.update(lesions.loc[lesions["split"] == "test", "lesion_id"])
    assert set(tested) == set(rows["lesion_id"])
    assert set(tested.values()) == {1}


@settings(max_examples=40, deadline=None)
@given(fold_tables, st.integers(2, 4), seeds, st.randoms(use_true_random=False), counts)
def test_assign_fold_ignores_order_and_other_classes(rows, n, seed, random, other):
    assume(enough(rows, n))

    def of(rows: pd.DataFrame) -> dict[str, str]:
        return dict(zip(rows["image_id"], split.assign_fold(rows, 1, n, seed), strict=True))

    before = of(rows)
    order = list(range(len(rows)))
    random.shuffle(order)
    assert of(rows.iloc[order]) == before
    more = table({"vasc": [*other, 1]})
    after = of(pd.concat([rows, more], ignore_index=True))
    assert {name: after[name] for name in before} == before


def test_assign_fold_sizes_are_near_their_mean():
    rows = table({"nv": [1] * 2000})
    sizes = [(split.assign_fold(rows, k, 5, 1) == "test").sum() for k in range(1, 6)]
    assert sum(sizes) == 2000
    # Binomial with a mean of 400 and a standard deviation of 18; the bound is five of them.
    assert all(abs(size - 400) < 90 for size in sizes)


@pytest.mark.parametrize("fold", ["0/5", "6/5", "1/1", "1/21", "21/21", "1/0"])
def test_assign_with_an_invalid_fold_raises(fold, tmp_path):
    with raises_user_error("split.unknown_fold"):
        split.assign(table({"nv": [1] * 40}), fold, 1, tmp_path)


def test_assign_parses_folds_and_random(tmp_path):
    rows = table({"nv": [1] * 40, "df": [2] * 5})
    assert split.assign(rows, " 2 / 5 ", 3, tmp_path).equals(split.assign_fold(rows, 2, 5, 3))
    assert split.assign(rows, "random", 3, tmp_path).equals(split.assign_by_hash(rows, 3))


@pytest.mark.parametrize(("lesions", "n"), [(4, 5), (3, 2), (2, 2), (19, 20)])
def test_assign_fold_with_too_few_lesions_raises(lesions, n):
    with raises_user_error("split.too_few_lesions"):
        split.assign_fold(table({"nv": [1] * 40, "df": [1] * lesions}), 1, n, 1)


# Given files.

DERMAMNIST_C = """lesion_id,image_id,dx,dx_type,age,sex,localization,dataset,split
L1,A,nv,histo,80.0,male,scalp,vidir_modern,train
L2,B,nv,histo,75.0,male,ear,vidir_modern,val
L3,C,nv,consensus,,unknown,unknown,rosendahl,test
"""


def given_split(tmp_path, text: str, images: str = "ABC") -> list:
    (tmp_path / "given.csv").write_text(text, encoding="utf-8")
    rows = pd.DataFrame({"image_id": list(images), "lesion_id": list(images), "dx": "nv"})
    return split.assign(rows, str(tmp_path / "given.csv"), 1, tmp_path).tolist()


def test_assign_reads_the_split_of_dermamnist_c(tmp_path):
    assert given_split(tmp_path, DERMAMNIST_C) == ["train", "validation", "test"]
    assert given_split(tmp_path, DERMAMNIST_C, "CA") == ["test", "train"]


def test_assign_from_a_file_accepts_aliases_and_missing_images(tmp_path):
    text = "\ufeffsplit , image_id\r\nTRAIN,A\r\n valid, B \r\nvalidation,C\r\n\r\nnone,D\r\ntest,E\r\n"
    assert given_split(tmp_path, text, "ABCD") == ["train", "validation", "validation", "none"]
    assert pd.isna(given_split(tmp_path, text, "AX")[1])


def test_assign_from_a_file_of_other_images_names_one_of_each(tmp_path):
    with raises_user_error("split.other_names", file="given.csv", id="X", count=2) as caught:
        given_split(tmp_path, DERMAMNIST_C, "XY")
    assert "such as X; it has ids such as A" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("image_id,part\nA,train\n", "split.missing_column"),
        ("image_id,split,split\nA,train,test\n", "split.missing_column"),
        ("", "metadata.empty"),
        ("image_id,split\nA,train\nB,holdout\n", "split.unknown_name"),
        ("image_id,split\nA,train\nB,\n", "split.unknown_name"),
        ("image_id,split\nA,train\nA,train\n", "split.repeated_image"),
        ("image_id,split\nA,train,x\n", "metadata.invalid_csv"),
        ("image_id,split\nA,external\n", "split.unknown_name"),
    ],
)
def test_assign_with_an_invalid_file_raises(tmp_path, text, code):
    with raises_user_error(code):
        given_split(tmp_path, text)


@pytest.mark.parametrize("how", ["", "half", "nowhere.csv", "ftp://bucket/split.csv", "1/2/3", "-1/5", "a\0b"])
def test_assign_with_an_unknown_split_raises(tmp_path, how):
    with raises_user_error("split.unknown"):
        split.assign(table({"nv": [1] * 9}), how, 1, tmp_path)
