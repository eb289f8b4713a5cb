"""Distances between the surfaces of two masks, weighted by area.

The surface of a mask is the one that marching cubes draws between its voxel centres (Lorensen and
Cline 1987, doi:10.1145/37402.37422): every cube of 2 x 2 x 2 neighbouring voxels that are not all inside
or all outside holds a surface element, whose area in mm² follows from its 8 voxels and the voxel
size. Distances are measured between the centres of elements, in mm. This is the definition of the
article on the normalised surface Dice (Nikolov et al. 2021, doi:10.2196/26151) and of its code, DeepMind's
surface-distance. The edge of the scan counts as outside.

In a scan of a single slice the elements are pieces of the outline and are weighted by length. For
distances without area weights see :mod:`medseg.evaluation.voxel_surface`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from medseg.images.marching_surface import surface_elements

Binary = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class DirectedDistances:
    """Distances in mm from every surface element of one mask to the other mask's surface.

    Attributes:
        mm: (n,), the distances.
        areas: (n,), the areas of the elements in mm² (lengths in mm in a single slice); None if every element
            counts the same.
    """

    mm: Values
    areas: Values | None = None

    @property
    def amount(self) -> float:
        """The area, or the number of elements."""
        return float(self.mm.size if self.areas is None else self.areas.sum())

    @property
    def total(self) -> float:
        """The sum of the distances, weighted by area."""
        return float(self.mm.sum() if self.areas is None else self.mm @ self.areas)

    def within(self, tolerance_mm: float) -> float:
        """The area, or the number of elements, up to a distance."""
        # Rounding of the products of indices and spacing must not decide at the tolerance itself.
        near = self.mm <= tolerance_mm + 1e-6
        return float(np.count_nonzero(near) if self.areas is None else self.areas[near].sum())

    def percentile(self, percent: float) -> float:
        """The smallest distance up to which at least this percentage of the area lies, as in DeepMind's code.

        Of elements that count the same it is the interpolated percentile of numpy, as in MONAI.
        """
        if self.areas is None:
            return float(np.percentile(self.mm, percent))
        order = np.argsort(self.mm, kind="stable")
        share = np.cumsum(self.areas[order]) / self.areas.sum()
        at = min(int(np.searchsorted(share, percent / 100)), len(order) - 1)
        return float(self.mm[order][at])


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances between the surfaces of two masks, in both directions.

    Attributes:
        of_prediction: From the prediction's surface to the truth's.
        of_truth: From the truth's surface to the prediction's.
    """

    of_prediction: DirectedDistances
    of_truth: DirectedDistances

    @property
    def hd_mm(self) -> float:
        """Hausdorff distance: the largest distance."""
        return float(max(self.of_prediction.mm.max(), self.of_truth.mm.max()))

    @property
    def hd95_mm(self) -> float:
        """The larger of the two directed 95th percentiles.

        As in Metrics Reloaded (Maier-Hein et al. 2024, doi:10.1038/s41592-023-02151-z); the 95th percentile
        of all distances together is smaller if one surface is larger.
        """
        return max(self.of_prediction.percentile(95), self.of_truth.percentile(95))

    @property
    def assd_mm(self) -> float:
        """Average symmetric surface distance: the mean over both surfaces."""
        amount = self.of_prediction.amount + self.of_truth.amount
        return (self.of_prediction.total + self.of_truth.total) / amount

    def nsd(self, tolerance_mm: float) -> float:
        """Normalised surface Dice: fraction of both surfaces within the tolerance, 0..1.

        Args:
            tolerance_mm: Largest distance at which a surface element agrees.
        """
        near = self.of_prediction.within(tolerance_mm) + self.of_truth.within(tolerance_mm)
        return near / (self.of_prediction.amount + self.of_truth.amount)


def surface_distances(
    prediction: Binary, truth: Binary, spacing_mm: Sequence[float]
) -> SurfaceDistances | None:
    """The distances between the surfaces of two masks; None if one of them is empty.

    Args:
        prediction: bool (X, Y, Z).
        truth: bool, the same shape.
        spacing_mm: Voxel size along the three axes, which are orthogonal.
    """
    if not (prediction.any() and truth.any()):
        return None
    (predicted, predicted_mm2), (true, true_mm2) = (
        surface_elements(mask, spacing_mm) for mask in (prediction, truth)
    )
    return SurfaceDistances(
        DirectedDistances(cKDTree(true).query(predicted)[0], predicted_mm2),
        DirectedDistances(cKDTree(predicted).query(true)[0], true_mm2),
    )
