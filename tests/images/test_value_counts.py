import tracemalloc

import numpy as np
import pytest

from medseg.images.value_counts import value_counts


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.uint16, np.int32])
def test_every_value_is_counted_in_any_memory_layout(dtype):
    array = np.zeros((4, 5, 6), dtype)
    array[0, :, :2] = 1  # 10 voxels
    if dtype not in (np.bool_, np.uint8):
        array[3, 4, 5] = 65535
    for stored in (array, np.asfortranarray(array), array[::-1, :, ::-1], array.transpose(2, 0, 1)):
        counts = value_counts(stored)
        assert counts.shape == (65536,)
        assert counts[1] == 10
        assert counts[65535] == (dtype not in (np.bool_, np.uint8))
        assert counts.sum() == 120


def test_an_empty_array_has_no_counts():
    assert value_counts(np.zeros((0, 3), np.uint8)).sum() == 0


def test_many_voxels_take_no_more_memory_than_few():
    array = np.ones((64, 512, 512), np.uint8)  # 16 MB; as int64 128 MB
    tracemalloc.start()
    counts = value_counts(array)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert counts[1] == array.size
    assert most < 16 << 20
