"""Distances between the border voxels of two masks: the definition of MONAI and MedPy.

The surface of a mask is its border voxels: those with a face neighbour outside of it, or at the
edge of the scan. In a single slice only neighbours within the slice count, since otherwise every voxel
would be border. Distances are measured between voxel centres, in mm, from each border voxel of one mask
to the nearest one of the other. Every border voxel counts the same, whatever the area of surface
it stands for: if slices are thick, the many voxels of a flat top outweigh the few of the side walls.
:mod:`medseg.evaluation.surface_distance` weights by area and is the default.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from medseg.evaluation.surface_distance import DirectedDistances, SurfaceDistances

Binary = npt.NDArray[np.bool_]


def voxel_distances(
    prediction: Binary, truth: Binary, spacing_mm: Sequence[float]
) -> SurfaceDistances | None:
    """The distances between the border voxels of two masks; None if one of them is empty.

    Args:
        prediction: bool (X, Y, Z).
        truth: bool, the same shape.
        spacing_mm: Voxel size along the three axes, which are orthogonal.
    """
    if not (prediction.any() and truth.any()):
        return None
    predicted, true = (_border(mask) * np.asarray(spacing_mm, np.float64) for mask in (prediction, truth))
    return SurfaceDistances(
        DirectedDistances(cKDTree(true).query(predicted)[0]),
        DirectedDistances(cKDTree(predicted).query(true)[0]),
    )


def _border(mask: Binary) -> npt.NDArray[np.int64]:
    """(n, 3) indices of border voxels. A mask of one voxel along every axis is its own border."""
    core = mask.copy()
    for axis, length in enumerate(mask.shape):
        if length == 1 < mask.size:
            continue
        inner, whole = np.moveaxis(core, axis, 0), np.moveaxis(mask, axis, 0)
        inner[1:] &= whole[:-1]
        inner[:-1] &= whole[1:]
        inner[0] = inner[-1] = False
    border: npt.NDArray[np.int64] = np.argwhere(mask & ~core)
    return border
