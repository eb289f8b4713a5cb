import numpy as np
import pytest

from medseg.errors import InputRefused, InputWarning
from medseg.io.rescaling import narrowed, rescaled

NUMBERS = np.arange(24, dtype=np.int16).reshape(2, 3, 4) - 5


def orders(array):
    """The same numbers in every memory order, and as a view with gaps."""
    gaps = np.zeros(tuple(2 * n for n in array.shape), array.dtype)
    gaps[::2, ::2, ::2] = array
    return [
        array,
        np.asfortranarray(array),
        array.transpose(1, 0, 2).copy().transpose(1, 0, 2),
        gaps[::2, ::2, ::2],
    ]


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype"),
    [(1, -1024, np.int16), (3.0, 70000.0, np.int32), (0.5, 0.25, np.float32), (1e9, 0, np.float32)],
)
def test_every_memory_order_gives_the_same_numbers(slope, intercept, dtype):
    # float64 holds all of these exactly; float32 rounds the last row once.
    expected = (NUMBERS.astype(np.float64) * slope + intercept).astype(dtype)
    for stored in orders(NUMBERS):
        found = rescaled(stored, slope, intercept)
        assert np.array_equal(found, expected)
        assert found.dtype == dtype


def test_without_rescaling_nothing_is_copied():
    for stored in (NUMBERS, NUMBERS.astype(np.float32)):
        assert rescaled(stored) is stored or np.shares_memory(rescaled(stored), stored)


def test_products_that_leave_int64_still_sum_up_right():
    # 2^40 x 2^30 = 2^70 leaves int64; less 2^70 it is 0 again.
    stored = np.array([[[2**40, 2**40 + 0]]], np.int64)
    assert rescaled(stored, 2.0**30, -(2.0**70)).ravel().tolist() == [0, 0]


def test_the_largest_unsigned_integers_stay():
    stored = np.array([[[2**64 - 1, 0]]], np.uint64)
    assert rescaled(stored).ravel().tolist() == [2**64 - 1, 0]
    assert narrowed(np.array([65535, 0], np.uint64)).dtype == np.uint16


def test_scaling_is_computed_in_float64():
    # 16777217 = 2^24 + 1 is not a float32; 16777217 x 0.1 is 1677721.7, and the float32 next to it
    # is 1677721.75. In float32 throughout it would be 16777216 x 0.1f = 1677721.625 or .75.
    stored = np.array([[[16777217, -16777217]]], np.int32)
    assert rescaled(stored, 0.1, 100.0).tolist() == np.float32([[[1677821.7, -1677621.7]]]).tolist()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_holes_are_counted_in_every_order(dtype):
    array = NUMBERS.astype(dtype)
    array[1, 2, 1:] = (np.nan, np.inf, -np.inf)
    for stored in orders(array):
        with pytest.raises(InputRefused, match="3 of 24") as caught:
            rescaled(stored)
        assert caught.value.reason == "not-finite"
        with pytest.warns(InputWarning, match="a.nii: 3 of 24"):
            found = rescaled(stored, nonfinite=7, where="a.nii")
        assert found.dtype == np.float32
        assert found.dtype.isnative
        assert found[1, 2].tolist() == [NUMBERS[1, 2, 0], 7, 7, 7]
        assert np.array_equal(found[0], NUMBERS[0])
    assert np.isnan(array[1, 2, 1])  # the caller's numbers are left alone


@pytest.mark.parametrize(
    ("dtype", "name"), [(np.complex64, "complex64"), ([("r", "u1"), ("g", "u1")], "RGB")]
)
def test_voxels_that_are_not_one_number_each_are_refused(dtype, name):
    with pytest.raises(InputRefused, match=name) as caught:
        rescaled(np.zeros((1, 1, 1), dtype))
    assert caught.value.reason == "pixel-type"
