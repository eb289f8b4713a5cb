"""Numbers are rounded to 16-bit floats as the processor and NumPy round them."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.inference.nnunet.half_precision import round_to_half


def every_half() -> np.ndarray:
    """All finite 16-bit floats, as 32-bit ones, in order."""
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    return np.unique(halves[np.isfinite(halves)])


def test_every_half_stays():
    values = every_half()
    round_to_half(values)
    np.testing.assert_array_equal(values, every_half())


def test_ties_between_neighbours_and_the_numbers_beside_them_are_rounded_as_by_numpy():
    halves = every_half()
    middle = (halves[1:] + halves[:-1]) / 2
    for values in (middle, np.nextafter(middle, np.float32(-1e9)), np.nextafter(middle, np.float32(1e9))):
        expected = values.astype(np.float16).astype(np.float32)
        assert np.isfinite(expected).all()
        round_to_half(values)
        np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize("shape", [(0, 3), (1, 100, 1000), (7, 33, 5), (100000,), (2, 0)])
def test_numbers_of_every_size_and_arrays_of_every_shape(shape):
    rng = np.random.default_rng(3)
    values = (np.exp2(rng.uniform(-40, 15.9, shape)) * rng.choice([-1, 1], shape)).astype(np.float32)
    expected = values.astype(np.float16).astype(np.float32)
    round_to_half(values)
    np.testing.assert_array_equal(values, expected)


def test_a_view_is_changed_in_place():
    whole = np.full((4, 6, 6), 1 + 2**-12, dtype=np.float32)
    round_to_half(whole[1:3, ::2, 1:4])
    changed = np.zeros(whole.shape, dtype=bool)
    changed[1:3, ::2, 1:4] = True
    np.testing.assert_array_equal(whole, np.where(changed, np.float32(1), np.float32(1 + 2**-12)))
