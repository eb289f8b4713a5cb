"""Anatomy of the lungs on masks: both in one mask divided into right and left, and what looks wrong."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from medseg.grid import Grid
from medseg.postprocess import bounding_box, memory_order
from medseg.volume import Mask, Volume

Binary: TypeAlias = npt.NDArray[np.bool_]

COARSE_MM = 2.5
"""Finer voxels than this are not looked at."""

SMALLER = 0.1
"""A part that an erosion leaves is a lung if it has at least this part of the volume of the other."""

SMALLEST_ML = 50.0
"""A part that does not touch the other is a lung from this volume on."""

HEART_MM, RIGHT_SHARE = 5.0, 0.46
"""Of eleven chest CTs the heart lay 12 mm to the left to 8 mm to the right of the middle, and the right
lung had 0.46 to 0.65 of the volume; both limits together are passed by one, whose right lung had shrunk
after surgery, and by five of the eleven where they are mirrored."""

AROUND_MM = 3.0
"""The air beside one lung alone counts where it is as much as a layer of this width."""

SOFT_HU, SOFT_MM, SOFT_SHARE = -200.0, 3.0, 0.01
"""A lung is told of where this share of it is denser, on average over this distance to every side and away
from its rim. Vessels and the hilum are not: of ten chest CTs each with a manual mask or one made by
thresholds, none has more than 0.4 % of this, and with a simulated consolidation or effusion 10 to 45 %."""

AIR_HU, AIR_SHARE, AIRLESS_SHARE = -500.0, 0.02, 0.25
"""Lungs hold air: of eleven chest CTs, and of 56 with simulated disease, at least 36 % are darker than this.
A part with less than `AIR_SHARE` is lung only beside one with air, neither of them four times the other."""

RIGHT, LEFT = 1, 2

_NECKS_MM = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 13.0, 16.0)
"""Half widths of the bridge between the lungs that are tried: where they touch it is a thin one."""


def divide(lungs: Binary, grid: Grid, hu: npt.NDArray[np.generic] | None = None) -> tuple[Binary, Binary]:
    """The right and the left lung of a mask that holds both.

    The lungs touch in front of the heart and behind the gullet, where only the pleura is between
    them. The mask is eroded until two large parts are left; every voxel then belongs to the part that is
    nearest. Right is the part whose middle lies more to the patient's right.

    A mask that no erosion up to 16 mm separates is one lung, or two sides that cannot be told apart.
    Where the air around the patient is seen beside it on one side alone, that side is lateral: the
    field of view shows one lung. Otherwise it is the right one where its middle lies to the right of
    that of the dense tissue in its slices, or, without ``hu``, to the right of that of the scan.

    Args:
        lungs: bool (X, Y, Z).
        grid: Of the mask.
        hu: The CT, (X, Y, Z).

    Returns:
        Right and left, bool (X, Y, Z), without common voxels; together they are ``lungs``.
    """
    # Upright, so that voxels that lie as near to either part go the same way in every order of axes.
    order, flips = grid.moves_to("RAS")
    flipped = tuple(axis for axis, flip in enumerate(flips) if flip)
    upright = None if hu is None else np.flip(hu.transpose(order), flipped)
    sides = _divide(np.flip(lungs.transpose(order), flipped), grid.oriented("RAS"), upright)
    right, left = (np.flip(side, flipped).transpose(np.argsort(order)) for side in sides)
    return right, left


def _divide(lungs: Binary, grid: Grid, hu: npt.NDArray[np.generic] | None) -> tuple[Binary, Binary]:
    """:func:`divide` of arrays in RAS order."""
    from scipy import ndimage

    right, left = np.zeros_like(lungs), np.zeros_like(lungs)
    boxes = ndimage.find_objects(lungs.astype(np.uint8))
    if not boxes:
        return right, left
    box = boxes[0]
    # Sides need no finer voxels: those of thin slices are passed over, and take that of their neighbour.
    every = [max(1, int(COARSE_MM / mm)) for mm in grid.spacing_mm]
    coarse_mm = [n * mm for n, mm in zip(every, grid.spacing_mm, strict=True)]
    coarse = lungs[box][:: every[0], :: every[1], :: every[2]]
    sides = _sides(coarse, coarse_mm, grid.affine[0, :3] * every)
    if sides is None:
        (right if _lies_right(lungs, box, grid, hu) else left)[:] = lungs
        return right, left
    for axis, n in enumerate(every):
        sides = np.repeat(sides, n, axis=axis)
    sides = sides[tuple(slice(0, n) for n in lungs[box].shape)]
    right[box], left[box] = lungs[box] & (sides == RIGHT), lungs[box] & (sides == LEFT)
    sizes = np.count_nonzero(right), np.count_nonzero(left)
    if min(sizes) < SMALLER * max(sizes):
        # Beside one large lung a small part may be no lung: it must not decide what side that one is.
        large, small = (right, left) if sizes[0] > sizes[1] else (left, right)
        if _lies_right(large, box, grid, hu) != (large is right):
            small[:], large[:] = lungs, False
    return right, left


def _lies_right(
    lungs: Binary, box: tuple[slice, ...], grid: Grid, hu: npt.NDArray[np.generic] | None
) -> bool:
    """Whether one lung alone is the right one; arrays in RAS order, see :func:`divide`."""
    middle = np.argwhere(lungs[box]).mean(axis=0)[0] + box[0].start
    if hu is None:
        return bool(middle >= (lungs.shape[0] - 1) / 2)
    every = [max(1, int(2 * COARSE_MM / mm)) for mm in grid.spacing_mm]
    seen = np.asarray(hu[:: every[0], :: every[1], box[2].start : box[2].stop : every[2]])
    air = (seen < -900).mean(axis=(1, 2))
    to_the_left, to_the_right = (
        air[: box[0].start // every[0]].sum(),
        air[-(-box[0].stop // every[0]) :].sum(),
    )
    if max(to_the_left, to_the_right) * every[0] * grid.spacing_mm[0] > AROUND_MM and (
        max(to_the_left, to_the_right) > 2 * min(to_the_left, to_the_right)
    ):
        return bool(to_the_right > to_the_left)
    dense = np.count_nonzero(seen > -200, axis=(1, 2))
    if not dense.sum():
        return bool(middle >= (lungs.shape[0] - 1) / 2)
    return bool(middle >= np.average(np.arange(len(dense)), weights=dense) * every[0])


def _sides(
    lungs: Binary, spacing_mm: list[float], to_the_right: npt.NDArray[np.float64]
) -> npt.NDArray[np.uint8] | None:
    """`RIGHT` or `LEFT` for every voxel, also outside the lungs; None where there are no two parts.

    Args:
        lungs: bool (X, Y, Z).
        spacing_mm: Of its voxels.
        to_the_right: How far one step along each axis leads to the right.
    """
    from scipy import ndimage

    seeds = _two_parts(lungs, spacing_mm)
    if seeds is None:
        return None
    # Where the parts of the erosion lie nearest decides: recesses that it took away belong to their own side.
    indices = ndimage.distance_transform_edt(
        seeds == 0, sampling=spacing_mm, return_distances=False, return_indices=True
    )
    nearest = seeds[tuple(indices)].astype(np.uint8)
    rightward = [to_the_right @ np.argwhere((nearest == n) & lungs).mean(axis=0) for n in (RIGHT, LEFT)]
    return np.asarray(nearest if rightward[0] > rightward[1] else RIGHT + LEFT - nearest)


def _two_parts(lungs: Binary, spacing_mm: list[float]) -> npt.NDArray[np.int32] | None:
    """1 and 2 in the two largest parts that the thinnest sufficient erosion leaves; None if there is none."""
    from scipy import ndimage

    depth_mm, voxel_ml = None, prod(spacing_mm) / 1000
    for neck_mm in _NECKS_MM:
        left = lungs
        if neck_mm > 0:
            if depth_mm is None:  # it takes long, and most lungs do not touch
                padded = np.pad(lungs, 1)
                depth_mm = ndimage.distance_transform_edt(padded, sampling=spacing_mm)[1:-1, 1:-1, 1:-1]
            left = depth_mm > neck_mm
        parts, count = ndimage.label(left, structure=np.ones((3, 3, 3)))
        if count < 2:
            continue
        sizes = np.bincount(parts.ravel())[1:]
        second, first = np.argsort(sizes, kind="stable")[-2:] + 1
        # What was apart from the beginning may be small: a lung that has shrunk.
        least = SMALLEST_ML / voxel_ml if neck_mm == 0 else SMALLER * sizes[first - 1]
        if sizes[second - 1] >= least:
            seeds = np.zeros(parts.shape, dtype=np.int32)
            seeds[parts == first], seeds[parts == second] = RIGHT, LEFT
            return seeds
    return None


def with_air(lungs: Binary, hu: npt.NDArray[np.generic]) -> Binary:
    """A mask of both lungs without the parts that hold no air: the brain, the liver, a kidney.

    A network that has learned what consolidated lung looks like takes these for it where its training had
    none of them. A part (26-connected) of which less than `AIR_SHARE` is air is left out, unless its volume
    and that of the largest part with air are at least `AIRLESS_SHARE` of one another: then it may be a
    lung without any.

    Args:
        lungs: bool (X, Y, Z).
        hu: The CT, (X, Y, Z).
    """
    from scipy import ndimage

    kept = lungs.copy(order="K")
    box = bounding_box(kept)
    if box is None:
        return kept
    order = memory_order(kept)
    inside = kept[box].transpose(order)  # a view: changes reach `kept`
    dark = np.asarray(hu)[box].transpose(order) < AIR_HU
    parts, count = ndimage.label(inside, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    air = np.bincount(parts[dark], minlength=count + 1)
    airy = air >= AIR_SHARE * sizes
    airy[0] = False
    largest = sizes[airy].max(initial=0)
    lung = airy | (sizes >= AIRLESS_SHARE * largest) & (largest >= AIRLESS_SHARE * sizes)
    lung[0] = False
    inside &= lung[parts]
    return kept


def oddities(mask: Mask, scan: Volume) -> tuple[str, ...]:
    """What looks wrong about a mask of the two lungs, in words; empty where nothing does.

    Four things are looked at: whether anything was found, whether both sides were, whether the
    sides may be exchanged, as by a wrong header, and whether part of a lung is as dense as soft tissue
    (`SOFT_HU`): diseased, or something else. The heart lies to the left and leaves the right lung
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
        return ("no lung was found: look whether the scan shows a chest, in HU",)
    told = []
    for lung, side in ((right, "right"), (left, "left")):
        share, volume_ml = _soft(lung, hu, steps_mm)
        if share > SOFT_SHARE:
            told.append(
                f"{volume_ml:.0f} ml of the {side} lung ({100 * share:.0f} %) are as dense as soft tissue: "
                "look whether that is diseased lung, or no lung"
            )
    for size, other, side in ((sizes[0], sizes[1], "right"), (sizes[1], sizes[0], "left")):
        if size < 0.05 * other:
            return (f"hardly any {side} lung was found: look whether the scan shows it", *told)
    off_mm = _heart_mm(right, left, hu, steps_mm[0])
    share = sizes[0] / sum(sizes)
    if off_mm is not None and off_mm > HEART_MM and share < RIGHT_SHARE:
        told.insert(
            0,
            f"the sides look exchanged: the heart lies {off_mm:.0f} mm to the right and the right lung has "
            f"{100 * share:.0f} % of the volume; look whether the header is right, or the lung is shrunken",
        )
    return tuple(told)


def _soft(lung: Binary, hu: npt.NDArray[np.generic], spacing_mm: Sequence[float]) -> tuple[float, float]:
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


def _heart_mm(right: Binary, left: Binary, hu: npt.NDArray[np.generic], step_mm: float) -> float | None:
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
