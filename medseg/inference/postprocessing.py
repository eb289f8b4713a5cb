"""Cleaning the mask of one label: filling holes, removing small and surplus components."""

from __future__ import annotations

import numpy as np

from medseg.errors import InputRefused
from medseg.images.connected_components import components, filled
from medseg.images.grid import Grid
from medseg.images.run_length import Runs


def postprocess(
    mask: Runs,
    grid: Grid,
    *,
    keep_components: int | None = None,
    fill_holes: bool = False,
    min_volume_ml: float = 0.0,
    min_share: float = 0.0,
) -> Runs:
    """The cleaned mask; by default nothing is changed.

    Holes are filled first, so that a component is measured with its holes, and whatever lies inside a
    hole becomes part of its surroundings. Cleaning a second time changes nothing. The result does not
    depend on the order or direction of the array axes.

    Foreground voxels are connected if they share a face, an edge or a corner
    (26-connectivity), background voxels if they share a face (6-connectivity). Only such a
    pair keeps inside and outside apart (Kong & Rosenfeld 1989, doi:10.1016/0734-189X(89)90147-3).

    Args:
        mask: Runs of a binary mask (X, Y, Z).
        grid: Grid of the mask; gives the volume of a voxel.
        keep_components: Keep this many largest components. Components exactly as large as the
            last of them are kept too: choosing among equals would depend on the storage order.
        fill_holes: Fill background that is not connected to the faces of the volume.
        min_volume_ml: Remove components smaller than this.
        min_share: Remove components smaller than this share of the largest one, in 0..1.

    Raises:
        InputRefused: the mask does not have the grid's shape (``shape``).
    """
    if mask.shape != grid.shape:
        raise InputRefused(
            f"a mask of shape {mask.shape} for a grid of shape {grid.shape}",
            reason="shape",
            remedy="pass a mask (X, Y, Z) on this grid",
        )
    if fill_holes:
        mask = filled(mask)
    if keep_components is not None or min_volume_ml > 0 or min_share > 0:
        # One billionth less: the determinant of a rotated affine may differ in the last digits.
        smallest = min_volume_ml / grid.voxel_ml * (1 - 1e-9)
        mask = _selected(mask, keep_components, smallest, min_share)
    return mask


def _selected(mask: Runs, keep: int | None, smallest: float, share: float) -> Runs:
    """The mask without components below ``smallest`` voxels or a share, and without surplus ones."""
    part, count = components(mask, corners=True)
    sizes = np.bincount(part, weights=mask.lengths, minlength=count)
    if keep is not None and keep < count:
        smallest = max(smallest, float(np.sort(sizes)[-keep]))
    smallest = max(smallest, share * float(sizes.max(initial=0)) * (1 - 1e-9))
    return mask.kept((sizes >= smallest)[part])
