"""Air that thresholds have left out of the lungs and networks hold for lung: a lung, or gas in the bowel."""

from __future__ import annotations

from math import prod

import numpy as np

from medseg.images.run_length import Array, Binary

LEAST_ML = 50.0
"""Smaller parts are neither added as lung nor excluded as gas."""

GAS_HU, BELOW_SHARE = -900.0, 0.5
"""A part is gas in the bowel if its median is darker than this, and this share of it lies below lung. Under a
lung, simulated gas had medians of -974 to -931 HU, parts of lungs -633 HU. Whole lungs that thresholds missed
had at most 0.02 below other lung; in emphysema a lung may be as dark as gas."""


def lung_and_gas(
    air: Binary, hu: Array, lungs: Binary, spacing_mm: tuple[float, float, float]
) -> tuple[Binary, Binary]:
    """The parts of missed air that are lung, and those that are gas in the bowel.

    Args:
        air: Air outside the threshold masks that the networks hold for lung, (X, Y, Z), RAS.
        hu: The CT in HU, on the same grid.
        lungs: Lungs that thresholds have found.
        spacing_mm: Of the voxels.

    Returns:
        Two masks. Parts smaller than `LEAST_ML` are in neither.
    """
    from scipy import ndimage

    parts, count = ndimage.label(air)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    large = sizes * prod(spacing_mm) / 1000 >= LEAST_ML
    gas = np.zeros(count + 1, dtype=np.bool_)
    every = lungs | large[parts]
    boxes = ndimage.find_objects(parts)
    for number in np.flatnonzero(large):
        x, y, z = boxes[number - 1]
        part, within = parts[x, y, z] == number, np.s_[x, y, z.start :]
        if np.median(hu[x, y, z][part]) >= GAS_HU:
            continue
        others = every[within] & (parts[within] != number)
        under = np.logical_or.accumulate(others[..., ::-1], axis=2)[..., ::-1][..., : part.shape[2]]
        gas[number] = np.count_nonzero(under & part) >= BELOW_SHARE * sizes[number]
    return np.asarray((large & ~gas)[parts]), np.asarray(gas[parts])
