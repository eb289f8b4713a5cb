"""The core of a mask: what lies deeper than a distance, exactly, in little memory.

A distance transform of a lung takes seconds and 16 bytes per voxel. Here a voxel is one bit: the mask is
eroded by a ball as the intersection of shifted rows, each first eroded along the fastest axis.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Binary = npt.NDArray[np.bool_]
Words = npt.NDArray[np.uint64]

_WORD = np.dtype("<u8")  # with packbits' little order, voxel n of a row is bit n of its words

# Products of indices and spacing are rounded; a voxel at the distance itself is no longer core.
_ROUNDING_MM = 1e-6


def core(mask: Binary, spacing_mm: Sequence[float], depth_mm: float) -> Binary:
    """The voxels whose centre is farther than ``depth_mm`` from the centre of every voxel outside.

    It equals ``scipy.ndimage.distance_transform_edt(mask, sampling=spacing_mm) > depth_mm`` on a mask padded
    with background: the edge of the array counts as outside.

    Args:
        mask: bool (X, Y, Z).
        spacing_mm: Voxel size along the three axes.
        depth_mm: 0 or more; 0 gives the mask itself.

    Returns:
        bool (X, Y, Z).
    """
    # Rows run along the axis with the smallest voxels, along which erosion is cheapest; of equal ones along
    # the first, which is the fastest in memory.
    order = sorted(range(3), key=lambda axis: (-round(spacing_mm[axis], 3), -axis))
    slow_mm, middle_mm, fast_mm = (float(spacing_mm[axis]) for axis in order)
    planes, rows, length = (mask.shape[axis] for axis in order)
    reach = depth_mm + _ROUNDING_MM
    above, beside = min(int(reach / slow_mm), planes), min(int(reach / middle_mm), rows)
    # Background around planes and rows, so that a shift is an offset into flat memory; and a bit of it behind
    # every row, so that a shift by one bit brings nothing from the row before.
    words = length // 64 + 1
    packed = np.zeros((planes + 2 * above, rows + 2 * beside, words), _WORD)
    bits = np.packbits(np.ascontiguousarray(mask.transpose(order)), axis=2, bitorder="little")
    packed.view(np.uint8)[above : above + planes, beside : beside + rows, : bits.shape[2]] = bits
    plane_words = packed.shape[1] * words
    first, last, margin = above * plane_words, (above + planes) * plane_words, beside * words
    narrowed = [packed.ravel()]  # by the number of voxels that each end of a run has lost
    for _ in range(min(int(reach / fast_mm), length)):
        narrowed.append(_narrowed(narrowed[-1]))
    eroded = narrowed[0].copy()
    for away in range(above + 1):
        disc = np.full_like(eroded, np.uint64(2**64 - 1))
        for aside in range(-beside, beside + 1):
            left = reach**2 - (away * slow_mm) ** 2 - (aside * middle_mm) ** 2
            if left >= 0:
                row = narrowed[min(int(np.sqrt(left) / fast_mm), len(narrowed) - 1)]
                offset = aside * words
                disc[margin : disc.size - margin] &= row[margin + offset : disc.size - margin + offset]
        for offset in {away * plane_words, -away * plane_words}:
            eroded[first:last] &= disc[first + offset : last + offset]
    inner = eroded.reshape(packed.shape)[above : above + planes, beside : beside + rows]
    unpacked = np.unpackbits(inner.view(np.uint8), axis=2, count=length, bitorder="little").view(np.bool_)
    return unpacked.transpose(np.argsort(order))


def _narrowed(bits: Words) -> Words:
    """Packed rows eroded by one voxel at either end of every run."""
    one, carried = np.uint64(1), np.uint64(63)
    before, after = bits << one, bits >> one
    before[1:] |= bits[:-1] >> carried
    after[:-1] |= bits[1:] << carried
    before &= after
    before &= bits
    return before
