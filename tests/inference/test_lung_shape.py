"""Findings about boxes whose volumes, areas and distances can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.inference.lung_shape import shape_findings

SPACING_MM = (5.0, 5.0, 5.0)


def boxes():
    """Two lungs of 20 x 20 x 30 voxels of 5 mm, 10 voxels apart."""
    right, left = np.zeros((2, 60, 30, 50), dtype=bool)
    right[35:55, 5:25, 15:45] = left[5:25, 5:25, 15:45] = True
    return right, left


def reasons(right, left):
    return [(each.reason, each.text) for each in shape_findings(right, left, SPACING_MM)]


def test_two_equal_boxes_are_not_odd():
    assert reasons(*boxes()) == []


def test_a_lung_much_smaller_than_the_other_is_reported():
    right, left = boxes()
    right[:, :, 25:] = False  # a third is left: 1 of 4 parts
    assert reasons(right, left) == [("lung-ratio", "the right lung has 25 % of the volume of both")]


def test_lungs_that_touch_over_a_large_area_are_reported():
    right, left = boxes()
    right[25:35, 5:25, 20:30] = True  # 20 x 10 faces of 0.25 cm2, and a smooth step at two slices
    found = reasons(right, left)
    assert ("lungs-joined", "both lungs are one part: they touch over 50 cm2") in found


@pytest.mark.parametrize("side", [0, 1])
def test_a_part_below_the_lung_is_reported(side):
    lungs = boxes()
    lungs[side][10:14, 10:14, 4:9] = True  # 80 voxels of 0.125 ml
    assert reasons(*lungs) == [
        ("lung-below", f"10 ml of the {('right', 'left')[side]} lung lie apart from it, below the diaphragm")
    ]


def test_a_small_part_beside_the_lung_is_not_reported():
    right, left = boxes()
    left[28:31, 10:14, 30:35] = True
    assert reasons(right, left) == []


def test_a_contour_that_jumps_in_one_slice_is_reported():
    right, left = boxes()
    left[25:28, 5:25, 30] = True  # 60 voxels beside 400: 60 of 460
    tail = "above its lowest one fit neither neighbour"
    text = f"the contour of the left lung jumps: 13 % of the slice 75 mm {tail}"
    assert reasons(right, left) == [("lung-jump", text)]
    right[50:55, 5:25, 20] = False  # 100 are missing, of 300
    text = f"the contour of the right lung jumps: 33 % of the slice 25 mm {tail}"
    assert [each for _, each in reasons(right, left) if "right" in each] == [text]


def test_a_few_slices_have_no_jump():
    right, left = boxes()
    assert reasons(right[..., 20:22], left[..., 20:22]) == []


def test_thick_slices_have_no_jump():
    right, left = boxes()
    left[25:28, 5:25, 30] = True
    assert shape_findings(right, left, (5.0, 5.0, 7.0)) == []
