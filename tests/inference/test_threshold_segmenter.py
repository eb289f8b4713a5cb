"""The lungs by thresholds, on the phantom, whose truth is exact."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.errors import InputRefused, InputWarning
from medseg.images.grid import Grid
from medseg.images.volume import Source, Volume
from medseg.inference.threshold_segmenter import ThresholdSegmenter
from medseg.phantom.thorax import Thorax, default_grid, orientations

GRID = default_grid((3.0, 3.0, 4.0))


def dice(a, b):
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


@pytest.mark.parametrize("patient", [Thorax(), Thorax.random(3)], ids=["standard", "other"])
def test_it_finds_the_phantoms_lungs_and_their_sides(patient):
    mask = ThresholdSegmenter()(patient.scan(GRID))
    truth = np.asarray(patient.truth(GRID).array)
    assert dice(mask.array == 1, np.isin(truth, (1, 3))) > 0.95
    assert dice(mask.array == 2, np.isin(truth, (2, 4))) > 0.95
    airway = truth == 5
    assert np.count_nonzero((mask.array > 0) & airway) < 0.1 * np.count_nonzero(airway)


@pytest.mark.parametrize("codes", orientations()[::9])
def test_any_orientation_gives_the_same_mask_on_the_scans_own_grid(codes):
    scan = Thorax().scan(GRID)
    turned = scan.oriented(codes)
    mask = ThresholdSegmenter()(turned)
    assert mask.grid == turned.grid
    assert np.array_equal(mask.oriented("RAS").array, ThresholdSegmenter()(scan).array)


@pytest.mark.parametrize("hu", [-1000, 50])
def test_a_scan_without_lungs_gives_an_empty_mask(hu):
    grid = Grid.from_spacing((20, 20, 20), (3.0, 3.0, 3.0))
    with pytest.warns(InputWarning, match="no lung was found"):
        mask = ThresholdSegmenter()(Volume(np.full(grid.shape, hu, dtype=np.int16), grid))
    assert not mask.array.any()


def test_other_input_is_refused():
    scan = Thorax().scan(GRID)
    with pytest.raises(InputRefused, match="2 channel"):
        ThresholdSegmenter()((scan, scan))
    with pytest.raises(InputRefused, match="the scan is MR"):
        ThresholdSegmenter()(Volume(scan.array, scan.grid, Source(modality="MR")))
    assert ThresholdSegmenter(any_modality=True)(
        Volume(scan.array, scan.grid, Source(modality="MR"))
    ).array.any()
