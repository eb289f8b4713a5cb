"""Breathing during the scan: a sudden shift of the lungs' outline between two neighbouring slices."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from medseg.images.grid import Grid
from medseg.images.run_length import Array

THICKEST_MM = 5.0
"""Between thicker slices the outline changes too much anyway."""

FEWEST_SLICES = 10
"""With fewer slices there is nothing to compare with."""

_MIDDLE = (0.1, 0.9)  # of the lungs' height: apex and recesses begin and end suddenly
_PIXEL_MM = 1.4
_LEAST_CM = 10.0  # of outline: that of a small part of a lung is no measure


def outline_jump_mm(sides: Array, grid: Grid) -> float | None:
    """The largest sudden shift of the lungs' outline between two slices, on average along the outline.

    Between two neighbouring slices the area that belongs to one but not to the other, divided by the length
    of the outline, is how far the outline moves. A jump is that distance minus the median of those between
    the two slices before and the two after, so that slopes of the anatomy do not count.

    Args:
        sides: 1 for right, 2 for left lung, else 0; uint8 (X, Y, Z) along R, A and S.
        grid: Of it.

    Returns:
        mm; 0 if nothing jumps; None with thick or few slices.
    """
    planes = np.moveaxis(sides, 2, 0)
    filled = np.flatnonzero([bool(plane.any()) for plane in planes])
    if len(filled) < FEWEST_SLICES or grid.spacing_mm[2] > THICKEST_MM:
        return None
    # Every second pixel of a fine grid is enough.
    across, along = (max(1, round(_PIXEL_MM / mm)) for mm in grid.spacing_mm[:2])
    planes = planes[filled[0] : filled[-1] + 1, ::across, ::along]
    x_mm, y_mm = grid.spacing_mm[0] * across, grid.spacing_mm[1] * along
    lung = [np.asarray(plane > 0) for plane in planes]
    moved_mm2 = np.array([np.count_nonzero(a != b) * x_mm * y_mm for a, b in pairwise(lung)])
    length = np.array([_outline_mm(plane, x_mm, y_mm) for plane in lung])
    length_mm = np.minimum(length[:-1], length[1:])
    shift_mm = moved_mm2 / np.maximum(length_mm, 10 * _LEAST_CM)
    first, last = (int(share * len(shift_mm)) for share in _MIDDLE)
    jumps = [
        float(shift_mm[k] - np.median(shift_mm[[k - 2, k - 1, k + 1, k + 2]]))
        for k in range(max(first, 2), min(last, len(shift_mm) - 2))
        if length_mm[k] >= 10 * _LEAST_CM
    ]
    return max([0.0, *jumps])


def _outline_mm(plane: Array, x_mm: float, y_mm: float) -> float:
    """Length of the outline in one slice along the edges of its pixels, times pi / 4 for all directions."""
    along_y = np.count_nonzero(plane[1:] != plane[:-1]) * y_mm
    along_x = np.count_nonzero(plane[:, 1:] != plane[:, :-1]) * x_mm
    return float(np.pi / 4 * (along_x + along_y))
