"""What looks wrong about the shape of two lungs, whatever the scan shows."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from medseg.images.run_length import Binary
from medseg.system.notices import Notice

RIGHT_SHARES = (0.3, 0.7)
"""The right lung has 0.39 to 0.62 of the volume in 17 chest CTs; 0.39 after surgery on the right."""

CONTACT_CM2 = 40.0
"""The lungs touch over at most 14 cm2 in the masks of 17 chest CTs, 21 cm2 in those of `lung_ct`."""

BELOW_ML, BELOW_SHARE = 5.0, 0.1
"""A part apart from its lung lies below the diaphragm if it is lower than this share of the lung. No manual
mask has any part of more than 2 ml."""

JUMP_SHARE, JUMP_LEAST_CM2, JUMP_THICKEST_MM = 0.05, 20.0, 6.0
"""Share of a slice that is in neither neighbour, or missing in it but in both: at most 2 % in eight manual
masks (smaller slices count as `JUMP_LEAST_CM2`), and 6 to 15 % where a mask has airless tissue in single
slices. Slices further apart than `JUMP_THICKEST_MM` differ more, and are not looked at."""


def shape_findings(right: Binary, left: Binary, spacing_mm: Sequence[float]) -> list[Notice]:
    """Notices about lungs whose ratio, contact, parts or contours are not those of lungs.

    Args:
        right: The right lung, bool (X, Y, Z), RAS, some 5 mm between voxels; not empty.
        left: The left lung.
        spacing_mm: Of the voxels.
    """
    found = []
    remedy = "check the mask"
    share = np.count_nonzero(right) / (np.count_nonzero(right) + np.count_nonzero(left))
    if not RIGHT_SHARES[0] <= share <= RIGHT_SHARES[1]:
        text = f"the right lung has {100 * share:.0f} % of the volume of both"
        found.append(Notice("lung-ratio", text, remedy="check the mask, unless a lung has shrunk"))
    contact_cm2 = _contact_cm2(right, left, spacing_mm)
    if contact_cm2 > CONTACT_CM2:
        text = f"both lungs are one part: they touch over {contact_cm2:.0f} cm2"
        found.append(Notice("lungs-joined", text, remedy="check where one ends and the other begins"))
    for lung, side in ((right, "right"), (left, "left")):
        below_ml = _below_ml(lung, spacing_mm)
        if below_ml > BELOW_ML:
            text = f"{below_ml:.0f} ml of the {side} lung lie apart from it, below the diaphragm"
            found.append(Notice("lung-below", text, remedy="check whether that is gas in the bowel"))
        jump, slice_mm = _largest_jump(lung, spacing_mm)
        if jump > JUMP_SHARE:
            text = (
                f"the contour of the {side} lung jumps: {100 * jump:.0f} % of the slice {slice_mm:.0f} mm "
                "above its lowest one fit neither neighbour"
            )
            found.append(Notice("lung-jump", text, remedy=remedy))
    return found


def _contact_cm2(right: Binary, left: Binary, spacing_mm: Sequence[float]) -> float:
    """The area over which the voxels of two lungs share a face."""
    area_mm2 = 0.0
    for axis in range(3):
        one, other = np.moveaxis(right, axis, 0), np.moveaxis(left, axis, 0)
        faces = np.count_nonzero(one[1:] & other[:-1]) + np.count_nonzero(other[1:] & one[:-1])
        area_mm2 += faces * prod(spacing_mm) / spacing_mm[axis]
    return area_mm2 / 100


def _below_ml(lung: Binary, spacing_mm: Sequence[float]) -> float:
    """The volume of the parts that lie below the largest one."""
    from scipy import ndimage

    parts, count = ndimage.label(lung, structure=np.ones((3, 3, 3)))
    if count < 2:
        return 0.0
    areas = np.stack([np.bincount(flat.ravel(), minlength=count + 1) for flat in np.moveaxis(parts, 2, 0)])
    areas[:, 0] = 0
    upto = np.cumsum(areas[:, areas.sum(axis=0).argmax()])
    base = int(np.searchsorted(upto, BELOW_SHARE * upto[-1]))
    sizes = areas.sum(axis=0)
    middle = np.arange(len(areas)) @ areas / np.maximum(sizes, 1)
    return float(sizes[(sizes > 0) & (middle < base)].sum() * prod(spacing_mm) / 1000)


def _largest_jump(lung: Binary, spacing_mm: Sequence[float]) -> tuple[float, float]:
    """The largest share of a slice that fits neither neighbour, and its mm above the lowest slice."""
    slices = np.flatnonzero(lung.any(axis=(0, 1)))
    if len(slices) < 3 or spacing_mm[2] > JUMP_THICKEST_MM:
        return 0.0, 0.0
    part = lung[:, :, slices[0] : slices[-1] + 1]
    below, here, above = part[..., :-2], part[..., 1:-1], part[..., 2:]
    odd = np.count_nonzero(here & ~(below | above) | below & above & ~here, axis=(0, 1))
    cm2 = spacing_mm[0] * spacing_mm[1] / 100
    share = odd * cm2 / np.maximum(np.count_nonzero(here, axis=(0, 1)) * cm2, JUMP_LEAST_CM2)
    return float(share.max()), float((share.argmax() + 1) * spacing_mm[2])
