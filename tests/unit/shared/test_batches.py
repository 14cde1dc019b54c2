from itertools import islice

import numpy as np

from components.shared.batches import endless_batches
from components.shared.seeds import derive_seed


def test_endless_batches_contain_each_row_as_often_as_it_counts() -> None:
    repeat = np.array([1, 3, 1, 2])
    rows = np.concatenate(list(islice(endless_batches(repeat, 5, 0), 7)))  # 35 rows are five passes
    for one_pass in rows.reshape(5, 7):
        assert np.bincount(one_pass, minlength=4).tolist() == [1, 3, 1, 2]


def test_endless_batches_of_few_rows_are_full() -> None:
    batch = next(endless_batches(np.ones(3, int), 32, 0))
    assert batch.shape == (32,)
    assert set(np.bincount(batch)) <= {10, 11}


def test_endless_batches_have_the_order_of_their_seed() -> None:
    def first_batch(seed: int) -> list[int]:
        return next(endless_batches(np.ones(50, int), 50, seed)).tolist()

    assert first_batch(1)[:6] == [15, 25, 37, 23, 30, 6]
    assert first_batch(1) != first_batch(2)


def test_derived_seeds_of_published_runs_do_not_change() -> None:
    assert derive_seed(1, "train_gan", "df") == 1170615345
    assert derive_seed(1, "folds") == 190095558


def test_derive_seed_differs_by_run_and_name_and_has_31_bits() -> None:
    seeds = {
        derive_seed(run, phase, dx)
        for run in range(5)
        for phase in ("train_gan", "split")
        for dx in ("df", "nv", "vasc")
    }
    assert len(seeds) == 30
    assert all(0 <= seed < 2**31 for seed in seeds)
