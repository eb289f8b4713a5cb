"""The functions against scipy's, on masks that reach the faces of the array."""

import numpy as np
import pytest
from scipy import ndimage

from medseg.inference.neighbourhood import depth_mm_of, grown, opened, within

CORNERS = np.ones((3, 3, 3), dtype=bool)


@pytest.fixture(params=[0.02, 0.5, 0.97])
def mask(request):
    return np.random.default_rng(3).random((17, 14, 11)) < request.param


def test_grown_is_a_dilation_by_a_cube(mask):
    assert np.array_equal(grown(mask), ndimage.binary_dilation(mask, CORNERS))


def test_opened_is_an_opening_by_a_cube(mask):
    assert np.array_equal(opened(mask), ndimage.binary_opening(mask, CORNERS))


@pytest.mark.parametrize("spacing_mm", [(2.0, 2.0, 2.0), (1.3, 2.0, 3.1), (5.0, 5.0, 4.0)])
def test_within_is_a_limit_of_the_distance_transform(mask, spacing_mm):
    voxels = np.random.default_rng(4).random(mask.shape) < 0.3
    away_mm = ndimage.distance_transform_edt(~mask, sampling=spacing_mm)
    assert np.array_equal(within(voxels, mask, 4.0, spacing_mm), voxels & (away_mm <= 4.0))


def test_nothing_is_within_reach_of_an_empty_mask():
    voxels = np.ones((4, 5, 6), dtype=bool)
    assert not within(voxels, np.zeros_like(voxels), 4.0, (2.0, 2.0, 2.0)).any()


@pytest.mark.parametrize("shape", [(14, 15, 16), (3, 17, 1), (9, 1, 8)])
def test_depths_are_those_of_scipy_in_a_mask_that_continues_beyond_the_array(shape):
    mask = ndimage.gaussian_filter(np.random.default_rng(0).random(shape), 1.5) > 0.5
    spacing_mm = (1.9, 2.1, 2.5)
    padded = ndimage.distance_transform_edt(np.pad(mask, 1, mode="edge"), sampling=spacing_mm)
    np.testing.assert_array_equal(depth_mm_of(mask, spacing_mm), padded[1:-1, 1:-1, 1:-1])


def test_the_depth_of_a_slab_is_counted_from_its_sides():
    mask = np.zeros((7, 3, 1), dtype=np.bool_)
    mask[1:6] = True
    np.testing.assert_array_equal(depth_mm_of(mask, (2.0, 3.0, 5.0))[:, 1, 0], [0, 2, 4, 6, 4, 2, 0])
