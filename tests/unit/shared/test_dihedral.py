import numpy as np

from components.shared.dihedral import POSITIONS, iter_positions, random_dihedral, skip_dihedral, to_position

IMAGE = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
EXPECTED = {np.rot90(flipped, quarter).tobytes() for flipped in (IMAGE, IMAGE[:, ::-1]) for quarter in range(4)}


def test_iter_positions_yields_all_eight_and_the_original_first() -> None:
    images = IMAGE[None]
    positions = list(iter_positions(images))
    assert positions[0] is images
    assert len(positions) == POSITIONS == len(EXPECTED)
    assert {position[0].tobytes() for position in positions} == EXPECTED


def test_to_position_has_the_order_of_iter_positions() -> None:
    for number, position in enumerate(iter_positions(IMAGE[None])):
        np.testing.assert_array_equal(to_position(IMAGE, number), position[0])


def test_random_dihedral_returns_all_eight_positions_and_keeps_its_input() -> None:
    images = np.repeat(IMAGE[None], 400, 0)
    before = images.copy()
    assert {image.tobytes() for image in random_dihedral(images, np.random.default_rng(0))} == EXPECTED
    np.testing.assert_array_equal(images, before)


def test_skip_dihedral_leaves_the_generator_as_random_dihedral_does() -> None:
    used, skipped = np.random.default_rng(0), np.random.default_rng(0)
    random_dihedral(np.repeat(IMAGE[None], 33, 0), used)
    skip_dihedral(33, skipped)
    assert used.bit_generator.state == skipped.bit_generator.state
