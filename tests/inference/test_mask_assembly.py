"""Which memory is held while a mask is assembled, and for how long."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from support.worlds import DIVIDED, tiny, untrained

from medseg.errors import UsageError
from medseg.inference.mask_assembly import Target
from medseg.inference.segmenter import Segmenter
from medseg.phantom.thorax import Thorax, default_grid
from medseg.system.memory import no_gc, zeros

COARSE = (8.0, 8.0, 10.0)


# What an untrained network finds looks wrong.
@pytest.mark.filterwarnings("ignore::medseg.errors.InputWarning")
@pytest.mark.parametrize(("parts", "kept"), [({}, False), (DIVIDED, True)])
def test_a_scan_is_released_unless_its_voxels_are_needed(parts, kept):
    segment = Segmenter(untrained(tiny(**parts)), engine="torch")
    scan = Thorax().scan(default_grid(COARSE))
    held, grid = weakref.ref(scan.array.base), scan.grid
    prepared = segment.prepare(scan)
    del scan
    gc.collect()
    assert (held() is not None) is kept
    assert prepared.predict().mask.grid == grid


def test_a_prepared_scan_can_be_segmented_once():
    scan = Thorax().scan(default_grid(COARSE))
    prepared = Segmenter(untrained(tiny()), engine="torch").prepare(scan)
    prepared.predict()
    with pytest.raises(UsageError, match="prepare the scan again"):
        prepared.predict()


def test_the_target_of_a_scan_knows_its_grid_and_source():
    scan = Thorax().scan(default_grid(COARSE))
    target = Target.of(scan, tiny())
    assert (target.grid, target.source, target.scan) == (scan.grid, scan.source, None)
    assert Target.of(scan, tiny(**DIVIDED)).scan is scan


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_zeros_are_writable(dtype):
    array = zeros((3, 4, 5), dtype)
    assert array.shape == (3, 4, 5)
    assert array.dtype == dtype
    assert array.flags.f_contiguous
    assert not array.any()
    array[1, 2, 3] = 7
    assert array.sum() == 7
    assert zeros((0, 4, 5), dtype).size == 0


def test_too_large_an_array_of_zeros_is_a_memory_error():
    with pytest.raises(MemoryError, match="no memory for"):
        zeros((1 << 40, 1 << 20, 1), np.uint8)


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_left_as_it_was(enabled):
    (gc.enable if enabled else gc.disable)()
    try:
        with no_gc():
            assert not gc.isenabled()
        assert gc.isenabled() is enabled
    finally:
        gc.unfreeze()
        gc.enable()
