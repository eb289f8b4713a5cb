"""How often each value occurs in an array of small whole numbers, such as a label map."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

VALUES = 65536
_AT_ONCE = 1 << 20


def value_counts(array: npt.NDArray[np.integer | np.bool_]) -> npt.NDArray[np.int64]:
    """How many elements have each value: int64, shape (65536,).

    One pass in memory order, block by block, because ``numpy.bincount`` converts every element to int64. Most
    zeros of a mask, which is mostly background, are counted eight bytes at a time.

    Args:
        array: Integers from 0 to 65535, any shape.
    """
    flat = array.ravel(order="K")
    counts = np.zeros(VALUES, np.int64)
    for start in range(0, flat.size, _AT_ONCE):
        block = flat[start : start + _AT_ONCE]
        some = _without_empty_words(block)
        counts += np.bincount(some, minlength=VALUES)
        counts[0] += block.size - some.size
    return counts


def _without_empty_words(block: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The elements of a contiguous block, but those in words of eight bytes that are all 0."""
    whole = block.size - block.size % 8
    words = block[:whole].view(np.uint64)
    return np.concatenate([words[words != 0].view(block.dtype), block[whole:]])
