from itertools import permutations, product

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from medseg.errors import InputRefused, UsageError
from medseg.images.grid import LPS_RAS, SAME_GRID_MM, Grid, flip_lps_ras

AXCODES = ["".join(c) for p in permutations(("RL", "AP", "SI")) for c in product(*p)]
OBLIQUE = Grid.from_spacing(
    (3, 4, 5),
    (0.8, 1.1, 2.5),
    origin_mm=(-12.5, 40.25, -7.75),
    direction=Rotation.from_euler("xyz", (10, -14, 21), degrees=True).as_matrix(),
)


def test_voxel_positions_by_hand():
    # 2 mm to the left, 3 mm to the front, 4 mm up; first voxel at (10, 20, 30).
    grid = Grid.from_spacing((5, 6, 7), (2, 3, 4), origin_mm=(10, 20, 30), direction=np.diag([-1, 1, 1]))
    assert grid.world((1, 2, 3)).tolist() == [8, 26, 42]
    assert grid.index((8, 26, 42)).tolist() == [1, 2, 3]
    assert grid.spacing_mm == (2, 3, 4)
    assert grid.direction.tolist() == [[-1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert grid.voxel_ml == pytest.approx(24e-3)
    assert grid.axcodes == "LAS"
    assert grid.corners_mm[0].tolist() == [10, 20, 30]
    assert grid.corners_mm[-1].tolist() == [2, 35, 54]
    assert repr(grid) == "Grid(5 x 6 x 7 voxels, 2 x 3 x 4 mm, LAS)"


def test_voxel_volume_of_a_sheared_grid_is_base_times_height():
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    affine[0, 2] = 1.5  # shear changes the length of the axis, not the height
    assert Grid((2, 2, 2), affine).voxel_ml == pytest.approx(24e-3)


@given(st.lists(st.floats(-500, 500), min_size=3, max_size=3))
def test_index_undoes_world(point):
    assert np.allclose(OBLIQUE.world(OBLIQUE.index(point)), point, atol=1e-9)


@pytest.mark.parametrize("axcodes", AXCODES)
def test_axcodes_agree_with_nibabel(axcodes):
    ours = OBLIQUE.oriented(axcodes)
    assert ours.axcodes == axcodes == "".join(nibabel.aff2axcodes(ours.affine))


@pytest.mark.parametrize("axcodes", AXCODES)
def test_reorienting_keeps_every_voxel_in_its_place(axcodes):
    number = np.arange(60).reshape(3, 4, 5)
    turned = nibabel.Nifti1Image(number.astype(np.int16), OBLIQUE.affine).as_reoriented(
        nibabel.orientations.ornt_transform(
            nibabel.io_orientation(OBLIQUE.affine), nibabel.orientations.axcodes2ornt(axcodes)
        )
    )
    ours = OBLIQUE.oriented(axcodes)
    order, flips = OBLIQUE.moves_to(axcodes)
    moved = np.flip(number.transpose(order), [a for a in range(3) if flips[a]])
    assert ours.shape == turned.shape
    assert np.allclose(ours.affine, turned.affine, atol=1e-5)
    assert np.array_equal(moved, turned.get_fdata())
    assert ours.oriented("ras").distance_mm(OBLIQUE.oriented("RAS")) < 1e-9


@pytest.mark.parametrize("axcodes", ["RAL", "RA", "", "RASS", "XYZ", "RSL"])
def test_refuses_orientations_that_do_not_name_each_axis_once(axcodes):
    with pytest.raises(UsageError, match="orientation"):
        OBLIQUE.oriented(axcodes)


def test_axcodes_at_45_degrees_name_each_axis_once():
    turned = Rotation.from_euler("xyz", (45, 45, 45), degrees=True).as_matrix()
    grid = Grid.from_spacing((2, 2, 2), direction=turned)
    assert sorted(grid.world_axes) == [0, 1, 2]
    assert len(set(grid.axcodes)) == 3


def test_distance_is_that_of_the_farthest_corner():
    grid = Grid.from_spacing((11, 2, 2))
    stretched = Grid.from_spacing((11, 2, 2), (1.5, 1, 1))
    assert grid.distance_mm(stretched) == pytest.approx(5.0)  # 10 steps of 0.5 mm
    assert grid.distance_mm(Grid.from_spacing((11, 2, 3))) == np.inf


def test_grids_a_hundredth_of_a_millimetre_apart_are_the_same():
    grid = Grid.from_spacing((11, 2, 2))
    for mm, same in ((0.0, True), (0.0099, True), (0.0101, False), (50.0, False)):
        moved = Grid.from_spacing((11, 2, 2), origin_mm=(0, mm, 0))
        assert grid.same_as(moved) is same
        assert (grid.mismatch(moved) is None) is same
        assert grid.same_as(moved, tolerance_mm=60)
    # Ten steps that are 0.002 mm longer each: no spacing differs by a hundredth, the far corner does.
    assert not grid.same_as(Grid.from_spacing((11, 2, 2), (1.002, 1, 1)))
    assert SAME_GRID_MM == 0.01


def test_a_mismatch_states_the_distance_in_mm_or_the_shapes_and_what_differs():
    grid = Grid.from_spacing((11, 2, 2))
    message = grid.mismatch(Grid.from_spacing((11, 2, 2), origin_mm=(30, 40, 0)))  # sqrt(900 + 1600)
    assert message == "voxels lie up to 50 mm apart, the origin lies 50 mm away"
    message = grid.mismatch(Grid.from_spacing((11, 2, 3)))
    assert "inf" not in message
    assert message == "the shapes differ: 11 x 2 x 2 instead of 11 x 2 x 3 voxels"
    message = grid.mismatch(Grid.from_spacing((11, 2, 2), (2, 1, 1)))  # 10 steps of 1 mm more
    assert message == "voxels lie up to 10 mm apart, spacing 1 x 1 x 1 instead of 2 x 1 x 1 mm"
    assert "orientation RAS instead of LAS" in grid.mismatch(grid.oriented("LAS"))
    turned = Grid.from_spacing((11, 2, 2), direction=[[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]])
    assert grid.mismatch(turned).endswith("mm apart, the axes point in other directions")
    message = grid.mismatch(Grid.from_spacing((11, 2, 2), origin_mm=(0.0102, 0, 0)))
    assert "voxels lie up to 0.0102 mm apart" in message


def test_lps_and_ras_differ_in_the_signs_of_x_and_y():
    assert flip_lps_ras([(1, 2, 3), (-4, 5, -6)]).tolist() == [[-1, -2, 3], [4, -5, -6]]
    affine = Grid.from_spacing((2, 2, 2), (2, 3, 4), origin_mm=(10, 20, 30)).affine
    lps = LPS_RAS @ affine
    assert lps.tolist() == [[-2, 0, 0, -10], [0, -3, 0, -20], [0, 0, 4, 30], [0, 0, 0, 1]]
    assert (LPS_RAS @ lps).tolist() == affine.tolist()
    with pytest.raises(ValueError, match="read-only"):
        LPS_RAS[0, 0] = 1


def test_equal_grids_are_equal_and_hash_alike():
    affine = np.eye(4)
    affine[0, 3] = -0.0
    one, other = Grid((1, 2, 3), np.eye(4)), Grid((1, 2, 3), affine)
    assert one == other
    assert hash(one) == hash(other)
    assert one != Grid((1, 2, 4), np.eye(4))
    assert one != "grid"


def test_is_immutable():
    affine = np.eye(4)
    grid = Grid((1, 2, 3), affine)
    affine[0, 0] = 9
    assert grid.affine[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 0] = 2


@pytest.mark.parametrize(
    ("shape", "affine", "message"),
    [
        ((1, 2), np.eye(4), "three axes"),
        ((1, 2, 0), np.eye(4), "three axes"),
        ((1, 2, 3), np.eye(3), "4x4"),
        ((1, 2, 3), np.diag([1.0, 1, 1, 2]), "4x4"),
        ((1, 2, 3), np.diag([1.0, np.nan, 1, 1]), "not finite"),
        ((1, 2, 3), np.diag([1.0, 0, 1, 1]), "singular"),
        ((1, 2, 3), [[1, 1, 0, 0], [0, 1e-4, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], "singular"),
    ],
)
def test_impossible_shapes_and_affines_are_refused(shape, affine, message):
    with pytest.raises(InputRefused, match=message) as caught:
        Grid(shape, affine)
    assert caught.value.reason == "geometry"
