import numpy as np
import pytest

from medseg.images.grid import Grid
from medseg.visualization.planes import (
    AXIAL,
    CORONAL,
    PLANES,
    SAGITTAL,
    fullest,
    grey_levels,
    inner_border,
    square_pixels,
    upright,
)

# RAS order: x runs to the patient's right, y to the front, z to the head.
ENDS = {"R": (0, -1), "L": (0, 0), "A": (1, -1), "P": (1, 0), "S": (2, -1), "I": (2, 0)}


@pytest.mark.parametrize("plane", PLANES)
def test_the_letters_name_the_sides_of_the_picture(plane):
    sides = {plane.sides[0]: np.s_[:, 0], plane.sides[1]: np.s_[:, -1]}
    ends = {plane.ends[0]: np.s_[0, :], plane.ends[1]: np.s_[-1, :]}
    for letter, at in (sides | ends).items():
        axis, end = ENDS[letter]
        array = np.zeros((4, 5, 6), np.uint8)
        np.moveaxis(array, axis, 0)[end] = 1  # the face of the scan on that side of the patient
        picture = plane.cut(array, 2)
        assert picture[at].all()
        assert picture.sum() == picture[at].size


def test_planes_have_their_size_in_mm():
    grid = Grid.from_spacing((4, 5, 6), (0.5, 2, 3))
    assert AXIAL.size_mm(grid) == (2, 10)
    assert CORONAL.size_mm(grid) == (2, 18)
    assert SAGITTAL.size_mm(grid) == (10, 18)
    assert SAGITTAL.pixel_mm(grid) == (2, 3)
    assert AXIAL.cut(np.zeros(grid.shape), 5).shape == (5, 4)


def test_the_first_axis_runs_to_the_left_and_the_second_up():
    assert upright(np.array([[1, 2, 3], [4, 5, 6]])).tolist() == [[6, 3], [5, 2], [4, 1]]


def test_the_fullest_slice_is_the_first_with_most_voxels_or_the_middle_one():
    found = np.zeros((3, 4, 5), bool)
    assert [fullest(found, axis) for axis in range(3)] == [1, 2, 2]
    found[1, 2, 3] = found[2, 2, 3] = found[2, 0, 4] = True
    assert [fullest(found, axis) for axis in range(3)] == [2, 2, 3]


def test_intensities_outside_the_window_are_black_or_white():
    plane = np.array([[-2000.0, -1400, -600], [199, 200, 3000]])
    assert grey_levels(plane, (-1400, 200)).tolist() == [[0, 0, 127], [254, 255, 255]]


def test_pixels_are_square_and_show_the_voxel_under_their_centre():
    # 2 voxels of 3 mm and 3 of 1 mm on pixels of 1 mm.
    assert (
        square_pixels(np.array([[1, 2, 3], [4, 5, 6]]), (3, 1), 1).tolist()
        == [[1, 2, 3]] * 3 + [[4, 5, 6]] * 3
    )


def test_the_inner_border_has_a_neighbour_outside_and_the_edge_counts_as_outside():
    inside = np.array(
        [
            [0, 0, 0, 0, 0],
            [1, 1, 1, 1, 0],
            [1, 1, 1, 1, 0],
            [1, 1, 1, 1, 0],
        ],
        bool,
    )
    assert inner_border(inside).astype(int).tolist() == [
        [0, 0, 0, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 0, 0, 1, 0],
        [1, 1, 1, 1, 0],
    ]
