from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from medseg.errors import InputRefused
from medseg.images.grid import Grid
from medseg.preprocessing.resampling import axis_maps, banded, resample, resampled_grid, weights


def test_linear_weights_by_hand():
    # Two output voxels inside each input voxel's half: positions -0.25, 0.25, 0.75, 1.25.
    matrix = weights(2, 4, offset=-0.25, step=0.5)
    expected = [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]
    np.testing.assert_allclose(matrix, expected, atol=1e-7)


def test_half_the_resolution_is_the_mean_of_two_voxels():
    matrix = weights(4, 2, offset=0.5, step=2.0)
    np.testing.assert_allclose(matrix, [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]], atol=1e-7)


def test_a_third_of_the_resolution_by_hand():
    # Box of 2 voxels over the linear interpolant, [0, 2] and [3, 5]: half of each outer voxel's hat.
    matrix = weights(6, 2, offset=1.0, step=3.0)
    expected = [[0.25, 0.5, 0.25, 0, 0, 0], [0, 0, 0, 0.25, 0.5, 0.25]]
    np.testing.assert_allclose(matrix, expected, atol=1e-7)


def test_the_outermost_voxel_is_repeated_beyond_the_ends():
    # Box [-1, 1]: a quarter lies on voxel 1's hat (its rising half, 1/2 of 2), the rest on voxel 0.
    matrix = weights(3, 1, offset=0.0, step=3.0)
    np.testing.assert_allclose(matrix, [[0.75, 0.25, 0]], atol=1e-7)
    np.testing.assert_allclose(weights(1, 3, offset=-4.0, step=4.0), [[1], [1], [1]], atol=1e-7)


@given(st.integers(1, 40), st.floats(0.05, 9), st.floats(-3, 3))
def test_rows_sum_to_one(n_in, step, offset):
    matrix = weights(n_in, 7, offset=offset, step=step)
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-5)
    assert float(matrix.min()) >= 0


def test_positions_out_of_reach_are_zero():
    matrix = weights(3, 4, offset=-2.0, step=1.0, reach=1.0)
    np.testing.assert_array_equal(matrix, [[0, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0]])


def test_resampled_grid_keeps_the_field_of_view():
    grid = Grid.from_spacing((10, 7, 5), (1.0, 2.0, 3.0), origin_mm=(-4, 5, 6))
    target = resampled_grid(grid, (2.0, 2.0, 5.0))
    assert target.shape == (5, 7, 3)
    # x: faces at -4.5 and 5.5, so the first of five 2 mm voxels is centred on -3.5.
    # z: faces at 4.5 and 19.5, centre 12, so the first of three 5 mm voxels is at 7.
    np.testing.assert_allclose(target.affine[:3, 3], (-3.5, 5, 7))
    assert target.spacing_mm == pytest.approx((2, 2, 5))


def test_an_axis_never_vanishes():
    assert resampled_grid(Grid.from_spacing((4, 4, 1)), (2, 2, 10)).shape == (2, 2, 1)


def test_linear_fields_are_reproduced_exactly():
    # Linear interpolation of a linear function is exact away from the border.
    source = Grid.from_spacing((20, 18, 16), (1.0, 1.5, 2.0), origin_mm=(3, 4, 5))
    target = resampled_grid(source, (1.3, 0.9, 3.1))

    def field(grid: Grid) -> np.ndarray:
        world = grid.world(np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1))
        return world @ np.array([1.0, -2.0, 0.5]) + 7

    done = resample(field(source)[None].astype(np.float32), source, target)
    inner = (slice(3, -3),) * 3
    np.testing.assert_allclose(done[0][inner], field(target)[inner], atol=1e-4)


def test_finer_grids_agree_with_simpleitk():
    rng = np.random.default_rng(0)
    source = Grid.from_spacing((12, 10, 8), (2.0, 1.5, 3.0))
    values = rng.normal(size=source.shape).astype(np.float32)
    target = resampled_grid(source, (0.9, 1.1, 1.4))
    image = sitk.GetImageFromArray(values.transpose(2, 1, 0))
    image.SetSpacing(source.spacing_mm)
    filtered = sitk.Resample(
        image, target.shape, sitk.Transform(), sitk.sitkLinear,
        tuple(target.affine[:3, 3]), target.spacing_mm, (1, 0, 0, 0, 1, 0, 0, 0, 1), -99.0,
    )  # fmt: skip
    oracle = sitk.GetArrayFromImage(filtered).transpose(2, 1, 0)
    ours = resample(values[None], source, target)[0]
    inside = oracle != -99.0
    assert inside.mean() > 0.5
    np.testing.assert_allclose(ours[inside], oracle[inside], atol=1e-5)


def test_axis_maps_of_permuted_and_flipped_axes():
    source = Grid.from_spacing((4, 5, 6), (1.0, 2.0, 3.0))
    maps = axis_maps(source, source.oriented("SLA"))
    # First target axis runs along S (source axis 2); second runs to L: source axis 0 from its end.
    assert [(row, round(offset, 9), round(step, 9)) for row, offset, step in maps] == [
        (2, 0.0, 1.0), (0, 3.0, -1.0), (1, 0.0, 1.0),
    ]  # fmt: skip


def test_rotated_grids_are_refused():
    angle = np.radians(10)
    turn = [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    with pytest.raises(InputRefused, match="not parallel"):
        axis_maps(Grid.from_spacing((9, 9, 9)), Grid.from_spacing((9, 9, 9), direction=turn))


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_the_order_of_axes_does_not_change_a_bit(dtype):
    grid = Grid.from_spacing((21, 18, 40), (1.0, 1.5, 2.0), origin_mm=(3, 4, 5))
    target = resampled_grid(grid, (1.7, 1.2, 3.0))
    values = np.random.default_rng(0).normal(0, 300, grid.shape).astype(dtype)
    expected = resample(values[None], grid, target)
    for codes in ("LPS", "SAR", "IRP", "ASL"):
        order, flips = grid.moves_to(codes)
        moved = np.flip(values.transpose(order), [axis for axis, flip in enumerate(flips) if flip])
        assert np.array_equal(resample(moved[None], grid.oriented(codes), target), expected), codes


@pytest.mark.parametrize("step", [0.6, 1.0, 2.7])
def test_many_slices_are_the_product_of_three_matrices(step):
    grid = Grid.from_spacing((9, 8, 75), (1.0, 1.0, 1.0))
    affine = np.diag([1.0, 1.2, step, 1.0])
    affine[2, 3] = 34.3  # begins in the middle of the scan and ends beyond it, or before its end
    part = Grid((9, 7, 90), affine)
    values = np.random.default_rng(0).normal(0, 300, (2, *grid.shape))
    x, y, z = (
        weights(n_in, n_out, offset=offset, step=step).astype(np.float64)
        for n_in, n_out, (_, offset, step) in zip(grid.shape, part.shape, axis_maps(grid, part), strict=True)
    )
    expected = np.einsum("cxyz,ax,by,dz->cabd", values, x, y, z)
    np.testing.assert_allclose(resample(values, grid, part), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("rows", [1, 31, 32, 33, 100])
def test_abanded_product_is_the_product(rows):
    """Whole numbers have exact sums in any order, so that numpy's product is the truth to the last bit."""
    rng = np.random.default_rng(rows)
    matrix = np.zeros((rows, 70), dtype=np.float32)
    for row in range(rows):
        start = row * 60 // rows
        matrix[row, start : start + 4] = rng.integers(1, 9, 4)
    matrix[rows // 2] = 0  # a row beyond the reach
    values = rng.integers(-1000, 1000, (2, 70, 5)).astype(np.float32)
    assert np.array_equal(banded(matrix, values), matrix @ values)
