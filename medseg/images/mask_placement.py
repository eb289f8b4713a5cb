"""Putting a mask that was cropped from its scan back onto the scan's grid."""

from __future__ import annotations

import numpy as np

from medseg.errors import InputRefused
from medseg.images.grid import SAME_GRID_MM, Grid
from medseg.images.volume import Mask


def placed_on(mask: Mask, grid: Grid) -> Mask:
    """The mask on another grid whose voxels coincide with its own: padded with background, or cropped.

    Args:
        mask: A mask on the same grid, whatever the order and direction of its axes, or on a part of it, such
            as the box around a structure that 3D Slicer stores.
        grid: The grid of the scan.

    Raises:
        InputRefused: the voxels do not coincide within 0.01 mm, or a labelled one lies outside of the grid
            (``grid-mismatch``).
    """
    if mask.grid.same_as(grid):
        return Mask(mask.array, grid, mask.labels, mask.source)
    moved = mask.oriented(grid.axcodes)
    first = np.rint(grid.index(moved.grid.world((0, 0, 0)))).astype(int)
    affine = grid.affine.copy()
    affine[:3, 3] = grid.world(first)
    if not moved.grid.same_as(Grid(moved.grid.shape, affine)):
        raise _mismatch(mask, grid, f"its voxels do not coincide with the scan's within {SAME_GRID_MM} mm")
    start, stop = np.maximum(first, 0), np.minimum(first + moved.grid.shape, grid.shape)
    array = np.zeros(grid.shape, moved.array.dtype, order="F")
    if (start < stop).all():
        inside = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        part = tuple(slice(a, b) for a, b in zip(start - first, stop - first, strict=True))
        array[inside] = moved.array[part]
    lost = int(np.count_nonzero(moved.array)) - int(np.count_nonzero(array))
    if lost:
        raise _mismatch(mask, grid, f"{lost} of its labelled voxels lie outside of the scan")
    return Mask(array, grid, mask.labels, mask.source)


def _mismatch(mask: Mask, grid: Grid, problem: str) -> InputRefused:
    return InputRefused(
        f"the mask is not on the scan's grid: {problem}; {mask.grid.mismatch(grid)}",
        where=mask.source.path,
        reason="grid-mismatch",
        remedy="pass the scan that was segmented, or resample the mask to its grid first (nearest neighbour)",
    )
