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
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

Binary = npt.NDArray[np.bool_]
Distances = npt.NDArray[np.float64]


@dataclass(frozen=True)
class VoxelDistances:
    """Distances in mm from every border voxel of one mask to the other mask's border.

    Attributes:
        of_prediction: (n,), from the prediction's border to the truth's.
        of_truth: (m,), from the truth's border to the prediction's.
    """

    of_prediction: Distances
    of_truth: Distances

    @property
    def hd_mm(self) -> float:
        """Hausdorff distance: the largest distance."""
        return float(max(self.of_prediction.max(), self.of_truth.max()))

    @property
    def hd95_mm(self) -> float:
        """The larger of the two directed 95th percentiles.

        As in Metrics Reloaded (Maier-Hein et al. 2024, doi:10.1038/s41592-023-02151-z) and MONAI; the
        95th percentile of all distances together is smaller if one surface is larger.
        """
        return float(max(np.percentile(self.of_prediction, 95), np.percentile(self.of_truth, 95)))

    @property
    def assd_mm(self) -> float:
        """Average symmetric surface distance: the mean over the border voxels of both masks."""
        total = self.of_prediction.sum() + self.of_truth.sum()
        return float(total / (self.of_prediction.size + self.of_truth.size))

    def nsd(self, tolerance_mm: float) -> float:
        """Normalised surface Dice: fraction of the border voxels of both masks within the tolerance, 0..1.

        Args:
            tolerance_mm: Largest distance at which a border voxel agrees.
        """
        # Rounding of the products of indices and spacing must not decide at the tolerance itself.
        most = tolerance_mm + 1e-6
        near = np.count_nonzero(self.of_prediction <= most) + np.count_nonzero(self.of_truth <= most)
        return near / (self.of_prediction.size + self.of_truth.size)


def voxel_distances(prediction: Binary, truth: Binary, spacing_mm: Sequence[float]) -> VoxelDistances | None:
    """The distances between the border voxels of two masks; None if one of them is empty.

    Args:
        prediction: bool (X, Y, Z).
        truth: bool, the same shape.
        spacing_mm: Voxel size along the three axes, which are orthogonal.
    """
    if not (prediction.any() and truth.any()):
        return None
    predicted, true = (_border(mask) * np.asarray(spacing_mm, np.float64) for mask in (prediction, truth))
    return VoxelDistances(cKDTree(true).query(predicted)[0], cKDTree(predicted).query(true)[0])


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
