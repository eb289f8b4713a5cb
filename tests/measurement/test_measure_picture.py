from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from medseg.errors import UsageError
from medseg.images.palette import VERMILLION
from medseg.images.volume import Mask, Volume
from medseg.measurement.measure_picture import draw_measures
from medseg.measurement.scan_measurement import measure
from medseg.phantom.thorax import LABELS, Thorax, default_grid

GRID = default_grid((6.0, 7.0, 8.0), "LPS")
SCAN, TRUTH = Thorax().scan(GRID), Thorax().truth(GRID)
LUNGS = Mask(TRUTH.array, GRID, LABELS[:2])
RED = np.array([int(VERMILLION[at : at + 2], 16) for at in (1, 3, 5)])


def dark_columns(picture: bytes) -> np.ndarray:
    """Columns of the plane, 0 to 1 across the picture, with voxels below the threshold."""
    pixels = np.asarray(Image.open(BytesIO(picture)).convert("RGB")).astype(int)
    plane = pixels[:, : pixels.shape[1] * 3 // 10]
    return np.flatnonzero((np.abs(plane - RED).max(axis=2) < 12).any(axis=0)) / plane.shape[1]


@pytest.mark.parametrize("axcodes", ["LPS", "RAS", "SAR"])
def test_low_attenuation_of_the_right_lung_is_on_the_left_of_the_picture(axcodes):
    array = np.maximum(SCAN.array, -900)
    array[np.isin(TRUTH.array, (1, 3))] = -980
    scan, mask = Volume(array, GRID).oriented(axcodes), LUNGS.oriented(axcodes)
    columns = dark_columns(draw_measures(measure(scan, mask), scan, mask))
    assert len(columns) > 20
    assert columns.max() < 0.55
    assert not len(dark_columns(draw_measures(measure(scan, mask), Volume(scan.array * 0, scan.grid), mask)))


def test_the_picture_is_written_too(tmp_path):
    found = measure(SCAN, LUNGS)
    picture = draw_measures(found, SCAN, LUNGS, tmp_path / "measures.png")
    assert (tmp_path / "measures.png").read_bytes() == picture


def test_without_lungs_there_is_nothing_to_draw():
    with pytest.raises(UsageError) as refused:
        draw_measures(measure(SCAN, LUNGS, kind="structures"), SCAN, LUNGS)
    assert refused.value.reason == "measure"
