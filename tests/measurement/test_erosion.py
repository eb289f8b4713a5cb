from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from medseg.measurement.erosion import core


def by_distance(mask: np.ndarray, spacing_mm: tuple[float, ...], depth_mm: float) -> np.ndarray:
    distance = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=spacing_mm)
    return distance[1:-1, 1:-1, 1:-1] > depth_mm + 1e-6


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.7, 2.0, 3.1), (3.0, 0.7, 0.7), (0.9, 1.3, 0.8)])
@pytest.mark.parametrize("depth_mm", [0.5, 1.0, 2.1, 3.0, 5.0])
def test_the_core_is_that_of_a_distance_transform(spacing_mm, depth_mm):
    noise = np.random.default_rng(1).normal(size=(17, 21, 71))
    mask = ndimage.gaussian_filter(noise, 2.0) > -0.05
    found = core(mask, spacing_mm, depth_mm)
    np.testing.assert_array_equal(found, by_distance(mask, spacing_mm, depth_mm))
    assert found.any() or depth_mm > 3


def test_rows_of_whole_words_do_not_run_into_each_other():
    for length in (1, 63, 64, 65, 128):
        mask = np.ones((3, 3, length), bool)
        np.testing.assert_array_equal(core(mask, (1, 1, 1), 1.0), by_distance(mask, (1, 1, 1), 1.0))


def test_a_row_by_hand():
    # Seven voxels of 2 mm in a thick slab: those at the ends are 2 and 4 mm from the outside.
    mask = np.zeros((9, 5, 5), bool)
    mask[1:8] = True
    found = core(np.pad(mask, ((0, 0), (9, 9), (9, 9)), mode="edge"), (2.0, 2.0, 2.0), 4.0)
    assert np.flatnonzero(found[:, 11, 11]).tolist() == [3, 4, 5]


def test_depth_zero_and_a_depth_beyond_the_mask():
    mask = np.random.default_rng(0).random((5, 6, 7)) < 0.5
    np.testing.assert_array_equal(core(mask, (1, 1, 1), 0), mask)
    assert not core(mask, (1, 1, 1), 500).any()
