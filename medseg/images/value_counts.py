"""How often each value occurs in an array of small whole numbers, such as a label map."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

VALUES = 65536
_AT_ONCE = 1 << 20


def value_counts(array: npt.NDArray[np.integer | np.bool_]) -> npt.NDArray[np.int64]:
    """How many elements have each value: int64, shape (65536,).

    One pass in memory order, block by block, because ``numpy.bincount`` converts every element to int64.

    Args:
        array: Integers from 0 to 65535, any shape.
    """
    flat = array.ravel(order="K")
    counts = np.zeros(VALUES, np.int64)
    for start in range(0, flat.size, _AT_ONCE):
        counts += np.bincount(flat[start : start + _AT_ONCE], minlength=VALUES)
    return counts
