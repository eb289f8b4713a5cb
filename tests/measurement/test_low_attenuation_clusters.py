from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage, stats

from medseg.measurement.low_attenuation_clusters import cluster_sizes, fit_clusters


def test_sizes_of_clusters_are_those_of_scipy_with_six_neighbours():
    rng = np.random.default_rng(2)
    lung, hu = rng.random((14, 15, 16)) < 0.9, rng.integers(-1000, -900, (14, 15, 16)).astype(np.int16)
    dark = lung & (hu < -950)
    found, count = ndimage.label(dark)
    assert sorted(cluster_sizes(lung, hu)) == sorted(np.bincount(found.ravel())[1:])
    assert count > 20


def test_the_threshold_is_strict_and_corners_do_not_connect():
    hu = np.full((4, 4, 4), -900, np.int16)
    hu[0, 0, 0] = hu[1, 1, 0] = -951
    hu[3, 3, 3] = -950
    assert cluster_sizes(np.ones_like(hu, bool), hu).tolist() == [1, 1]


def test_a_power_law_gives_its_exponent():
    # Clusters of at least 1, 10, 100 and 1000 voxels: 1000, 100, 10 and 1. So D = 1 exactly.
    sizes = np.repeat([1, 10, 100, 1000], [900, 90, 9, 1])
    found = fit_clusters([sizes], voxel_ml=0.001)
    assert found.exponent == pytest.approx(1.0)
    assert found.r2 == pytest.approx(1.0)
    assert (found.clusters, found.smallest_ml, found.largest_ml) == (1000, 0.001, 1.0)


def test_the_fit_is_that_of_scipy_and_joins_both_lungs():
    rng = np.random.default_rng(5)
    right, left = (np.ceil(rng.pareto(1.3, 400) + 0.5).astype(int) for _ in range(2))
    together = np.concatenate([right, left])
    size = np.unique(together)
    line = stats.linregress(np.log10(size), np.log10([(together >= each).sum() for each in size]))
    found = fit_clusters([right, left], 1.0)
    assert found.exponent == pytest.approx(-line.slope)
    assert found.r2 == pytest.approx(line.rvalue**2)


def test_a_constructed_set_of_clusters_from_voxels_to_exponent():
    # Rows of 8, 4, 2 and 1 dark voxels: 1, 2, 4 and 8 of them, so 1, 3, 7, 15 have at least these sizes.
    hu = np.full((10, 31, 3), -900, np.int16)
    lengths = [8] + [4] * 2 + [2] * 4 + [1] * 8
    for number, length in enumerate(lengths):
        hu[1 : 1 + length, 2 * number, 1] = -980
    sizes = cluster_sizes(np.ones_like(hu, bool), hu)
    assert sorted(sizes.tolist(), reverse=True) == lengths
    # Least squares by hand: x = 0, 1, 2, 3 (log2), y = log2 of 15, 7, 3, 1.
    y = np.log2([15, 7, 3, 1])
    slope = (-1.5 * y[0] - 0.5 * y[1] + 0.5 * y[2] + 1.5 * y[3]) / 5
    assert fit_clusters([sizes], 1.0).exponent == pytest.approx(-slope)


@pytest.mark.parametrize("sizes", [[], [7], [3, 3, 9]])
def test_too_few_sizes_have_no_exponent(sizes):
    found = fit_clusters([np.array(sizes, dtype=np.int64)], 0.5)
    assert (found.clusters, found.exponent, found.r2) == (len(sizes), None, None)
    assert found.largest_ml == (max(sizes) * 0.5 if sizes else None)
