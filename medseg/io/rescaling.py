"""Lossless rescaling of stored numbers to intensities."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medseg.errors import InputRefused, UsageError
from medseg.images.volume import Voxels
from medseg.system.notices import notify

_INTEGERS = (np.int16, np.uint16, np.int32)
# Voxels per block, so that float64 and int64 intermediates stay at a few megabytes.
_BLOCK = 1 << 20


def rescaled(
    stored: Voxels,
    slope: float = 1.0,
    intercept: float = 0.0,
    *,
    nonfinite: float | None = None,
    where: Path | None = None,
) -> Voxels:
    """Intensities ``stored * slope + intercept`` in the smallest lossless dtype.

    Args:
        stored: Integers or floats of any width.
        slope: Factor; 1 if the file has none.
        intercept: Added after the factor; 0 if the file has none.
        nonfinite: The replacement for NaN and infinite voxels, in the unit of the result; None
            to refuse them.
        where: The file, for the notice.

    Returns:
        The array itself if nothing has to be done; int16, uint16 or int32 if slope and
        intercept are whole numbers (HU stay integers); otherwise float32. Never float64:
        scanners deliver at most 16 bits, and float32 holds 24.

    Raises:
        InputRefused: complex or RGB numbers (``pixel-type``), NaN or infinite ones
            (``not-finite``), or a result beyond float32 (``range``).
        UsageError: ``nonfinite`` is itself NaN or infinite (``nonfinite``).
    """
    if nonfinite is not None and not math.isfinite(nonfinite):
        raise UsageError(
            f"{nonfinite} cannot replace NaN and infinite voxels: it is not finite itself",
            remedy="choose a number such as -1024",
            reason="nonfinite",
        )
    if stored.dtype.kind not in "iufb":
        kind = "RGB" if stored.dtype.kind == "V" else str(stored.dtype)
        raise InputRefused(
            f"the voxels are {kind}, not one number each",
            reason="pixel-type",
            remedy="convert the scan to one grey value per voxel",
        )
    slope, intercept = float(slope), float(intercept)
    scaled = (slope, intercept) != (1.0, 0.0)
    if stored.dtype.kind == "f" or (scaled and not (slope.is_integer() and intercept.is_integer())):
        return _floats(stored, slope, intercept, nonfinite, where)
    if not scaled:
        native = stored.astype(stored.dtype.newbyteorder("="), copy=False)
        return native if native.dtype.itemsize <= 2 else narrowed(native)
    return _whole(stored, int(slope), int(intercept))


def narrowed(array: Voxels) -> Voxels:
    """The same integers in the first of int16, uint16, int32 that holds them; otherwise unchanged."""
    low, high = int(array.min()), int(array.max())
    dtype = _holding(low, high)
    return array if dtype is None else array.astype(dtype, copy=False)


def _whole(stored: Voxels, slope: int, intercept: int) -> Voxels:
    """Integer rescaling; float32 if the result exceeds int32."""
    ends = [int(end) * slope + intercept for end in (stored.min(), stored.max())]
    dtype = _holding(min(ends), max(ends))
    if dtype is None:
        return _floats(stored, float(slope), float(intercept), None, None)
    out = np.empty_like(stored, dtype)
    for source, target in _blocks(stored, out):
        # Modular int64 arithmetic: stored * slope may wrap around, but the sum fits and is correct.
        with np.errstate(over="ignore"):
            target[...] = source.astype(np.int64) * _wrapped(slope) + _wrapped(intercept)
    return out


def _wrapped(number: int) -> np.int64:
    """``number`` modulo 2^64, as int64."""
    return np.int64((number + (1 << 63)) % (1 << 64) - (1 << 63))


def _floats(
    stored: Voxels, slope: float, intercept: float, nonfinite: float | None, where: Path | None
) -> Voxels:
    """float32, computed in float64; NaN and infinite voxels are replaced or refused."""
    scaled = (slope, intercept) != (1.0, 0.0)
    as_is = not scaled and stored.dtype == np.float32
    out: Voxels = np.empty_like(stored, np.float32) if not as_is else stored
    holes = beyond = 0
    for source, target in _blocks(stored, out):
        bad = ~np.isfinite(source)
        holes += int(np.count_nonzero(bad))
        if as_is:
            continue
        # float32(1e300) overflows to infinity, with a warning that the count below replaces.
        with np.errstate(over="ignore", invalid="ignore"):
            target[...] = source.astype(np.float64) * slope + intercept if scaled else source
        beyond += int(np.count_nonzero(~np.isfinite(target) & ~bad))
        if nonfinite is not None:
            target[bad] = nonfinite
    if beyond:
        raise InputRefused(
            f"{beyond} of {stored.size} voxels exceed {np.finfo(np.float32).max:.2g},"
            " the largest single-precision number",
            reason="range",
            remedy="check the scale factor in the header; no scanner delivers such values",
        )
    if not holes:
        return out
    problem = f"{holes} of {stored.size} voxels are NaN or infinite (not finite)"
    if nonfinite is None:
        raise InputRefused(
            problem,
            reason="not-finite",
            remedy="replace them by the value of background: --nonfinite -1024 for CT, 0 for MR",
        )
    notify("not-finite-replaced", f"{problem}; replaced by {nonfinite:g}", path=where)
    if as_is:
        out = stored.copy(order="K")
        for _, target in _blocks(stored, out):
            target[~np.isfinite(target)] = nonfinite
    return out


def _blocks(source: Voxels, target: Voxels) -> Iterator[tuple[Voxels, Voxels]]:
    """Matching flat blocks of two arrays with the same shape and memory order; views of ``target``."""
    if target.flags.f_contiguous:
        source, target = source.T, target.T
    if not (source.flags.c_contiguous and target.flags.c_contiguous):
        yield from ((source[i : i + 1], target[i : i + 1]) for i in range(len(source)))
        return
    source, target = source.reshape(-1), target.reshape(-1)
    for start in range(0, source.size, _BLOCK):
        yield source[start : start + _BLOCK], target[start : start + _BLOCK]


def _holding(low: int, high: int) -> npt.DTypeLike | None:
    """The first of int16, uint16, int32 that holds low..high."""
    for dtype in _INTEGERS:
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return dtype
    return None
