"""Mask pictures: label values, palettes and colours."""

import numpy as np
import pytest
from PIL import Image
from support.pictures import png

import medseg
from medseg.errors import InputRefused, UsageError
from medseg.io.picture.masks import MaskCoding

CELL, SCRATCH = medseg.Label(name="cell", values=(1,)), medseg.Label(name="scratch", values=(2,))
TWO = (CELL, SCRATCH)
VALUES = np.array([[0, 1, 2], [2, 0, 0]], np.uint8)
RED, GREEN, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 0)
COLOURS = MaskCoding({"cell": "#ff0000", "scratch": "#00FF00"})


def saved(tmp_path, array, name="m.png", **options):
    Image.fromarray(np.asarray(array)).save(tmp_path / name, **options)
    return tmp_path / name


def read(path, labels=TWO, **options):
    with medseg.collect_notices() as notices:
        mask = medseg.read_mask(path, labels, **options)
    return mask.array[..., 0].T, [each.reason for each in notices]


@pytest.mark.parametrize("name", ["m.png", "m.tif"])
def test_grey_values_are_labels(tmp_path, name):
    values, reasons = read(saved(tmp_path, VALUES, name))
    assert np.array_equal(values, VALUES)
    assert reasons == []


def test_16_bit_values_are_labels(tmp_path):
    values, _ = read(saved(tmp_path, VALUES.astype(np.uint16) * 300))
    assert np.array_equal(values, VALUES.astype(int) * 300)


def test_numbers_of_a_palette_are_labels_whatever_their_colours(tmp_path):
    image = Image.fromarray(VALUES).convert("P")
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    image.putdata(VALUES.ravel().tolist())
    image.save(tmp_path / "m.png", transparency=0)
    values, _ = read(tmp_path / "m.png")
    assert np.array_equal(values, VALUES)


def test_grey_of_two_bits_holds_small_numbers(tmp_path):
    path = tmp_path / "m.png"
    path.write_bytes(png(4, 1, 2, 0, bytes([0b00_01_10_11])))
    assert read(path)[0].tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_0_and_the_largest_value_are_one_label_with_a_notice(tmp_path, dtype):
    top = np.iinfo(dtype).max
    path = saved(tmp_path, np.where(VALUES == 1, top, 0).astype(dtype))
    for labels, value in (((CELL,), 1), ((), 1), ((SCRATCH,), 2)):
        values, reasons = read(path, labels)
        assert values.tolist() == [[0, value, 0], [0, 0, 0]]
        assert reasons == ["binary-mask"]
    own = medseg.Label(name="cell", values=(int(top),))
    assert read(path, (own,))[0].max() == top
    assert read(path, TWO, coding=MaskCoding(ignore_value=int(top)))[0].max() == top


@pytest.mark.parametrize("name", ["m.png", "m.tif"])
def test_a_mask_of_one_bit_needs_no_word(tmp_path, name):
    values, reasons = read(saved(tmp_path, VALUES == 1, name), (CELL,))
    assert values.tolist() == [[0, 1, 0], [0, 0, 0]]
    assert reasons == []


def test_other_values_beside_255_are_kept(tmp_path):
    values, reasons = read(saved(tmp_path, np.array([[0, 128, 255]], np.uint8)))
    assert values.tolist() == [[0, 128, 255]]
    assert reasons == []


def test_colours_of_a_table_are_labels(tmp_path):
    path = saved(tmp_path, np.array([[BLACK, RED, GREEN], [GREEN, BLACK, BLACK]], np.uint8))
    values, reasons = read(path, coding=COLOURS)
    assert np.array_equal(values, VALUES)
    assert reasons == []


def test_a_palette_is_read_by_its_colours_if_there_is_a_table(tmp_path):
    image = Image.new("P", (3, 1))
    image.putpalette([0, 255, 0, 9, 9, 9, 255, 0, 0, 0, 0, 0])  # unused: 1
    image.putdata([2, 0, 3])
    image.save(tmp_path / "m.png")
    assert read(tmp_path / "m.png", coding=COLOURS)[0].tolist() == [[1, 2, 0]]


def test_background_and_unknown_pixels_may_have_colours(tmp_path):
    coding = MaskCoding({"cell": "#ff0000", "background": "#ffffff", "ignore": "#000000"}, ignore_value=9)
    path = saved(tmp_path, np.array([[(255, 255, 255), RED, BLACK]], np.uint8))
    assert read(path, (CELL,), coding=coding)[0].tolist() == [[0, 1, 9]]


def test_a_grey_mask_is_read_by_a_table_of_greys(tmp_path):
    coding = MaskCoding({"cell": "#808080", "scratch": "#ffffff"})
    path = saved(tmp_path, np.array([[0, 128, 255]], np.uint8))
    assert read(path, coding=coding)[0].tolist() == [[0, 1, 2]]


def test_a_colour_that_is_not_in_the_table_is_refused_by_name_number_and_place(tmp_path):
    odd = np.array([[BLACK, RED, (1, 2, 3)], [(254, 0, 0), (1, 2, 3), BLACK]], np.uint8)
    with pytest.raises(InputRefused) as caught:
        read(saved(tmp_path, odd), coding=COLOURS)
    assert caught.value.reason == "unknown-colour"
    assert "#010203 in 2 pixel(s), first at column 2, row 0" in str(caught.value)
    assert "#fe0000 in 1 pixel(s), first at column 0, row 1" in str(caught.value)


def test_colours_without_a_table_are_refused(tmp_path):
    with pytest.raises(InputRefused, match="2 colours such as #000000, #ff0000") as caught:
        read(saved(tmp_path, np.array([[BLACK, BLACK, RED]], np.uint8)))
    assert caught.value.reason == "colour-mask"
    assert "colours:" in str(caught.value)


def test_values_in_three_equal_channels_are_labels(tmp_path):
    assert np.array_equal(read(saved(tmp_path, np.stack([VALUES] * 3, -1)))[0], VALUES)


@pytest.mark.parametrize(
    ("colours", "problem"),
    [
        ({"tree": "#00ff00"}, "'tree' is not a label"),
        ({"cell": "red"}, "'red' is not a colour"),
        ({"cell": "#00ff00", "scratch": "#00FF00"}, "two names have the colour"),
        ({"ignore": "#00ff00"}, "needs ignore_value"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tmp_path, colours, problem):
    path = saved(tmp_path, np.array([[BLACK, RED]], np.uint8))
    with pytest.raises(UsageError, match=problem) as caught:
        read(path, coding=MaskCoding(colours))
    assert caught.value.reason == "colours"


@pytest.mark.parametrize("options", [{"name": "m.jpg"}, {"name": "m.tif", "compression": "jpeg"}])
def test_lossy_masks_are_refused(tmp_path, options):
    with pytest.raises(InputRefused, match="compressed with loss") as caught:
        read(saved(tmp_path, np.zeros((16, 16), np.uint8), **options))
    assert caught.value.reason == "lossy-mask"


def test_a_mask_lies_on_the_grid_of_a_scan_of_its_size(tmp_path):
    scan = medseg.read(saved(tmp_path, VALUES, "scan.png"), pixel_mm=0.25)
    mask = medseg.read_mask(saved(tmp_path, VALUES), TWO, scan)
    assert mask.grid.same_as(scan.grid)
    other = medseg.read(saved(tmp_path, VALUES.T, "scan.png"))
    assert medseg.read_mask(saved(tmp_path, VALUES), TWO, other).grid.shape == (3, 2, 1)
    # A scan with the same numbers of voxels that is no picture is not guessed at.
    flipped = medseg.Grid((3, 2, 1), np.diag([1.0, 1.0, 1.0, 1.0]))
    assert not medseg.read_mask(saved(tmp_path, VALUES), TWO, flipped).grid.same_as(flipped)
