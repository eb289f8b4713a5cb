"""The trachea between the lungs, for the HU of its air."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medseg.images.connected_components import components
from medseg.images.grid import Grid
from medseg.images.run_length import Array, Runs
from medseg.measurement.erosion import core
from medseg.measurement.lung_labels import middle_column

ASIDE_MM = 30.0
"""How far from the middle between the lungs the trachea is looked for."""

AIR_HU = -850.0
"""Air of the trachea is darker, also where noise is strong; lung tissue beside it is not part of the same
component unless it is emphysematous."""

IN_MASK_HU = -930.0
"""The trachea is darker than this; lung at the midline, inside the mask, is not."""

SMALLEST_ML = 1.5
"""An adult's trachea has about 2 cm², and at least some centimetres of it lie between the lungs."""

WALL_MM = 2.0
"""Voxels this close to the wall are left out, because they are partly wall; one voxel at least."""


@dataclass(frozen=True)
class Trachea:
    """The air in the trachea.

    Attributes:
        air_hu: Median of its voxels away from the wall.
        sd_hu: Their standard deviation.
        in_mask: Whether most of it is part of the lung mask.
    """

    air_hu: float
    sd_hu: float
    in_mask: bool


def find_trachea(sides: Array, hu: Array, grid: Grid) -> Trachea | None:
    """The largest body of air near the middle between the lungs in their upper half; None without one.

    Args:
        sides: 1 for right, 2 for left lung, else 0; uint8 (X, Y, Z) along R, A and S.
        hu: The CT, (X, Y, Z).
        grid: Of both.
    """
    middle = middle_column(sides)
    if middle is None:
        return None
    reach = ASIDE_MM / grid.spacing_mm[0]
    low, high = max(0, int(middle - reach)), int(middle + reach) + 1
    part = (slice(low, high), slice(None), slice(sides.shape[2] // 2, None))
    air, inside = np.asarray(hu[part] < AIR_HU), sides[part] > 0
    outside = _largest(air & ~inside, grid)
    if outside is not None:
        return _of(outside, hu[part], grid, in_mask=False)
    within = _largest(np.asarray(hu[part] < IN_MASK_HU) & inside, grid)
    return None if within is None else _of(within, hu[part], grid, in_mask=True)


def _largest(air: Array, grid: Grid) -> Array | None:
    """The largest 6-connected part of a mask that does not reach its front or back; None if it is small."""
    runs = Runs.of(air)
    number, count = components(runs, corners=False)
    if not count:
        return None
    sizes = np.bincount(number, weights=runs.lengths, minlength=count)
    # Air around the patient reaches the front or the back of the box around the lungs.
    ends = np.zeros(air.shape, np.bool_)
    ends[:, [0, -1]] = True
    sizes[number[runs.counted(ends, lambda slab: slab) > 0]] = 0
    if sizes.max() * grid.voxel_ml < SMALLEST_ML:
        return None
    return runs.kept(number == sizes.argmax()).binary()


def _of(air: Array, hu: Array, grid: Grid, *, in_mask: bool) -> Trachea | None:
    inner = core(air, grid.spacing_mm, max(WALL_MM, *grid.spacing_mm[:2]))
    found = hu[inner if inner.any() else air].astype(np.float64)
    return Trachea(float(np.median(found)), float(found.std()), in_mask)
