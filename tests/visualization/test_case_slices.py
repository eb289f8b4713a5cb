"""Slices of a case: the right is on the left, head first, contours where the mask ends."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from medseg import Grid, Label, Mask, Volume
from medseg.visualization.case_slices import case_slices

LABELS = (Label(name="a", values=(1,)), Label(name="b", values=(2,)))


def pixels(slice_picture) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(slice_picture["image"]))).convert("RGB")).astype(
        int
    )


def patient() -> tuple[Volume, Mask]:
    """160 x 120 x 160 mm: label 1 at the right, front and top; label 2 at the left, front and top."""
    array = np.zeros((80, 60, 40), np.uint8)
    array[50:70, 40:50, 10:34] = 1
    array[10:30, 40:50, 10:34] = 2
    grid = Grid(array.shape, np.diag([2.0, 2.0, 4.0, 1.0]))
    return Volume(np.full(array.shape, -1000, np.int16), grid), Mask(array, grid, LABELS)


@pytest.mark.parametrize("axcodes", ["RAS", "LPI", "SAL"])
def test_right_is_left_and_head_comes_first(axcodes):
    scan, mask = patient()
    found = case_slices(scan.oriented(axcodes), mask.oriented(axcodes), count=6)
    # 24 slices from 10 to 33 in six equal parts of 4: the middles by hand, counted from 1.
    assert [each["number"] for each in found] == [32, 28, 24, 20, 16, 12]
    assert [each["mm"] for each in found] == [124, 108, 92, 76, 60, 44]
    assert {each["of"] for each in found} == {40}
    picture = pixels(found[0])
    # x from 10 to 70 voxels with 10 voxels of margin: 160 mm; y from 40 to 50 with 10 around: 60 mm.
    assert picture.shape[1] == 448
    assert picture.shape[0] == pytest.approx(448 * 60 / 160, abs=1)
    blue, orange = (np.argwhere(side * (picture[..., 2] - picture[..., 0]) > 40) for side in (1, -1))
    assert blue[:, 1].mean() < 224 < orange[:, 1].mean()
    # The blue contour ends where the label ends: 20 mm to 60 mm from the left border, 2.8 pixels in a mm.
    assert blue[:, 1].min() == pytest.approx(20 * 2.8, abs=2)
    assert blue[:, 1].max() == pytest.approx(60 * 2.8, abs=2)


def test_an_empty_mask_shows_the_whole_scan():
    scan, mask = patient()
    found = case_slices(scan, Mask(np.zeros_like(mask.array), mask.grid, LABELS), count=4)
    assert [each["number"] for each in found] == [35, 25, 15, 5]
    assert pixels(found[0]).shape == (336, 448, 3)


def test_a_single_labelled_slice_is_one_picture():
    scan, mask = patient()
    one = np.where(np.arange(40) == 12, mask.array, 0)
    (only,) = case_slices(scan, Mask(one, mask.grid, LABELS))
    assert only["number"] == 13


def test_letters_and_a_scale_are_drawn():
    scan, mask = patient()
    picture = pixels(case_slices(scan, mask, count=1)[0])
    bright = picture.min(-1) > 180
    assert bright[:, :20].any()  # R
    assert bright[:, -20:].any()  # L
    assert bright[:20, 200:248].any()  # A
    scale = bright[-8:].sum(1).max()
    assert scale == pytest.approx(50 * 2.8, abs=6)
