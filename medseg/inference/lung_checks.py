"""What looks wrong about a mask of the two lungs."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from medseg.images.run_length import Array, Binary
from medseg.images.volume import Mask, Volume
from medseg.inference.lung_shape import shape_findings
from medseg.system.notices import Notice

COARSE_MM = 2.5
"""Half the distance of the voxels that are looked at."""

HEART_MM, RIGHT_SHARE = 5.0, 0.46
"""Of eleven chest CTs the heart lay 12 mm to the left to 8 mm to the right of the middle, and the right
lung had 0.46 to 0.65 of the volume; both limits together are passed by one, whose right lung had shrunk
after surgery, and by five of the eleven where they are mirrored."""

SOFT_HU, SOFT_MM, SOFT_SHARE = -200.0, 3.0, 0.01
"""A lung is told of where this share of it is denser, on average over this distance to every side and away
from its rim. Vessels and the hilum are not: of ten chest CTs each with a manual mask or one made by
thresholds, none has more than 0.4 % of this, and with a simulated consolidation or effusion 10 to 45 %."""


def qc_findings(mask: Mask, scan: Volume) -> tuple[Notice, ...]:
    """What looks wrong about a mask of the two lungs, without a path; empty where nothing does.

    Five things are checked: whether anything was found, whether both sides were, whether the
    sides may be exchanged, as by a wrong header, whether part of a lung is as dense as soft tissue
    (`SOFT_HU`), diseased or something else, and whether the lungs have the shape of lungs
    (:mod:`medseg.inference.lung_shape`). The heart lies to the left and leaves the right lung
    more room; where it lies `HEART_MM` to the right of the chest's middle and the right lung has less
    than `RIGHT_SHARE` of the volume, the sides are exchanged, or the anatomy is unusual.

    Args:
        mask: With a label of side right and one of side left.
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
        return (Notice("no-lung", "no lung was found", remedy="look whether the scan shows a chest, in HU"),)
    found = []
    for lung, side in ((right, "right"), (left, "left")):
        share, volume_ml = _soft(lung, hu, steps_mm)
        if share > SOFT_SHARE:
            part = f"{volume_ml:.0f} ml of the {side} lung ({100 * share:.0f} %)"
            remedy = "look whether that is diseased lung, or no lung"
            found.append(Notice("soft-lung", f"{part} are as dense as soft tissue", remedy=remedy))
    for size, other, side in ((sizes[0], sizes[1], "right"), (sizes[1], sizes[0], "left")):
        if size < 0.05 * other:
            missing = f"hardly any {side} lung was found"
            return (Notice("missing-side", missing, remedy="look whether the scan shows it"), *found)
    off_mm = _heart_mm(right, left, hu, steps_mm[0])
    share = sizes[0] / sum(sizes)
    if off_mm is not None and off_mm > HEART_MM and share < RIGHT_SHARE:
        text = (
            f"the sides look exchanged: the heart lies {off_mm:.0f} mm to the right and the right lung has "
            f"{100 * share:.0f} % of the volume; look whether the header is right, or the lung is shrunken"
        )
        found.insert(0, Notice("sides-exchanged", text))
    return (*found, *shape_findings(right, left, steps_mm))


def _soft(lung: Binary, hu: Array, spacing_mm: Sequence[float]) -> tuple[float, float]:
    """Share and millilitres of a lung that are as dense as soft tissue, see `SOFT_HU`."""
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
    """How far the middle of what is dense between the lungs lies to the right of that of the chest.

    In the lower half of the lungs, without their bases, where the liver is. RAS order.
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
