"""lungmask's cleaning of a volume of labels, on paper."""

import numpy as np

from medseg.inference.lungmask.cleaning import cleaned


def volume(*rows: str) -> np.ndarray:
    """Two equal slices, so that a volume is not a single slice."""
    plane = np.array([[int(each) for each in row] for row in rows], dtype=np.uint8)
    return np.stack([plane, plane])


def test_a_small_component_joins_the_neighbour_that_it_touches_most():
    before = volume("1111122", "1112122", "1111122", "0000022", "0011222")
    # The lone 2 among 1 (2 voxels) is too small to be moved, and is removed; its hole is open to the faces.
    # The 1 in the last row (4 voxels) touches 2 and becomes 2.
    after = volume("1111122", "1110122", "1111122", "0000022", "0022222")
    np.testing.assert_array_equal(cleaned(before), after)


def test_three_voxels_are_enough_to_join():
    before = volume("1111111", "1122111", "1111111", "0000000", "2222222")
    after = volume("1111111", "1111111", "1111111", "0000000", "2222222")
    np.testing.assert_array_equal(cleaned(before), after)


def test_a_component_without_neighbours_is_removed():
    before = volume("11110", "00000", "00111")
    np.testing.assert_array_equal(cleaned(before), volume("11110", "00000", "00000"))


def test_corners_connect():
    before = volume("1100", "0011")
    np.testing.assert_array_equal(cleaned(before), before)


def test_enclosed_holes_are_filled():
    before = np.ones((3, 3, 3), dtype=np.uint8)
    before[1, 1, 1] = 0
    assert cleaned(before).all()


def test_a_spare_label_only_fills_gaps():
    before = volume("11133", "11133", "00000", "03300")
    # Both 3s touch: the first one label 1, the second one nothing, which is removed.
    after = volume("11111", "11111", "00000", "00000")
    np.testing.assert_array_equal(cleaned(before, spare=3), after)


def test_a_single_slice_keeps_holes_of_64_voxels():
    plane = np.ones((1, 30, 30), dtype=np.uint8)
    plane[0, 2:10, 2:10] = 0  # 64 voxels
    plane[0, 15:22, 15:24] = 0  # 63 voxels
    wanted = np.ones_like(plane)
    wanted[0, 2:10, 2:10] = 0
    np.testing.assert_array_equal(cleaned(plane), wanted)


def test_nothing_stays_nothing():
    assert not cleaned(np.zeros((2, 3, 4), dtype=np.uint8)).any()
