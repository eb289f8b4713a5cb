"""The functions against scipy's, on masks that reach the faces of the array."""

import numpy as np
import pytest
from scipy import ndimage

from medseg.inference.neighbourhood import grown, opened, within

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
