"""Anatomy of the lungs on masks: both in one mask divided into right and left, and what looks wrong."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import numpy.typing as npt

from medseg.images.connected_components import components
from medseg.images.grid import Grid
from medseg.images.run_length import Array, Binary, Integers, Runs
from medseg.images.volume import Mask, Volume
from medseg.system.notices import Notice

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


def split_left_right(lungs: Runs, grid: Grid, hu: Array | None = None) -> tuple[Runs, Runs]:
    """The right and the left lung of a mask that holds both.

    The lungs touch in front of the heart and behind the gullet, where only the pleura is between
    them. The mask is eroded until two large parts are left; every voxel then belongs to the part that is
    nearest. Right is the part whose middle lies more to the patient's right.

    A mask that no erosion up to 16 mm separates is one lung, or two sides that cannot be told apart.
    Where the air around the patient is seen beside it on one side alone, that side is lateral: the
    field of view shows one lung. Otherwise it is the right one where its middle lies to the right of
    that of the dense tissue in its slices, or, without ``hu``, to the right of that of the scan.

    Args:
        lungs: Of a mask (X, Y, Z).
        grid: Of the mask.
        hu: The CT, (X, Y, Z).

    Returns:
        Right and left, without common voxels; together they are ``lungs``.
    """
    box, none = lungs.box(), lungs.kept(np.zeros(len(lungs.start), dtype=np.bool_))
    if box is None:
        return none, none
    # Upright, so that voxels that lie as near to either part go the same way in every order of axes.
    order, flips = grid.moves_to("RAS")
    flipped = [flips[order.index(axis)] for axis in range(3)]
    # Sides need no finer voxels: those of thin slices are passed over, and take that of their neighbour.
    every = [max(1, int(COARSE_MM / mm)) for mm in grid.spacing_mm]
    passing = [_passing(box[axis], every[axis], flipped[axis]) for axis in range(3)]
    turned = tuple(axis for axis in range(3) if flips[axis])
    sides = _sides(
        np.flip(lungs.at(passing).transpose(order), turned),
        [every[axis] * grid.spacing_mm[axis] for axis in order],
        grid.oriented("RAS").affine[0, :3] * [every[axis] for axis in order],
    )
    if sides is None:
        return (lungs, none) if _lies_right(lungs, box, grid, hu) else (none, lungs)
    found = lungs.divided(
        np.flip(sides, turned).transpose([order.index(axis) for axis in lungs.order]),
        [_taken(passing[axis], grid.shape[axis], flipped[axis]) for axis in lungs.order],
    )
    right, left = found.get(RIGHT, none), found.get(LEFT, none)
    if min(right.size, left.size) < SMALLER * max(right.size, left.size):
        # Beside one large lung a small part may be no lung: it must not decide what side that one is.
        large = right if right.size > left.size else left
        lies_right = _lies_right(large, box, grid, hu)
        if lies_right != (large is right):
            return (lungs, none) if lies_right else (none, lungs)
    return right, left


def _passing(part: slice, every: int, flipped: bool) -> Integers:
    """Indices in a part of an axis, so many passed over, from its start, or from its end if it is flipped."""
    first = part.start + (part.stop - 1 - part.start) % every if flipped else part.start
    return np.arange(first, part.stop, every)


def _taken(passing: Integers, length: int, flipped: bool) -> Integers:
    """Of each index of an axis the number of that of :func:`_passing` before it; behind, if flipped."""
    at = np.arange(length)
    behind = np.searchsorted(passing, at) if flipped else np.searchsorted(passing, at, side="right") - 1
    return np.asarray(behind.clip(0, len(passing) - 1))


def _lies_right(lungs: Runs, box: tuple[slice, slice, slice], grid: Grid, hu: Array | None) -> bool:
    """Whether a lone lung is the right one, see :func:`split_left_right`; ``box`` encloses all lung."""
    order, flips = grid.moves_to("RAS")
    # Upright, as all that follows.
    middle, (across, _, along) = lungs.middle(order[0]), (box[axis] for axis in order)
    length, high = grid.shape[order[0]], grid.shape[order[2]]
    if flips[0]:
        middle, across = length - 1 - middle, slice(length - across.stop, length - across.start)
    if flips[2]:
        along = slice(high - along.stop, high - along.start)
    if hu is None:
        return bool(middle >= (length - 1) / 2)
    spacing_mm = [grid.spacing_mm[axis] for axis in order]
    every = [max(1, int(2 * COARSE_MM / mm)) for mm in spacing_mm]
    upright = np.flip(hu.transpose(order), tuple(axis for axis, flip in enumerate(flips) if flip))
    seen = np.asarray(upright[:: every[0], :: every[1], along.start : along.stop : every[2]])
    air = (seen < -900).mean(axis=(1, 2))
    to_the_left, to_the_right = (
        air[: across.start // every[0]].sum(),
        air[-(-across.stop // every[0]) :].sum(),
    )
    if max(to_the_left, to_the_right) * every[0] * spacing_mm[0] > AROUND_MM and (
        max(to_the_left, to_the_right) > 2 * min(to_the_left, to_the_right)
    ):
        return bool(to_the_right > to_the_left)
    dense = np.count_nonzero(seen > -200, axis=(1, 2))
    if not dense.sum():
        return bool(middle >= (length - 1) / 2)
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
    nearest = seeds[tuple(indices)]
    rightward = [to_the_right @ _middle((nearest == n) & lungs) for n in (RIGHT, LEFT)]
    return np.asarray(nearest if rightward[0] > rightward[1] else RIGHT + LEFT - nearest)


def _middle(part: Binary) -> npt.NDArray[np.float64]:
    """Mean indices (3) of where a mask is true."""
    runs = Runs.of(part)
    return np.array([runs.middle(axis) for axis in range(3)])


def _two_parts(lungs: Binary, spacing_mm: list[float]) -> npt.NDArray[np.uint8] | None:
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
            seeds = np.zeros(parts.shape, dtype=np.uint8)
            seeds[parts == first], seeds[parts == second] = RIGHT, LEFT
            return seeds
    return None


def with_air(lungs: Runs, hu: Array) -> Runs:
    """A mask of both lungs without the parts that hold no air: the brain, the liver, a kidney.

    A network that has learned what consolidated lung looks like takes these for it where its training had
    none of them. A part (26-connected) of which less than `AIR_SHARE` is air is left out, unless its volume
    and that of the largest part with air are at least `AIRLESS_SHARE` of one another: then it may be a
    lung without any.

    Args:
        lungs: Of a mask (X, Y, Z).
        hu: The CT, (X, Y, Z).
    """
    part, count = components(lungs, corners=True)
    sizes = np.bincount(part, weights=lungs.lengths, minlength=count)
    air = np.bincount(
        part, weights=lungs.counted(hu, lambda slab: np.asarray(slab < AIR_HU)), minlength=count
    )
    airy = air >= AIR_SHARE * sizes
    largest = sizes[airy].max(initial=0)
    lung = airy | (sizes >= AIRLESS_SHARE * largest) & (largest >= AIRLESS_SHARE * sizes)
    return lungs.kept(lung[part])


def qc_findings(mask: Mask, scan: Volume) -> tuple[Notice, ...]:
    """What looks wrong about a mask of the two lungs, without a path; empty where nothing does.

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
    return tuple(found)


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
