from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from medseg.measurement.distribution import Distribution

VOXELS = np.random.default_rng(3).normal(-830, 90, 4001).round().astype(np.int16)
VOXELS[:500] = -1000  # many equal values


def test_statistics_are_those_of_numpy_and_scipy():
    found = Distribution.of(VOXELS, 0.002)
    assert found.voxels == 4001
    assert found.volume_ml == pytest.approx(8.002)
    assert found.mean == pytest.approx(VOXELS.mean(dtype=float))
    assert found.sd == pytest.approx(VOXELS.std(dtype=float))
    assert found.skewness == pytest.approx(stats.skew(VOXELS.astype(float), bias=False))
    assert found.kurtosis == pytest.approx(stats.kurtosis(VOXELS.astype(float), fisher=True, bias=False))
    assert found.mode == stats.mode(VOXELS).mode == -1000
    for percent in (0, 1.7, 10, 15, 50, 99.9, 100):
        assert found.percentile(percent) == pytest.approx(np.percentile(VOXELS, percent)), percent


def test_percentiles_lie_between_voxels_by_hand():
    # Ranks 0 to 3; the 15th percentile has rank 0.45, between -1000 and -960.
    found = Distribution.of(np.array([-1000, -960, -950, -900]), 1.0)
    assert found.percentile(15) == pytest.approx(-1000 + 0.45 * 40)
    assert found.percentile(50) == -955


def test_bounds_are_strict_above_and_closed_below():
    found = Distribution.of(np.array([-951, -950, -950, -949]), 1.0)
    assert (found.count(high=-950), found.count(-950, -949), found.count(-950)) == (1, 2, 3)
    assert found.percent(-950, -949) == 50


def test_no_voxels_have_no_statistics():
    found = Distribution.of(np.zeros(0), 1.0)
    assert (found.voxels, found.volume_ml) == (0, 0)
    values = (found.mean, found.sd, found.skewness, found.kurtosis, found.mode, found.percentile(15))
    assert values == (None,) * 6
    assert found.percent(high=-950) is None


def test_one_voxel_has_a_mean_and_no_shape():
    found = Distribution.of(np.array([-870]), 1.0)
    assert (found.mean, found.sd, found.mode, found.percentile(15)) == (-870, 0, -870, -870)
    assert (found.skewness, found.kurtosis) == (None, None)


def test_equal_voxels_have_no_skewness():
    found = Distribution.of(np.full(9, -800), 1.0)
    assert (found.sd, found.skewness, found.kurtosis) == (0, None, None)
