"""Simulated disease and scanners: what they may change, and that a seed decides it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from medseg.phantom.thorax import Thorax, default_grid

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "lungs"))
import cases
import simulate

GRID = default_grid((6.0, 6.0, 8.0)).oriented("LPS")


@pytest.fixture(scope="module")
def patient():
    values = np.asarray(Thorax().truth(GRID).array)
    right, left = np.isin(values, (1, 3)), np.isin(values, (2, 4))
    return np.asarray(Thorax().scan(GRID).array, dtype=np.float32), right, left


@pytest.mark.parametrize("name", simulate.DISEASES)
def test_disease_changes_lung_only_and_by_its_seed(patient, name):
    hu, right, left = patient
    lungs, before = right | left, hu.copy()
    first, again, other = (
        simulate.DISEASES[name](hu, lungs, right, GRID.spacing_mm, np.random.default_rng(seed))
        for seed in (1, 1, 2)
    )
    assert np.array_equal(hu, before)
    assert np.array_equal(first[~lungs], hu[~lungs])
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.abs(first - hu)[lungs].mean() > 1
    assert first.min() > -1100
    assert first.dtype == np.float32


@pytest.mark.parametrize(
    ("name", "hu"), [("effusion", (-30, 60)), ("collapse", (-30, 180)), ("mass", (-60, 180))]
)
def test_what_is_airless_has_the_density_of_fluid_or_tissue(patient, name, hu):
    scan, right, left = patient
    lungs = right | left
    sick = simulate.DISEASES[name](scan, lungs, right, GRID.spacing_mm, np.random.default_rng(5))
    dense = lungs & (sick > scan + 600)
    assert dense.any()
    low, high = np.quantile(sick[dense & (sick > -150)], (0.05, 0.95))
    assert hu[0] < low < high < hu[1]


def test_copies_fit_their_masks_whatever_is_drawn(patient):
    hu, right, left = patient
    values = (right + 2 * left).astype(np.uint8)
    for seed in range(25):
        made, kept, grid = cases.changed(hu, values, GRID, np.random.default_rng(seed))
        assert made.shape == kept.shape == grid.shape
        assert set(np.unique(kept)) <= {0, 1, 2}


def test_thick_slices_lie_where_their_parts_did(patient):
    """The field of view is the same: a linear ramp keeps its value at every place."""
    _, right, _ = patient
    z_mm = (GRID.affine @ np.array([0, 0, 1, 0]))[2] * np.arange(GRID.shape[2]) + GRID.affine[2, 3]
    ramp = np.broadcast_to(z_mm.astype(np.float32), GRID.shape).copy()
    for every in (2, 3):
        thick, _, grid = cases.thick(ramp, right.astype(np.uint8), GRID, every)
        there = grid.affine[2, 2] * np.arange(grid.shape[2]) + grid.affine[2, 3]
        assert np.allclose(thick[0, 0, 1:-1], there[1:-1])
