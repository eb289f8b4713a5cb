"""The parametric response map (PRM) of a registered pair: emphysema, small airways disease, normal lung."""

from __future__ import annotations

import numpy as np

from medseg.images.run_length import Array
from medseg.measurement.distribution import Distribution

EMPHYSEMA_HU = -950.0
"""In inspiration; darker voxels that also trap air are emphysema."""

TRAPPED_HU = -856.0
"""In expiration; darker voxels trap air."""

OUTSIDE, NORMAL, SMALL_AIRWAYS, EMPHYSEMA = range(4)
"""The values of a map: 0 is not covered by the expiration."""

DEFINITIONS = {
    "prm_emphysema_percent": "PRM, emphysema: share with inspiration < -950 HU and expiration < -856 HU",
    "prm_small_airways_percent": "PRM, functional small airways disease: share with inspiration >= -950 HU "
    "and expiration < -856 HU",
    "prm_normal_percent": "PRM, normal: the share of all other voxels",
    "prm_covered_percent": "share of the inspiration's lung on which the registered expiration's lung lies, "
    "to which the three shares refer",
}
"""Columns of a pair with a registration; their source is ``galban2012``."""


def response_map(inspiration_hu: Array, expiration_hu: Array, covered: Array) -> Array:
    """The class of every voxel, uint8 (X, Y, Z): see `NORMAL`, `SMALL_AIRWAYS` and `EMPHYSEMA`.

    Both comparisons are strict: a voxel of -950 HU in inspiration is not emphysema, and one of -856 HU in
    expiration is normal. Nothing is smoothed before.

    Args:
        inspiration_hu: (X, Y, Z).
        expiration_hu: The expiration on the inspiration's grid.
        covered: bool; elsewhere the map is 0.
    """
    trapped = np.asarray(expiration_hu < TRAPPED_HU)
    found = np.full(inspiration_hu.shape, NORMAL, np.uint8, order="F")
    found[trapped] = SMALL_AIRWAYS
    found[trapped & np.asarray(inspiration_hu < EMPHYSEMA_HU)] = EMPHYSEMA
    found[~covered] = OUTSIDE
    return found


def response_shares(region: Distribution) -> dict[str, float | None]:
    """The measures of `DEFINITIONS` from the values of a map in a region; shares are None without any."""
    outside, *classes = (region.count(value, value + 1) for value in range(4))
    covered = sum(classes)
    normal, airways, emphysema = (100 * each / covered if covered else None for each in classes)
    return {
        "prm_emphysema_percent": emphysema,
        "prm_small_airways_percent": airways,
        "prm_normal_percent": normal,
        "prm_covered_percent": 100 * covered / (covered + outside) if region.voxels else None,
    }
