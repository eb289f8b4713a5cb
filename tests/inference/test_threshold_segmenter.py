"""The lungs by thresholds, on the phantom, whose truth is exact."""

from __future__ import annotations

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from medseg.errors import InputRefused, InputWarning
from medseg.images.grid import Grid
from medseg.images.volume import Source, Volume
from medseg.inference.threshold_segmenter import ThresholdSegmenter
from medseg.phantom.thorax import Thorax, default_grid, orientations
from medseg.system.notices import collect_notices

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


def test_a_second_scan_without_lungs_is_reported_as_the_first():
    grid = Grid.from_spacing((20, 20, 20), (3.0, 3.0, 3.0))
    scan = Volume(np.full(grid.shape, 50, dtype=np.int16), grid)
    with warnings.catch_warnings(record=True) as seen:
        warnings.resetwarnings()
        warnings.simplefilter("default")  # Python's own filter: once for each line of code
        for _ in range(2):
            ThresholdSegmenter()(scan)
    assert len(seen) == 2
    assert {each.filename for each in seen} == {__file__}


def test_threads_that_segment_at_once_get_the_notices_of_their_own_scan():
    grid = Grid.from_spacing((20, 20, 20), (3.0, 3.0, 3.0))
    empty = Volume(np.full(grid.shape, 50, dtype=np.int16), grid, Source(path=Path("empty.nii")))
    both = threading.Barrier(2)

    def reasons(scan):
        both.wait(10)
        with collect_notices() as notices:
            ThresholdSegmenter()(scan)
            both.wait(60)
        return [(each.reason, each.path) for each in notices]

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(reasons, [empty, Thorax().scan(GRID)])) == [[("no-lung", "empty.nii")], []]


def test_other_input_is_refused():
    scan = Thorax().scan(GRID)
    with pytest.raises(InputRefused, match="2 channel"):
        ThresholdSegmenter()((scan, scan))
    with pytest.raises(InputRefused, match="the scan is MR"):
        ThresholdSegmenter()(Volume(scan.array, scan.grid, Source(modality="MR")))
    assert ThresholdSegmenter(any_modality=True)(
        Volume(scan.array, scan.grid, Source(modality="MR"))
    ).array.any()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_that_are_not_finite_are_refused(value):
    scan = Thorax().scan(GRID)
    array = np.array(scan.array, dtype=np.float32)
    array[0, 0, 0] = value
    with pytest.raises(InputRefused, match=r"1 of \d+ voxels are NaN or infinite") as refused:
        ThresholdSegmenter()(Volume(array, scan.grid))
    assert refused.value.reason == "not-finite"
