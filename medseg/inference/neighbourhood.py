"""Neighbours of the voxels of a mask: the masks of scipy's functions, many times as fast."""

from __future__ import annotations

from itertools import product

import numpy as np
import numpy.typing as npt

from medseg.images.run_length import Binary


def grown(mask: Binary) -> Binary:
    """A mask (X, Y, Z) with the 26 neighbours of its voxels."""
    for axis in range(3):
        wider = mask.copy()
        inner, outer = np.moveaxis(mask, axis, 0), np.moveaxis(wider, axis, 0)
        outer[1:] |= inner[:-1]
        outer[:-1] |= inner[1:]
        mask = wider
    return mask


def opened(mask: Binary) -> Binary:
    """The voxels of all cubes of 3 x 3 x 3 voxels that lie within a mask (X, Y, Z)."""
    for axis in range(3):
        narrower = mask.copy()
        outer, inner = np.moveaxis(mask, axis, 0), np.moveaxis(narrower, axis, 0)
        inner[1:] &= outer[:-1]
        inner[:-1] &= outer[1:]
        inner[0] = inner[-1] = False
        mask = narrower
    return grown(mask)


def within(
    voxels: Binary, mask: Binary, distance_mm: float, spacing_mm: tuple[float, float, float]
) -> Binary:
    """The voxels that are at most ``distance_mm`` away from a mask, from centre to centre.

    The time is proportional to the number of voxels in question outside the mask, which should be few.

    Args:
        voxels: The voxels in question, (X, Y, Z).
        mask: The mask, on the same grid.
        distance_mm: The largest distance.
        spacing_mm: Of the voxels.
    """
    reach = [int(distance_mm / mm) + 1 for mm in spacing_mm]
    inner = np.pad(mask, [(n, n) for n in reach])
    at = np.argwhere(voxels & ~mask) + reach
    near = np.zeros(len(at), dtype=np.bool_)
    for offset in product(*(range(-n, n + 1) for n in reach)):
        if np.sqrt(np.sum((np.array(offset) * spacing_mm) ** 2)) <= distance_mm:
            near |= inner[tuple((at + offset).T)]
    found = voxels & mask
    found[tuple((at[near] - reach).T)] = True
    return found


def depth_mm_of(mask: Binary, spacing_mm: tuple[float, float, float]) -> npt.NDArray[np.float64]:
    """The distance of each voxel of a mask (X, Y, Z) from the nearest one outside it; 0 outside.

    The mask is taken to continue beyond the faces of the array, so that a thin slab is not all surface. The
    same numbers as those of scipy's ``distance_transform_edt``, in half of the memory.
    """
    from scipy import ndimage

    nearest = ndimage.distance_transform_edt(
        np.pad(mask, 1, mode="edge"), sampling=spacing_mm, return_distances=False, return_indices=True
    )[:, 1:-1, 1:-1, 1:-1]
    squares = np.zeros(mask.shape)
    for axis, mm in enumerate(spacing_mm):
        own = np.arange(1, mask.shape[axis] + 1).reshape([-1 if n == axis else 1 for n in range(3)])
        away = np.subtract(nearest[axis], own, dtype=np.float64)
        away *= mm
        squares += np.square(away, out=away)
    return np.asarray(np.sqrt(squares, out=squares))
