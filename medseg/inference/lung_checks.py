"""Checks of a mask of the two lungs."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from medseg.images.run_length import Array, Binary
from medseg.images.volume import Mask, Volume
from medseg.inference.lung_shape import shape_findings
from medseg.system.notices import Notice

COARSE_MM = 2.5
"""Half the distance of the voxels at which mask and scan are sampled."""

HEART_MM, RIGHT_SHARE = 5.0, 0.46
"""In eleven chest CTs the heart lies between 12 mm left and 8 mm right of the middle, and the right lung has
0.46 to 0.65 of the volume. One of them exceeds both limits (its right lung shrank after surgery), and so do
five of the eleven mirrored ones."""

SOFT_HU, SOFT_MM, SOFT_SHARE = -200.0, 3.0, 0.01
"""A lung is flagged if this share of it, away from its rim, is denser than `SOFT_HU` on average over
`SOFT_MM` in every direction. Vessels and hila stay below it: in ten chest CTs, with manual masks or masks by
thresholds, at most 0.4 %; with a simulated consolidation or effusion, 10 to 45 %."""


def qc_findings(mask: Mask, scan: Volume) -> tuple[Notice, ...]:
    """Notices about a mask of the two lungs, without a path; empty if nothing looks wrong.

    The checks: no lung or only one was found; the sides may be exchanged, for example by a wrong header; part
    of a lung is as dense as soft tissue (`SOFT_HU`), so that it is diseased or not lung; the shape is not
    that of lungs (:mod:`medseg.inference.lung_shape`). The heart lies to the left and leaves more room to the
    right lung: if it lies `HEART_MM` to the right of the chest's middle and the right lung has less than
    `RIGHT_SHARE` of the volume, the sides are exchanged or the anatomy is unusual.

    Args:
        mask: A mask with one label of side right and one of side left.
        scan: The CT in HU, on the same grid.
    """
    upright, ct = mask.oriented("RAS"), scan.oriented("RAS")
    every = tuple(slice(None, None, max(1, int(2 * COARSE_MM / mm))) for mm in upright.grid.spacing_mm)
    painted, hu = np.asarray(upright.array)[every], np.asarray(ct.array)[every]
    steps_mm = [mm * (part.step or 1) for mm, part in zip(upright.grid.spacing_mm, every, strict=True)]
    values = {label.side: label.value for label in mask.labels}
    right, left = painted == values["right"], painted == values["left"]
    sizes = np.count_nonzero(right), np.count_nonzero(left)
    if not any(sizes):
        return (Notice("no-lung", "no lung was found", remedy="check that the scan shows a chest, in HU"),)
    found = []
    for lung, side in ((right, "right"), (left, "left")):
        share, volume_ml = _soft(lung, hu, steps_mm)
        if share > SOFT_SHARE:
            part = f"{volume_ml:.0f} ml of the {side} lung ({100 * share:.0f} %)"
            remedy = "check whether this is diseased lung, or not lung"
            found.append(Notice("soft-lung", f"{part} are as dense as soft tissue", remedy=remedy))
    for size, other, side in ((sizes[0], sizes[1], "right"), (sizes[1], sizes[0], "left")):
        if size < 0.05 * other:
            missing = f"hardly any {side} lung was found"
            return (Notice("missing-side", missing, remedy="check whether the scan shows it"), *found)
    off_mm = _heart_mm(right, left, hu, steps_mm[0])
    share = sizes[0] / sum(sizes)
    if off_mm is not None and off_mm > HEART_MM and share < RIGHT_SHARE:
        text = (
            f"right and left may be exchanged in the scan: its heart lies {off_mm:.0f} mm right of the "
            f"middle, and the right lung, usually the larger one, has {100 * share:.0f} % of the volume"
        )
        remedy = "compare the sides with those in your PACS; if they agree, the right lung may have shrunk"
        found.insert(0, Notice("sides-exchanged", text, remedy=remedy))
    return (*found, *shape_findings(right, left, steps_mm))


def _soft(lung: Binary, hu: Array, spacing_mm: Sequence[float]) -> tuple[float, float]:
    """Share and volume in ml of a lung that is as dense as soft tissue, see `SOFT_HU`."""
    from scipy import ndimage

    boxes = ndimage.find_objects(lung.view(np.uint8))
    if not boxes:
        return 0.0, 0.0
    lung, hu = lung[boxes[0]], hu[boxes[0]]
    size = [1 + 2 * round(SOFT_MM / mm) for mm in spacing_mm]
    within = ndimage.minimum_filter(lung.view(np.uint8), size, mode="nearest").view(bool)
    mean_hu = ndimage.uniform_filter(hu.astype(np.float32), size, mode="nearest")
    count = np.count_nonzero(within & (mean_hu > SOFT_HU))
    return count / np.count_nonzero(lung), count * prod(spacing_mm) / 1000


def _heart_mm(right: Binary, left: Binary, hu: Array, step_mm: float) -> float | None:
    """How far right of the chest's middle the dense tissue between the lungs is centred, in mm.

    Measured in the lower half of the lungs without their bases, where the liver is. None if there is no dense
    tissue. Arrays are in RAS order.
    """
    both = right | left
    slices = np.flatnonzero(both.any(axis=(0, 1)))
    part = slice(slices[0] + int(0.15 * len(slices)), slices[0] + int(0.6 * len(slices)))
    columns = np.flatnonzero(both.any(axis=(1, 2)))
    right, left, both, hu = right[..., part], left[..., part], both[..., part], hu[..., part]
    beside = np.logical_or.accumulate(right[::-1], axis=0)[::-1] & np.logical_or.accumulate(left, axis=0)
    counts = np.count_nonzero(beside & ~both & (np.asarray(hu) > -50), axis=(1, 2))
    if not counts.sum():
        return None
    middle = (columns[0] + columns[-1]) / 2
    return float((np.average(np.arange(len(counts)), weights=counts) - middle) * step_mm)
