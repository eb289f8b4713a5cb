from __future__ import annotations

import numpy as np
import pytest
from support.worlds import tiny, untrained

from medseg.errors import InputRefused
from medseg.images.volume import Volume
from medseg.inference.scan_checks import check_finite
from medseg.inference.segmenter import Segmenter
from medseg.phantom.thorax import Thorax, default_grid

SCAN = Thorax().scan(default_grid((8.0, 8.0, 10.0)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_volume_with_a_voxel_that_is_not_finite_is_refused(value, dtype):
    array = np.array(SCAN.array, dtype)
    array[2, 2, 2] = value
    with pytest.raises(InputRefused, match=f"1 of {array.size} voxels are NaN or infinite") as caught:
        Segmenter(untrained(tiny()), engine="torch")(Volume(array, SCAN.grid))
    assert caught.value.reason == "not-finite"


def test_every_channel_is_checked():
    broken = np.full(SCAN.grid.shape, np.nan, np.float32)
    with pytest.raises(InputRefused, match=f"{broken.size} of {broken.size}"):
        check_finite([SCAN, Volume(broken, SCAN.grid)])


def test_finite_and_integer_volumes_pass():
    check_finite([SCAN, Volume(np.array(SCAN.array, np.float32), SCAN.grid)])
