"""Blood in the descending aorta, found beside the left lung."""

from __future__ import annotations

import numpy as np

from medseg.images.grid import Grid
from medseg.images.run_length import Array
from medseg.inference.lungs import LEFT, RIGHT
from medseg.measurement.lung_labels import middle_column

DISC_MM = 7.0
"""Radius of the disc that is measured; an adult's descending aorta has a radius of 10 to 15 mm."""

WALL_MM = 9.0
"""How much farther than its radius the disc's centre may be from the left lung, which the aorta touches."""

LEFT_OF_MIDDLE_MM = (-5.0, 60.0)
"""How far left of the middle between the lungs the disc is looked for."""

BEHIND = (0.12, 0.5)
"""Where, as a share of the lungs' extent from back to front."""

HEIGHT = (0.25, 0.6)
"""Where, as a share of the lungs' height: below the arch, above the diaphragm."""

FEWEST_PLANES = 3
"""Planes with a disc that a median needs."""

_PLANES = 12
_STEP_MM = 2.0
_BLOOD_HU = (0.0, 700.0)
_CLIPPED_HU = (-200.0, 800.0)  # so that bone and lung in a disc raise its deviation alike


def find_aorta_hu(sides: Array, hu: Array, grid: Grid) -> float | None:
    """The HU of blood in the descending aorta; None if it is not found.

    It is the median over twelve axial planes of the mean of the most homogeneous disc of soft tissue. Discs
    lie between the lungs, close to the left one, in the back. All limits are ours, chosen on 13 CTs.

    Args:
        sides: 1 for right, 2 for left lung, else 0; uint8 (X, Y, Z) along R, A and S.
        hu: The CT, (X, Y, Z).
        grid: Of both.
    """
    middle = middle_column(sides)
    if middle is None:
        return None
    height = sides.shape[2]
    low, high = (int(share * height) for share in HEIGHT)
    step = [max(1, round(_STEP_MM / mm)) for mm in grid.spacing_mm[:2]]
    spacing = [n * mm for n, mm in zip(step, grid.spacing_mm[:2], strict=True)]
    found = []
    for z in np.unique(np.linspace(low, high, _PLANES).astype(int)).tolist():
        side = sides[:: step[0], :: step[1], z]
        plane = hu[:: step[0], :: step[1], z]
        mean = _disc(side, plane, spacing, middle / step[0])
        if mean is not None:
            found.append(mean)
    return float(np.median(found)) if len(found) >= FEWEST_PLANES else None


def _disc(side: Array, plane: Array, spacing: list[float], middle: float) -> float | None:
    """The mean of the most homogeneous disc of one plane."""
    from scipy import ndimage

    left = np.logical_or.accumulate(side == LEFT, axis=0)
    right = np.logical_or.accumulate((side == RIGHT)[::-1], axis=0)[::-1]
    left_mm = (middle - np.arange(side.shape[0])) * spacing[0]
    share = np.arange(side.shape[1]) / side.shape[1]
    reach = DISC_MM + WALL_MM
    columns = np.flatnonzero(
        (left_mm > LEFT_OF_MIDDLE_MM[0] - reach) & (left_mm < LEFT_OF_MIDDLE_MM[1] + reach)
    )
    rows = np.flatnonzero(share < BEHIND[1] + reach / (side.shape[1] * spacing[1]))
    if not len(columns) or not len(rows):
        return None
    part = (slice(int(columns[0]), int(columns[-1]) + 1), slice(0, int(rows[-1]) + 1))
    lung = side[part]
    if not (lung == LEFT).any():
        return None
    disc = _ball(spacing)
    values = plane[part].astype(np.float64).clip(*_CLIPPED_HU)
    mean = ndimage.convolve(values, disc, mode="nearest")
    variance = ndimage.convolve(values**2, disc, mode="nearest") - mean**2
    to_lung = ndimage.distance_transform_edt(lung == 0, sampling=spacing)
    to_left = ndimage.distance_transform_edt(lung != LEFT, sampling=spacing)
    allowed = left[part] & right[part] & (lung == 0) & (to_lung > DISC_MM) & (to_left < reach)
    allowed &= (mean > _BLOOD_HU[0]) & (mean < _BLOOD_HU[1])
    allowed &= ((left_mm > LEFT_OF_MIDDLE_MM[0]) & (left_mm < LEFT_OF_MIDDLE_MM[1]))[part[0], None]
    allowed &= ((share > BEHIND[0]) & (share < BEHIND[1]))[None, part[1]]
    if not allowed.any():
        return None
    best = int(np.where(allowed, variance, np.inf).argmin())
    return float(mean.ravel()[best])


def _ball(spacing: list[float]) -> Array:
    """Weights of a disc of `DISC_MM`, which sum to 1."""
    x, y = (np.arange(-int(DISC_MM / mm), int(DISC_MM / mm) + 1) * mm for mm in spacing)
    inside = (x[:, None] ** 2 + y[None] ** 2 <= DISC_MM**2).astype(np.float64)
    return np.asarray(inside / inside.sum())
