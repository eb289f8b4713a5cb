"""The right and the left lung of a mask that holds both."""

from __future__ import annotations

from math import prod

import numpy as np
import numpy.typing as npt

from medseg.images.grid import Grid
from medseg.images.run_length import Array, Binary, Runs
from medseg.images.volume import Volume
from medseg.inference.lung_exclusions import with_air, without_strays
from medseg.inference.midline import Midline, body_outline, cut_shares, find_midline
from medseg.inference.neighbourhood import depth_mm_of
from medseg.inference.upright_lattice import Box, UprightLattice, body_lattice
from medseg.system.notices import Notice

LUNG_LATTICE_MM = 2.5
"""Distance of the points at which the mask is sampled to find where the lungs touch."""

SMALLER = 0.1
"""A part that remains after erosion is a lung if it has at least this share of the other part's volume."""

LONE_SMALLER = 0.3
"""If the field of view shows half a chest, a part with less than this share of the other is not a lung."""

SMALLEST_ML = 50.0
"""Least volume of a lung that does not touch the other one."""

ONE_SIDED, LONE_SIDED = 0.8, 2 / 3
"""Least share of a part on one side of the midline: for one of two lungs, and for a single lung, which may
cross the midline in front of the heart. In 17 chest CTs every lung has at least 0.95 on its own side."""

LATERAL_SHARE = 0.75
"""The field of view shows half a chest if one face of the scan cuts the body over at least this share of its
depth, and the opposite face over at most one minus this share."""

RIGHT, LEFT = 1, 2

_NECKS_MM = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 13.0, 16.0)
"""Half widths of the bridge between the lungs that are tried, smallest first."""


def find_sides(lungs: Runs, scan: Volume, *, least_ml: float = 0.0) -> tuple[Runs, Runs, tuple[Notice, ...]]:
    """The right and the left lung of a mask of both, with notices about what was left out.

    Airless parts (:func:`~medseg.inference.lung_exclusions.with_air`), parts outside the body
    (:func:`~medseg.inference.lung_exclusions.without_strays`) and lung whose side is unknown
    (:func:`split_left_right`) are left out.

    Args:
        lungs: Runs of a mask (X, Y, Z) on the scan's grid.
        scan: The CT in HU.
        least_ml: Volumes up to this are left out without a notice.

    Returns:
        The right lung, the left lung, and the notices, not yet sent.
    """
    airy = with_air(lungs, scan.array)
    kept = without_strays(airy, scan.grid, scan.array)
    right, left = split_left_right(kept, scan.grid, scan.array)
    sizes = (lungs.size, airy.size, kept.size, right.size + left.size)
    airless_ml, outside_ml, unknown_ml = -np.diff(sizes) * scan.grid.voxel_ml
    unknown = f"left out {unknown_ml:.0f} ml of lung: the scan does not show on which side it lies"
    remedy = "look at the scan; one that also shows the spine or both sides of the body would show the side"
    notices = (
        (airless_ml, Notice("airless", f"removed {airless_ml:.0f} ml of airless tissue (not lung)")),
        (
            outside_ml,
            Notice("outside-body", f"removed {outside_ml:.0f} ml of air around the patient (not lung)"),
        ),
        (unknown_ml, Notice("side-unknown", unknown, remedy=remedy)),
    )
    return right, left, tuple(each.at(scan.source.path) for ml, each in notices if ml > least_ml)


def split_left_right(lungs: Runs, grid: Grid, hu: Array | None = None) -> tuple[Runs, Runs]:
    """The right and the left lung of a mask that holds both.

    The lungs touch in front of the heart and behind the oesophagus, where only the pleura separates
    them. The mask is eroded until a large part remains on each side of the midline
    (:func:`medseg.inference.midline.find_midline`); each voxel then belongs to the nearest part.

    If no erosion up to 16 mm separates two parts, each connected part belongs to the side on which two
    thirds of it lie, and a part that lies on both sides is cut at the midline; between two estimates of the
    midline that disagree the side is unknown. If the scan does not show the midline but shows air beside the
    body on one side only, that side is lateral, and what may be a piece of the other lung is of unknown side;
    so is a lone lung there that the spine puts on the other side. Otherwise the side is unknown.

    Without ``hu`` there is no midline: two large parts are distinguished by their relative position, and a
    single one by the middle of the scan.

    Args:
        lungs: Runs of a mask (X, Y, Z).
        grid: The mask's grid.
        hu: The CT in HU, (X, Y, Z).

    Returns:
        The right and the left lung, disjoint. Voxels of ``lungs`` in neither are those of unknown side.
    """
    none = lungs.kept(np.zeros(len(lungs.start), dtype=np.bool_))
    box = lungs.box()
    if box is None:
        return none, none
    lattice = UprightLattice.of(grid, box, LUNG_LATTICE_MM)
    foreground, midline = lattice.foreground(lungs), _midline(grid, box, hu)
    lone = _lone_side(lungs, grid, hu) if midline is None or hu is not None else None
    if hu is not None and midline is None:
        # One lung in two lobes and both lungs look alike: their order says nothing.
        sides = None if lone is None else _sides_of_half(foreground, lone)
    else:
        sides = _sides(foreground, lattice, midline)
    if sides is None:
        right, left = none, none
    else:
        found = lattice.divide(lungs, sides)
        right, left = found.get(RIGHT, none), found.get(LEFT, none)
    smaller = SMALLER if hu is None else LONE_SMALLER
    if lone is None or min(right.size, left.size) > smaller * max(right.size, left.size):
        return right, left
    if hu is None:
        return (lungs if lone == RIGHT else none), (lungs if lone == LEFT else none)
    # A spine in half a chest may be a shoulder blade: a lone lung needs both to agree.
    agreed = right.size >= left.size if lone == RIGHT else left.size >= right.size
    return (right, left) if agreed else (none, none)


def _midline(grid: Grid, box: Box, hu: Array | None) -> Midline | None:
    """The midline of a CT in the slices of a box."""
    if hu is None:
        return None
    lattice = body_lattice(grid, box)
    return find_midline(lattice.sampled(hu), lattice.positions_mm())


def _lone_side(lungs: Runs, grid: Grid, hu: Array | None) -> int | None:
    """The side of a single lung in a scan that does not show the midline; None if it is unknown."""
    box = lungs.box()
    if box is None:
        return None
    if hu is None:
        lattice = UprightLattice.of(grid, box, LUNG_LATTICE_MM)
        across = lattice.order[0]
        middle_mm = (grid.shape[across] - 1) / 2 * grid.spacing_mm[across]
        right = (lattice.foreground(lungs) & (lattice.positions_mm()[0] > middle_mm)).sum()
        share = right / max(1, lattice.foreground(lungs).sum())
        return RIGHT if share >= LONE_SIDED else LEFT if share <= 1 - LONE_SIDED else None
    cut_left, cut_right = cut_shares(body_outline(body_lattice(grid, box).sampled(hu)))
    if cut_left >= LATERAL_SHARE and cut_right <= 1 - LATERAL_SHARE:
        return RIGHT
    if cut_right >= LATERAL_SHARE and cut_left <= 1 - LATERAL_SHARE:
        return LEFT
    return None


def _sides(lungs: Binary, lattice: UprightLattice, midline: Midline | None) -> npt.NDArray[np.uint8] | None:
    """`RIGHT` or `LEFT` for every point, also outside the lungs; None if the sides are unknown."""
    positions = lattice.positions_mm()
    right_of = (
        [] if midline is None else [np.broadcast_to(r, lungs.shape) for r in midline.right_of(positions)]
    )
    seeds = _two_parts(lungs, lattice.spacing_mm, right_of)
    if seeds is None:
        if midline is None:
            return None
        seeds = _parts_of_lone(lungs, right_of)
        if not seeds.any():
            return None
    return _nearest(seeds, lattice.spacing_mm)


def _nearest(seeds: npt.NDArray[np.uint8], spacing_mm: tuple[float, float, float]) -> npt.NDArray[np.uint8]:
    """The value of the nearest seed; recesses, which an erosion removes, get the side of the nearest part."""
    from scipy import ndimage

    x, y, z = ndimage.distance_transform_edt(
        seeds == 0, sampling=spacing_mm, return_distances=False, return_indices=True
    )
    place = x.astype(np.intp)  # of the nearest seed in memory: one index instead of three needs less of it
    for index, length in zip((y, z), seeds.shape[1:], strict=True):
        place *= length
        place += index
    return np.asarray(seeds.ravel()[place])


def _sides_of_half(lungs: Binary, lone: int) -> npt.NDArray[np.uint8] | None:
    """The side of each part in a scan of half a chest, 0 if it may be the other lung; None if all may be.

    Parts as far aside as the largest one belong to the same lung. A part medial to three quarters of it may
    be a piece of the other lung, and one of similar volume shows that the view holds both.
    """
    from scipy import ndimage

    parts, count = ndimage.label(lungs, structure=np.ones((3, 3, 3)))
    if not count:
        return None
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    largest = int(sizes.argmax())
    across = np.arange(lungs.shape[0])
    columns = np.stack([np.bincount(plane.ravel(), minlength=count + 1) for plane in parts])
    columns[:, 0] = 0
    outward = 1 if lone == RIGHT else -1
    middles = outward * (across @ columns) / np.maximum(sizes, 1)
    inner = np.cumsum(columns[::outward, largest]) < sizes[largest] / 4
    medial = outward * across[::outward][np.count_nonzero(inner)]
    beside = (sizes > 0) & (middles >= medial)
    if sizes[~beside].max(initial=0) > LONE_SMALLER * sizes[largest]:
        return None
    return np.asarray(np.where(beside, lone, 0).astype(np.uint8)[parts])


def _two_parts(
    lungs: Binary,
    spacing_mm: tuple[float, float, float],
    right_of: list[Binary],
) -> npt.NDArray[np.uint8] | None:
    """`RIGHT` and `LEFT` in the parts that the smallest erosion separates; None if none does."""
    from scipy import ndimage

    depth_mm, voxel_ml = None, prod(spacing_mm) / 1000
    for neck_mm in _NECKS_MM:
        core = lungs
        if neck_mm > 0:
            if depth_mm is None:  # slow, and most lungs do not touch
                depth_mm = depth_mm_of(lungs, spacing_mm)
            core = depth_mm > neck_mm
        parts, count = ndimage.label(core, structure=np.ones((3, 3, 3)))
        if count < 2:
            continue
        sizes = np.bincount(parts.ravel(), minlength=count + 1)
        sizes[0] = 0
        side = _side_of_parts(parts, sizes, right_of, ONE_SIDED)
        if side is None:
            side = _side_by_order(parts, sizes)
        if not side[sizes.argmax()]:
            continue  # the largest part holds both lungs
        ones = [np.where(side == one, sizes, 0).max() for one in (RIGHT, LEFT)]
        # A part that was separate before any erosion may be small: a shrunken lung.
        least = SMALLEST_ML / voxel_ml if neck_mm == 0 else SMALLER * max(ones)
        if min(ones) >= least:
            return np.asarray(np.where(sizes >= least, side, 0).astype(np.uint8)[parts])
    return None


def _side_of_parts(
    parts: npt.NDArray[np.int32], sizes: Array, right_of: list[Binary], share: float
) -> Array | None:
    """The side of each part according to the midline, 0 if it lies on both; None without a midline."""
    if not right_of:
        return None
    shares = np.array([np.bincount(parts[right], minlength=len(sizes)) for right in right_of])
    shares = shares / np.maximum(sizes, 1)
    right = (shares.mean(axis=0) >= share) & (shares.min(axis=0) >= 0.5)
    left = (shares.mean(axis=0) <= 1 - share) & (shares.max(axis=0) <= 0.5)
    return np.where(right, RIGHT, np.where(left, LEFT, 0)) * (sizes > 0)


def _side_by_order(parts: npt.NDArray[np.int32], sizes: Array) -> Array:
    """The side of the two largest parts from their relative position; 0 for all others."""
    second, first = np.argsort(sizes, kind="stable")[-2:]
    middle = [np.flatnonzero(parts == number) // prod(parts.shape[1:]) for number in (second, first)]
    side = np.zeros(len(sizes), dtype=np.intp)
    lies_right = middle[0].mean() > middle[1].mean()
    side[second], side[first] = (RIGHT, LEFT) if lies_right else (LEFT, RIGHT)
    return side


def _parts_of_lone(lungs: Binary, right_of: list[Binary]) -> npt.NDArray[np.uint8]:
    """The side of each connected part; a part on both sides is cut at the midline.

    Points between two estimates of the midline are 0, and so is a part that lies there.
    """
    from scipy import ndimage

    parts, count = ndimage.label(lungs, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    side = _side_of_parts(parts, sizes, right_of, LONE_SIDED)
    assert side is not None
    votes = np.mean(right_of, axis=0)
    halves = np.where(votes > 0.5, RIGHT, np.where(votes < 0.5, LEFT, 0))
    return np.asarray(np.where(lungs, np.where(side[parts] > 0, side[parts], halves), 0).astype(np.uint8))
