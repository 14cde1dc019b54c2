import numpy as np

from components.train_gan.loop import MAX_REFERENCE_IMAGES, choose_reference


def test_choose_reference_of_few_images_has_all_of_them() -> None:
    labels = np.random.default_rng(0).integers(0, 7, MAX_REFERENCE_IMAGES)
    assert choose_reference(labels, 1).tolist() == list(range(MAX_REFERENCE_IMAGES))
    assert choose_reference(labels[:0], 1).tolist() == []


def test_choose_reference_of_many_images_leaves_out_some_of_the_largest_classes() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat([0, 2, 3, 5], [5_000, 300, 50, 4_000]))
    rows = choose_reference(labels, 1)
    assert len(rows) == MAX_REFERENCE_IMAGES
    assert (np.diff(rows) > 0).all()
    assert np.bincount(labels[rows]).tolist() == [825, 0, 300, 50, 0, 825]
    assert rows.tolist() == choose_reference(labels, 1).tolist()
    other = choose_reference(labels, 2)
    # 825 of 5,000 and of 4,000 random images: 136 and 170 are in both choices; six standard deviations are below 80.
    shared = len(set(rows) & set(other)) - 350
    assert abs(shared - 306) < 80
