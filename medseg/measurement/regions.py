"""Parts of the lungs, and how often each HU occurs in each of them.

Parts are by the patient's axes, whatever the order in which a scan is stored: thirds from top to bottom,
halves from front to back, and core and rind by the distance to the surface of a lung.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medseg.images.grid import Grid
from medseg.images.run_length import Array, memory_order
from medseg.inference.lungs import LEFT, RIGHT
from medseg.measurement.distribution import Distribution
from medseg.measurement.erosion import core

RIND_MM = 10.0
"""Depth of the rind where the user names none. Articles use 5 to 20 mm; the choice is ours, and is written
into every table."""

_AXES = ("third_by_volume", "third_by_height", "half", "depth")
_SIZES = (3, 3, 2, 2)
_CELLS = int(np.prod(_SIZES))
PARTS: dict[str, tuple[str, int]] = {
    "upper_third_by_volume": ("third_by_volume", 0),
    "middle_third_by_volume": ("third_by_volume", 1),
    "lower_third_by_volume": ("third_by_volume", 2),
    "upper_third_by_height": ("third_by_height", 0),
    "middle_third_by_height": ("third_by_height", 1),
    "lower_third_by_height": ("third_by_height", 2),
    "ventral_half": ("half", 0),
    "dorsal_half": ("half", 1),
    "core": ("depth", 0),
    "rind": ("depth", 1),
}
"""Every part of a lung: the division it belongs to, and its number there."""

DIVISIONS = {
    "third_by_volume": "thirds of each lung from top to bottom with equal volumes, to whole axial planes",
    "third_by_height": "thirds of each lung from top to bottom with equal heights, to whole axial planes",
    "half": "halves of each lung in front of and behind the middle of its extent from front to back",
    "depth": "core: voxels farther than the rind's depth from the surface of their lung; rind: the others",
}
"""How each division is made, for a methods paragraph."""

_LEVEL_MM = 0.01  # of oblique grids, whose planes are not those of the patient
_VOXELS_AT_ONCE = 1 << 22
_MOST_BINS = 1 << 16
# Fractions of HU are counted in bins of this width with the mean of their voxels as value: means are exact,
# percentiles to a sixteenth, and no threshold in whole HU divides a bin.
_BIN_HU = 1 / 16


@dataclass(frozen=True, eq=False)
class LungRegions:
    """Histograms of both lungs by part.

    Attributes:
        values: Ascending HU that occur, (n,).
        counts: Voxels, (2 sides, 3 thirds by volume, 3 by height, 2 halves, core and rind, n).
        voxel_ml: Volume of one voxel.
    """

    values: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]
    voxel_ml: float

    def distribution(self, sides: Sequence[int], part: str | None = None) -> Distribution:
        """The HU of one lung or both, whole or a part of `PARTS`."""
        counts = self.counts[[side - 1 for side in sides]].sum(axis=0)
        if part is not None:
            division, number = PARTS[part]
            counts = np.take(counts, [number], axis=_AXES.index(division))
        return Distribution(self.values, counts.sum(axis=(0, 1, 2, 3)), self.voxel_ml)


def lung_regions(sides: Array, hu: Array, grid: Grid, rind_mm: float = RIND_MM) -> LungRegions:
    """The histograms of all parts of both lungs.

    Args:
        sides: 1 for right, 2 for left lung, else 0; uint8 (X, Y, Z) with axes along R, A and S, as a grid
            oriented ``RAS`` has them.
        hu: The CT, (X, Y, Z). Both are processed fastest if X is the fastest axis in memory.
        grid: Of both, oriented ``RAS``; it may be oblique.
        rind_mm: Voxels whose centre is at most this far from the nearest one outside of their lung are rind.
    """
    low, step, bins = _bins(hu)
    counts, sums = np.zeros((2, _CELLS * bins), np.int64), np.zeros(bins)
    for side in (RIGHT, LEFT):
        lung = sides == side
        box = bounding_box(lung)
        if box is None:
            continue
        lung, inside = lung[box], hu[box]
        cells = _cells(lung, box, grid, rind_mm)
        for part in _slabs(lung):
            here = lung[part]
            found = inside[part][here]
            bin_of = _bin(found, low, step)
            index = cells[part][here].astype(np.int32) * bins + bin_of
            counts[side - 1] += np.bincount(index, minlength=counts.shape[1])
            if found.dtype.kind == "f":
                sums += np.bincount(bin_of, found, minlength=bins)
    values: npt.NDArray[np.float64] = low + step * np.arange(bins, dtype=np.float64)
    voxels = counts.reshape(2 * _CELLS, bins).sum(axis=0)
    if hu.dtype.kind == "f":
        values[voxels > 0] = sums[voxels > 0] / voxels[voxels > 0]
    return LungRegions(values, counts.reshape(2, *_SIZES, bins), grid.voxel_ml)


def value_distribution(hu: Array, inside: Array, voxel_ml: float) -> Distribution:
    """The HU of one part, counted as :func:`lung_regions` counts them.

    Args:
        hu: The CT, (X, Y, Z).
        inside: bool (X, Y, Z): the part.
        voxel_ml: Volume of one voxel.
    """
    found = hu[inside]
    if not found.size:
        return Distribution(np.zeros(0), np.zeros(0, np.int64), voxel_ml)
    low, step, bins = _bins(found)
    bin_of = _bin(found, low, step)
    counts = np.bincount(bin_of, minlength=bins)
    values = low + step * np.arange(bins, dtype=np.float64)
    if hu.dtype.kind == "f":
        sums = np.bincount(bin_of, found, minlength=bins)
        values[counts > 0] = sums[counts > 0] / counts[counts > 0]
    return Distribution(values, counts, voxel_ml)


def _bins(hu: Array) -> tuple[float, float, int]:
    """Lower edge, width and number of bins for intensities."""
    low, high = (float(end) for end in (hu.min(), hu.max()))
    step = (
        1.0 if hu.dtype.kind in "iu" and high - low < _MOST_BINS else max(_BIN_HU, (high - low) / _MOST_BINS)
    )
    low = float(np.floor(low))
    return low, step, int((high - low) / step) + 1


def _bin(hu: Array, low: float, step: float) -> npt.NDArray[np.int32]:
    """The number of the bin that each intensity falls into."""
    if hu.dtype.kind in "iu" and step == 1:
        return hu.astype(np.int32) - np.int32(low)
    return np.floor((hu.astype(np.float64) - low) / step).astype(np.int32)


def _cells(lung: Array, box: tuple[slice, slice, slice], grid: Grid, rind_mm: float) -> Array:
    """The number of the cell of all four divisions, uint8 (X, Y, Z)."""
    heights, depths = (_levels(grid, axis, box) for axis in (2, 1))
    by_height = _level_counts(lung, heights)
    by_depth = _level_counts(lung, depths)
    thirds = (_thirds_by_volume(by_height) * 3 + _thirds_by_height(by_height)).astype(np.uint8)
    cells = np.empty(lung.shape, np.uint8, order="F")
    cells[...] = 4 * thirds[heights]
    cells += 2 * _halves(by_depth).astype(np.uint8)[depths]
    cells += ~core(lung, grid.spacing_mm, rind_mm)
    return cells


def _levels(grid: Grid, axis: int, box: tuple[slice, slice, slice]) -> npt.NDArray[np.intp]:
    """The position of every voxel of a box along a world axis in whole steps from 0, which broadcasts.

    On a straight grid these are the numbers of the planes, on an oblique one hundredths of a millimetre.
    """
    steps_mm = grid.affine[axis, :3]
    across = [n for n in range(3) if n != axis]
    if sum(abs(steps_mm[n]) * grid.shape[n] for n in across) < _LEVEL_MM:
        shape = [1, 1, 1]
        shape[axis] = -1
        return np.arange(box[axis].stop - box[axis].start).reshape(shape)
    places = np.ogrid[box]
    position_mm = sum(step * place for step, place in zip(steps_mm, places, strict=True))
    level = np.rint(np.asarray(position_mm) / _LEVEL_MM).astype(np.intp)
    return np.asarray(level - level.min())


def _level_counts(lung: Array, levels: npt.NDArray[np.intp]) -> npt.NDArray[np.int64]:
    """The number of lung voxels at each level."""
    if levels.size < lung.size:
        axis = int(np.argmax(levels.shape))
        return np.asarray(np.count_nonzero(lung, axis=tuple(n for n in range(3) if n != axis)))
    return np.bincount(levels[lung], minlength=int(levels.max()) + 1)


def _thirds_by_volume(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
    """0 for the upper, 1 the middle, 2 the lower third of each level; levels grow upwards.

    A level belongs to the third that holds its middle voxel.
    """
    above = counts.sum() - np.cumsum(counts)
    return np.asarray(3 * (2 * above + counts) // max(1, 2 * counts.sum())).clip(0, 2)


def _thirds_by_height(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
    """As :func:`_thirds_by_volume`, by the extent of the occupied levels."""
    low, high = np.flatnonzero(counts)[[0, -1]]
    middle = 2 * (high - np.arange(len(counts))) + 1  # in half levels from the top
    return np.asarray(3 * middle // (2 * (high - low + 1))).clip(0, 2)


def _halves(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
    """0 in front of the middle of the occupied levels, 1 behind it or on it; levels grow to the front."""
    low, high = np.flatnonzero(counts)[[0, -1]]
    return np.asarray(2 * np.arange(len(counts)) <= low + high).astype(np.intp)


def third_of(lung: Array, grid: Grid, index: Sequence[float]) -> int:
    """0, 1 or 2: the upper, middle or lower third by height of a lung that holds a place.

    Args:
        lung: bool (X, Y, Z) along R, A and S, not empty.
        grid: Of the lung.
        index: The place, in voxels.
    """
    levels = _levels(grid, 2, (slice(0, lung.shape[0]), slice(0, lung.shape[1]), slice(0, lung.shape[2])))
    x, y, z = (min(max(int(np.rint(at)), 0), n - 1) for at, n in zip(index, lung.shape, strict=True))
    return int(_thirds_by_height(_level_counts(lung, levels))[np.broadcast_to(levels, lung.shape)[x, y, z]])


def bounding_box(mask: Array) -> tuple[slice, slice, slice] | None:
    """The bounding box of what is not 0 in an array of bool or unsigned integers; None if all is."""
    order = memory_order(mask)
    view = mask.transpose(order)
    planes = np.array([bool(plane.max()) for plane in view])
    seen = np.zeros(view.shape[1:], mask.dtype)
    for plane in view:
        seen |= plane
    ends = [np.flatnonzero(found) for found in (planes, seen.any(axis=1), seen.any(axis=0))]
    if not len(ends[0]):
        return None
    x, y, z = (slice(int(ends[n][0]), int(ends[n][-1]) + 1) for n in (order.index(axis) for axis in range(3)))
    return x, y, z


def _slabs(array: Array) -> Iterator[tuple[slice, slice, slice]]:
    """Slabs across the slowest axis in memory."""
    axis = memory_order(array)[0]
    many = max(1, _VOXELS_AT_ONCE * array.shape[axis] // max(1, array.size))
    for first in range(0, array.shape[axis], many):
        part = [slice(None)] * 3
        part[axis] = slice(first, first + many)
        yield part[0], part[1], part[2]
