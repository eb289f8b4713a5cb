"""Airway that a threshold mask of the lungs contains, such as a trachea that thresholds did not recognise."""

from __future__ import annotations

from math import prod

import numpy as np

from medseg.images.run_length import Binary
from medseg.inference.neighbourhood import grown, opened

LEAST_ML, DENIED_SHARE = 10.0, 0.5
"""A part is airway if no network holds this much of it, and this share, for lung. The trachea with the main
bronchi of LCTSC-001 has 35 ml of such air, 0.8 of the part; parts of lungs have at most 3 ml."""

_CORNERS = np.ones((3, 3, 3), dtype=np.bool_)


def leaked_airway(air: Binary, denied: Binary, spacing_mm: tuple[float, float, float]) -> Binary:
    """The parts of air in a threshold mask that are airway.

    Thin sheets, which occur where a network places the surface of a lung a little further inside, are not
    among them: a part must be at least three voxels thick.

    Args:
        air: Air of the threshold masks that the slice network, which tells bronchi from lung better than the
            3D networks do, does not hold for lung, (X, Y, Z).
        denied: The part of it that neither 3D network holds for lung.
        spacing_mm: Of the voxels.
    """
    from scipy import ndimage

    voxel_ml = prod(spacing_mm) / 1000
    if np.count_nonzero(denied) * voxel_ml < LEAST_ML:
        return np.zeros_like(air)
    parts, count = ndimage.label(opened(air), _CORNERS)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    agreed = np.bincount(parts[denied], minlength=count + 1)
    airway = (agreed * voxel_ml >= LEAST_ML) & (agreed >= DENIED_SHARE * sizes)
    airway[0] = False
    if not airway.any():
        return np.zeros_like(air)
    # The opening has removed the edge of the part.
    return np.asarray(grown(airway[parts]) & air)
