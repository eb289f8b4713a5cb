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
class SurfaceDistances:
    """Distances in mm from every surface element of one mask to the other mask's surface.

    Attributes:
        of_prediction: (n,), from the prediction's surface to the truth's.
        of_truth: (m,), from the truth's surface to the prediction's.
        prediction_mm2: (n,), areas of the prediction's elements (lengths in mm in a single slice).
        truth_mm2: (m,), areas of the truth's elements.
    """

    of_prediction: Values
    of_truth: Values
    prediction_mm2: Values
    truth_mm2: Values

    @property
    def hd_mm(self) -> float:
        """Hausdorff distance: the largest distance."""
        return float(max(self.of_prediction.max(), self.of_truth.max()))

    @property
    def hd95_mm(self) -> float:
        """The larger of the two directed 95th percentiles by area.

        Up to this distance lies 95 % of the area of each surface; as in DeepMind's code.
        """
        return max(
            _percentile(self.of_prediction, self.prediction_mm2, 95),
            _percentile(self.of_truth, self.truth_mm2, 95),
        )

    @property
    def assd_mm(self) -> float:
        """Average symmetric surface distance: the mean over the area of both surfaces."""
        total = self.of_prediction @ self.prediction_mm2 + self.of_truth @ self.truth_mm2
        return float(total / (self.prediction_mm2.sum() + self.truth_mm2.sum()))

    def nsd(self, tolerance_mm: float) -> float:
        """Normalised surface Dice: fraction of the area of both surfaces within the tolerance, 0..1.

        Args:
            tolerance_mm: Largest distance at which a surface element agrees.
        """
        # Rounding of the products of indices and spacing must not decide at the tolerance itself.
        most = tolerance_mm + 1e-6
        near = self.prediction_mm2[self.of_prediction <= most].sum()
        near += self.truth_mm2[self.of_truth <= most].sum()
        return float(near / (self.prediction_mm2.sum() + self.truth_mm2.sum()))


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
        cKDTree(true).query(predicted)[0], cKDTree(predicted).query(true)[0], predicted_mm2, true_mm2
    )


def _percentile(distances: Values, areas: Values, percent: float) -> float:
    """The smallest distance up to which at least this percentage of the area lies."""
    order = np.argsort(distances, kind="stable")
    share = np.cumsum(areas[order]) / areas.sum()
    at = min(int(np.searchsorted(share, percent / 100)), len(order) - 1)
    return float(distances[order][at])
