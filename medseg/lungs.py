"""Anatomy of the lungs on masks: both lungs in one mask divided into right and left."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from medseg.grid import Grid

Binary: TypeAlias = npt.NDArray[np.bool_]

_NECKS_MM = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 13.0, 16.0)
"""Half widths of the bridge between the lungs that are tried: where they touch it is a thin one."""

_SMALLER = 0.1
"""The smaller lung has at least this part of the volume of the larger, or it is not told from a bulge."""


def divide(lungs: Binary, grid: Grid) -> tuple[Binary, Binary]:
    """The right and the left lung of a mask that holds both.

    The lungs touch in front of the heart and behind the gullet, where only the pleura is between
    them. The mask is eroded until two large parts are left; every voxel then belongs to the part that is
    nearest. Right is the part whose middle lies more to the patient's right.

    A mask that no erosion up to 16 mm separates is one lung, or two sides that cannot be told apart:
    it belongs to the side of the middle of the scan on which its own middle lies.

    Args:
        lungs: bool (X, Y, Z).
        grid: Of the mask.

    Returns:
        Right and left, bool (X, Y, Z), without common voxels; together they are ``lungs``.
    """
    from scipy import ndimage

    right, left = np.zeros_like(lungs), np.zeros_like(lungs)
    boxes = ndimage.find_objects(lungs.astype(np.uint8))
    if not boxes:
        return right, left
    box = boxes[0]
    inside = np.pad(lungs[box], 1)
    depth_mm = ndimage.distance_transform_edt(inside, sampling=grid.spacing_mm)
    seeds = _two_parts(depth_mm)
    if seeds is None:
        middle = np.argwhere(lungs).mean(axis=0)
        centre = (np.asarray(grid.shape) - 1) / 2
        to_the_right = (grid.affine[:3, :3] @ (middle - centre))[0] >= 0
        (right if to_the_right else left)[:] = lungs
        return right, left
    # Where the parts of the erosion lie nearest decides: recesses that it took away belong to their own side.
    indices = ndimage.distance_transform_edt(
        seeds == 0, sampling=grid.spacing_mm, return_distances=False, return_indices=True
    )
    nearest = seeds[tuple(indices)][1:-1, 1:-1, 1:-1]
    parts = [(nearest == n) & lungs[box] for n in (1, 2)]
    rightward = [(grid.affine[:3, :3] @ np.argwhere(part).mean(axis=0))[0] for part in parts]
    first, second = parts if rightward[0] > rightward[1] else parts[::-1]
    right[box], left[box] = first, second
    return right, left


def _two_parts(depth_mm: npt.NDArray[np.float64]) -> npt.NDArray[np.int32] | None:
    """1 and 2 in the two largest parts that the thinnest sufficient erosion leaves; None if there is none."""
    from scipy import ndimage

    for neck_mm in _NECKS_MM:
        parts, count = ndimage.label(depth_mm > neck_mm, structure=np.ones((3, 3, 3)))
        if count < 2:
            continue
        sizes = np.bincount(parts.ravel())[1:]
        second, first = np.argsort(sizes, kind="stable")[-2:] + 1
        if sizes[second - 1] >= _SMALLER * sizes[first - 1]:
            seeds = np.zeros(parts.shape, dtype=np.int32)
            seeds[parts == first], seeds[parts == second] = 1, 2
            return seeds
    return None
