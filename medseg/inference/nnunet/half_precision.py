"""Rounding of 32-bit floats to the values of 16-bit floats, without converting them.

NumPy converts between the two one number at a time, and slowly where numbers are below the smallest normal
16-bit float, as most weighted logits at the rim of a window are. Adding and subtracting a large number
rounds as many numbers as the processor's registers hold.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float32]

_EXPONENT = np.uint32(0x7F800000)
_SMALLEST_NORMAL = np.float32(2.0**-14)  # below it, 16-bit floats are multiples of 2**-24
_SHIFT = np.float32(1.5 * 2**13)  # 32-bit floats have 13 more binary digits
_PORTION = 1 << 15  # numbers at a time, so that temporary ones stay in the processor's cache


def round_to_half(values: Floats) -> None:
    """Replaces each number by the nearest 16-bit float, the even one of two, in place.

    If x lies in [2**e, 2**(e + 1)), x + 1.5 * 2**(e + 13) lies where 32-bit floats are 2**(e - 10) apart, as
    16-bit floats are at x. Numbers from 65520 on become finite multiples of 32 instead of infinity, and -0
    becomes 0.

    Args:
        values: float32 of any shape with at least one axis; every portion along its first axis is changed.
    """
    rows = max(1, _PORTION // max(1, values[0].size)) if len(values) else 1
    for first in range(0, len(values), rows):
        part = values[first : first + rows]
        large = np.empty(part.shape, dtype=np.float32)
        np.bitwise_and(part.view(np.uint32), _EXPONENT, out=large.view(np.uint32))
        np.maximum(large, _SMALLEST_NORMAL, out=large)
        large *= _SHIFT
        part += large
        part -= large
