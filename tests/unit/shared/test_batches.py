from itertools import islice

import numpy as np

from components.shared.batches import endless_batches, random_dihedral
from components.shared.seeds import derive_seed


def test_a_pass_holds_each_row_as_often_as_it_counts():
    repeat = np.array([1, 3, 1, 2])
    rows = np.concatenate(list(islice(endless_batches(repeat, 5, 0), 7)))  # 35 rows are five passes
    for part in rows.reshape(5, 7):
        assert np.bincount(part, minlength=4).tolist() == [1, 3, 1, 2]


def test_batches_are_full_even_where_the_data_is_smaller_than_one():
    batch = next(endless_batches(np.ones(3, int), 32, 0))
    assert batch.shape == (32,)
    assert set(np.bincount(batch)) <= {10, 11}


def test_the_seed_decides_the_order():
    def first(seed: int) -> list[int]:
        return next(endless_batches(np.ones(50, int), 50, seed)).tolist()

    assert first(1) == first(1)
    assert first(1) != first(2)


def test_flips_and_turns_give_all_eight_positions_and_nothing_else():
    image = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    images = np.repeat(image[None], 400, 0)
    before = images.copy()
    turned = {x.tobytes() for x in random_dihedral(images, np.random.default_rng(0))}
    eight = {np.rot90(f, k).copy().tobytes() for f in (image, image[:, ::-1]) for k in range(4)}
    assert turned == eight
    assert (images == before).all()


def test_seeds_differ_by_name_and_fit_31_bits():
    seeds = {
        derive_seed(run, phase, dx)
        for run in range(5)
        for phase in ("train_gan", "split")
        for dx in ("df", "nv", "vasc")
    }
    assert len(seeds) == 30
    assert all(0 <= seed < 2**31 for seed in seeds)
