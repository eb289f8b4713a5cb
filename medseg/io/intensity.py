"""Stored numbers to intensities: rescaling without losing or inventing precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.errors import InputRefused
from medseg.volume import Voxels

_INTEGERS = (np.int16, np.uint16, np.int32)


def rescaled(stored: Voxels, slope: float = 1.0, intercept: float = 0.0) -> Voxels:
    """Intensities: ``stored * slope + intercept`` in the smallest dtype that loses nothing.

    Args:
        stored: Integers or floats of any width.
        slope: Factor; 1 when the file has none.
        intercept: Added after the factor; 0 when the file has none.

    Returns:
        The array itself when there is nothing to do; int16, uint16 or int32 when slope and
        intercept are whole numbers (HU stay integers); otherwise float32. Never float64:
        scanners deliver at most 16 bits, and float32 holds 24.

    Raises:
        InputRefused: the numbers are complex or RGB (``pixel-type``), or some are NaN or
            infinite (``not-finite``).
    """
    if stored.dtype.kind not in "iufb":
        kind = "RGB" if stored.dtype.kind == "V" else str(stored.dtype)
        raise InputRefused(
            f"the voxels are {kind}, not one number each",
            reason="pixel-type",
            remedy="convert the scan to one grey value per voxel",
        )
    scaled = (slope, intercept) != (1.0, 0.0)
    if stored.dtype.kind == "f":
        # Overflow to infinity is caught by the finite check below.
        with np.errstate(over="ignore", invalid="ignore"):
            array = stored.astype(np.float32, copy=False)
            return _finite(array * np.float32(slope) + np.float32(intercept) if scaled else array)
    if scaled and not (float(slope).is_integer() and float(intercept).is_integer()):
        return _finite(stored.astype(np.float32) * np.float32(slope) + np.float32(intercept))
    if not scaled:
        native = stored.astype(stored.dtype.newbyteorder("="), copy=False)
        return native if native.dtype.itemsize <= 2 else narrowed(native)
    return _whole(stored, int(slope), int(intercept))


def narrowed(array: Voxels) -> Voxels:
    """The same integers as int16, uint16 or int32, the first that holds them; else unchanged."""
    low, high = int(array.min()), int(array.max())
    dtype = _holding(low, high)
    return array if dtype is None else array.astype(dtype, copy=False)


def _whole(stored: Voxels, slope: int, intercept: int) -> Voxels:
    """Integer rescaling; float32 where the result leaves int32."""
    ends = [int(end) * slope + intercept for end in (stored.min(), stored.max())]
    dtype = _holding(min(ends), max(ends))
    if dtype is None:
        return stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    # int64 in between, because stored * slope may not fit where the sum does.
    return (stored.astype(np.int64) * slope + intercept).astype(dtype)


def _holding(low: int, high: int) -> npt.DTypeLike | None:
    """The first of int16, uint16, int32 that holds low..high."""
    for dtype in _INTEGERS:
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return dtype
    return None


def _finite(array: npt.NDArray[Any]) -> Voxels:
    bad = array.size - int(np.count_nonzero(np.isfinite(array)))
    if bad:
        raise InputRefused(
            f"{bad} of {array.size} voxels are NaN or infinite",
            reason="not-finite",
            remedy="replace them by the value that means outside, such as -1024 HU",
        )
    return array
