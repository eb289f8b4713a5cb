"""The midline of boxes whose middle is known, and of the phantom."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from medseg.images.grid import Grid
from medseg.inference.midline import body_outline, cut_shares, find_midline, planar_parts
from medseg.inference.upright_lattice import UprightLattice
from medseg.phantom.thorax import Thorax, default_grid

STEP = 5.0


def positions(shape):
    return tuple(np.ogrid[tuple(slice(0, n) for n in shape)][axis] * STEP for axis in range(3))


def chest(middle=40, height=40):
    """A box of 300 x 200 mm with a spine of 35 x 45 mm and two lungs; its middle is a voxel of 80."""
    hu = np.full((80, 60, height), -1000, dtype=np.int16)
    hu[middle - 30 : middle + 31, 10:50] = 40
    hu[middle - 3 : middle + 4, 13:22] = 400
    hu[middle - 25 : middle - 4, 15:45] = hu[middle + 5 : middle + 26, 15:45] = -850
    return hu


@pytest.mark.parametrize("height", [1, 3, 40])
@pytest.mark.parametrize("middle", [36, 40, 46])
def test_outline_and_spine_agree_about_a_box(middle, height):
    hu = chest(middle, height)
    midline = find_midline(hu, positions(hu.shape))
    assert len(midline.planes) == 3
    # A voxel to either side of the middle one.
    for place, expected in ((middle - 1, False), (middle + 1, True)):
        point = [np.array(each) for each in (place * STEP, 150.0, 2.0)]
        assert [bool(right) for right in midline.right_of(point)] == [expected] * 3


def test_arms_beside_some_slices_do_not_move_the_midline():
    hu = chest()
    hu[1:10, 20:35, 30:] = 40  # beside the left lung's box, in the upper quarter
    hu[9:11, 25:28, 30:] = 40  # touching it
    (a, b, c, d) = find_midline(hu, positions(hu.shape)).planes[0]
    assert (a, b) == (1.0, 0.0)
    assert abs(d - c * 20 * STEP - 40 * STEP) < 10


@pytest.mark.parametrize("height", [1, 2, 40])
@pytest.mark.parametrize("aside", [-22, 17, 22])
def test_bone_at_a_shoulder_is_not_the_spine(height, aside):
    hu = chest(height=height)
    hu[37:44, 13:22] = 150  # a disc
    hu[40 + aside - 4 : 40 + aside + 5, 13:24] = 700  # 85 or 110 mm from the middle of 305 mm
    (plane,) = find_midline(hu, positions(hu.shape)).planes
    assert plane == (1.0, 0.0, 0.0, pytest.approx(40 * STEP, abs=10))


@pytest.mark.parametrize("degrees", [-30, 30])
def test_a_turned_patient_has_a_turned_midline(degrees):
    def rotated(array, order):
        return ndimage.rotate(array, degrees, reshape=False, order=order, cval=array.min())

    right = rotated(np.where(chest() == -850, 1 + (np.arange(80)[:, None, None] > 40), 0), 0)
    hu = rotated(chest(), 1)
    found = find_midline(hu, positions(hu.shape)).right_of(positions(hu.shape))[2]
    found = np.broadcast_to(found, hu.shape)
    assert found[right == 2].mean() > 0.95
    assert found[right == 1].mean() < 0.05


def test_a_field_of_view_without_spine_that_cuts_the_body_shows_no_midline():
    half = chest()[46:]
    assert find_midline(half, positions(half.shape)) is None
    left, right = cut_shares(body_outline(half))
    assert left > 0.75
    assert right == 0
    # With the spine in view, it is the midline.
    some = chest()[34:]
    (plane,) = find_midline(some, positions(some.shape)).planes
    assert abs(plane[3] - 6 * STEP) < 10


def test_air_shows_no_midline():
    hu = np.full((8, 8, 8), -1000, dtype=np.int16)
    assert find_midline(hu, positions(hu.shape)) is None


def test_parts_of_slices():
    dark = np.zeros((6, 6, 2), dtype=bool)
    dark[0:2, 0:2] = dark[3:5, 3:5] = True
    parts, at_edge = planar_parts(dark)
    assert parts.max() == 4
    assert [bool(at_edge[parts[place]]) for place in ((0, 0, 0), (3, 3, 1), (2, 2, 0))] == [
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("codes", ["RAS", "LPI", "SAL"])
def test_the_phantoms_lungs_lie_on_either_side_in_any_orientation(codes):
    grid: Grid = default_grid((6.0, 7.0, 9.0)).oriented(codes)
    truth, scan = np.asarray(Thorax().truth(grid).array), np.asarray(Thorax().scan(grid).array)
    lattice = UprightLattice.of(grid, tuple(slice(0, n) for n in grid.shape), 5.0)
    midline = find_midline(lattice.sampled(scan), lattice.positions_mm())
    lungs = lattice.sampled(truth)
    for right in midline.right_of(lattice.positions_mm()):
        right = np.broadcast_to(right, lungs.shape)
        assert right[np.isin(lungs, (1, 3))].mean() > 0.9
        assert right[np.isin(lungs, (2, 4))].mean() < 0.1
