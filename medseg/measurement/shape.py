"""The shape of a structure: surface, sphericity, diameters, parts."""

from __future__ import annotations

from collections.abc import Sequence
from math import pi

import numpy as np
import numpy.typing as npt

from medseg.images.connected_components import components
from medseg.images.marching_surface import surface_and_volume
from medseg.images.run_length import Binary, Runs

Points = npt.NDArray[np.float64]

DEFINITIONS = {
    "volume_ml": "volume: voxels times voxel volume",
    "surface_mm2": "area of the marching cubes mesh",
    "sphericity": "pi^(1/3) (6 V)^(2/3) / A of that mesh: 1 for a ball (IBSI)",
    "equivalent_diameter_mm": "diameter of the ball with the volume of the voxels",
    "max_diameter_mm": "largest distance between two points of the mesh (IBSI)",
    "axial_diameter_mm": "largest such distance within one axial slice",
    "components": "26-connected parts",
}
"""Every measure of shape by its column; ``ibsi`` is its source where it says so."""


def shape_of(mask: Binary, spacing_mm: Sequence[float]) -> dict[str, float | None]:
    """The measures of `DEFINITIONS`; all but volume and components are None for an empty mask.

    Args:
        mask: bool (X, Y, Z), the last axis closest to the patient's long axis.
        spacing_mm: Voxel size along the three axes, which are orthogonal.
    """
    voxels = int(np.count_nonzero(mask))
    volume_mm3 = voxels * float(np.prod(spacing_mm))
    found: dict[str, float | None] = dict.fromkeys(DEFINITIONS)
    found |= {"volume_ml": volume_mm3 / 1000, "components": components(Runs.of(mask), corners=True)[1]}
    if not voxels:
        return found
    area, enclosed = surface_and_volume(mask, spacing_mm)
    points = _mesh_points(mask) * np.asarray(spacing_mm)
    return found | {
        "surface_mm2": area,
        "sphericity": pi ** (1 / 3) * (6 * enclosed) ** (2 / 3) / area,
        "equivalent_diameter_mm": (6 * volume_mm3 / pi) ** (1 / 3),
        "max_diameter_mm": _diameter(points),
        "axial_diameter_mm": max(_diameter(points[points[:, 2] == z]) for z in np.unique(points[:, 2])),
    }


def _mesh_points(mask: Binary) -> Points:
    """Corners of the marching cubes mesh, (n, 3) in voxels: midway between a voxel inside and one outside."""
    padded = np.pad(mask, 1)
    found = []
    for axis in range(3):
        moved = np.moveaxis(padded, axis, 0)
        at = np.argwhere(moved[1:] != moved[:-1]).astype(np.float64)
        at[:, 0] += 0.5
        order = [1, 2] if axis == 0 else [0, 2] if axis == 1 else [0, 1]
        place = np.empty_like(at)
        place[:, axis], place[:, order] = at[:, 0], at[:, 1:]
        found.append(place)
    return np.concatenate(found)


def _diameter(points: Points) -> float:
    """The largest distance between two of the points, (n, d)."""
    from scipy.spatial import ConvexHull, QhullError
    from scipy.spatial.distance import pdist

    spread = points[:, np.ptp(points, axis=0) > 0]
    if spread.shape[1] == 0:
        return 0.0
    if spread.shape[1] == 1:
        return float(np.ptp(spread))
    if len(spread) > 100:
        try:
            spread = spread[ConvexHull(spread).vertices]
        except QhullError:  # all on one oblique line: without a joggle they have no hull
            spread = spread[ConvexHull(spread, qhull_options="QJ").vertices]
    return float(pdist(spread).max())
