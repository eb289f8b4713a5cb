"""Neighbours of the voxels of a mask: the masks of scipy's functions, many times as fast."""

from __future__ import annotations

from itertools import product

import numpy as np

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
