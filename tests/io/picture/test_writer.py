"""Masks and scans written as pictures: other libraries must see the same rows and columns."""

import numpy as np
import pytest
import tifffile
from PIL import Image

import medseg
from medseg.errors import UsageError

ROWS = np.array([[0, 1, 2], [3, 4, 5]], np.uint8)
GRID = medseg.Grid((3, 2, 1), np.diag([-1.0, -1.0, 1.0, 1.0]))


def a_mask(array=ROWS):
    return medseg.Mask(array.T[..., None], GRID, (medseg.Label(name="cell", values=(1,)),))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".PNG"])
def test_other_libraries_read_the_same_rows(tmp_path, dtype, suffix):
    array = ROWS.astype(dtype) * (1 if dtype == np.uint8 else 300)
    path = medseg.write(a_mask(array), tmp_path / f"m{suffix}")
    with Image.open(path) as image:
        assert image.size == (3, 2)
        assert image.mode in ("L", "I;16")
        assert np.array_equal(np.asarray(image), array)
    if suffix.startswith(".t"):
        assert np.array_equal(tifffile.imread(path), array)
    back = medseg.read_mask(path, ())
    assert np.array_equal(back.array, a_mask(array).array)
    assert back.grid.same_as(GRID)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_equal_masks_give_equal_bytes(tmp_path, suffix):
    one, two = (medseg.write(a_mask(), tmp_path / f"{name}{suffix}").read_bytes() for name in "ab")
    assert one == two


@pytest.mark.parametrize("axcodes", ["RAS", "LAS", "PLS", "LPI", "AIR"])
def test_a_mask_in_any_order_of_axes_is_written_upright(tmp_path, axcodes):
    path = medseg.write(a_mask().oriented(axcodes), tmp_path / "m.png")
    assert np.array_equal(np.asarray(Image.open(path)), ROWS)


def test_several_planes_and_jpeg_are_refused(tmp_path):
    thick = medseg.Mask(np.zeros((3, 2, 2), np.uint8), medseg.Grid((3, 2, 2), np.eye(4)), ())
    with pytest.raises(UsageError, match="this image has 2") as caught:
        medseg.write(thick, tmp_path / "m.png")
    assert caught.value.reason == "format"
    for name in ("m.jpg", "m.jpeg"):
        with pytest.raises(UsageError, match="no format has the suffix"):
            medseg.write(a_mask(), tmp_path / name)


def test_real_numbers_need_tiff(tmp_path):
    scan = medseg.Volume(ROWS.T[..., None].astype(np.float32) / 4, GRID)
    with pytest.raises(UsageError, match="not float32"):
        medseg.write(scan, tmp_path / "s.png")
    assert np.array_equal(tifffile.imread(medseg.write(scan, tmp_path / "s.tif")), ROWS / 4)
