"""How often each value occurs in an array of small whole numbers, such as a label map."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

VALUES = 65536
_AT_ONCE = 1 << 20


def value_counts(array: npt.NDArray[np.integer | np.bool_]) -> npt.NDArray[np.int64]:
    """int64 (65536,): how many elements have each value.

    One pass in the order of memory, a piece at a time: ``numpy.bincount`` makes eight bytes of each element.

    Args:
        array: Whole numbers from 0 to 65535, any shape.
    """
    flat = array.ravel(order="K")
    counts = np.zeros(VALUES, np.int64)
    for start in range(0, flat.size, _AT_ONCE):
        counts += np.bincount(flat[start : start + _AT_ONCE], minlength=VALUES)
    return counts
