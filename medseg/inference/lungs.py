"""The right and the left lung of a mask that holds both, and what of such a mask is no lung."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import numpy.typing as npt

from medseg.images.connected_components import components
from medseg.images.grid import Grid
from medseg.images.run_length import Array, Binary, Runs
from medseg.images.volume import Volume
from medseg.inference.midline import (
    BODY_HU,
    Midline,
    body_outline,
    cut_shares,
    find_midline,
    planar_parts,
)
from medseg.inference.upright_lattice import Box, UprightLattice
from medseg.system.notices import Notice

LUNG_LATTICE_MM, BODY_LATTICE_MM = 2.5, 5.0
"""Distances of the voxels that are looked at: for the place where lungs touch, and for the body."""

SMALLER = 0.1
"""A part that an erosion leaves is a lung if it has at least this share of the volume of the other."""

LONE_SMALLER = 0.3
"""Where the field of view shows half a chest, a part with less than this share of another is no lung."""

SMALLEST_ML = 50.0
"""A part that does not touch the other is a lung from this volume on."""

ONE_SIDED, LONE_SIDED = 0.8, 2 / 3
"""Share of a part that lies on one side of the midline: of one lung of two, and of a lung alone, which may
reach over the midline in front of the heart. Of 17 chest CTs each lung has at least 0.95 on its side."""

LATERAL_SHARE = 0.75
"""A field of view shows half a chest if one side cuts the body to this share of its depth, and the other to
at most one minus this."""

AIR_HU, AIR_SHARE, AIRLESS_SHARE = -500.0, 0.02, 0.25
"""Lungs hold air: of eleven chest CTs, and of 56 with simulated disease, at least 36 % are darker than this.
A part with less than `AIR_SHARE` is lung only beside one with air, neither of them four times the other."""

OUTSIDE_HU, OUTSIDE_SHARE, STRAY_SHARE = -930.0, 0.25, 0.5
"""A dark region at the edge of an axial slice is air around the patient if less than `OUTSIDE_SHARE` of it is
denser than `OUTSIDE_HU`; a part of the mask with `STRAY_SHARE` of its volume in such air is no lung. In an
emphysematous lung that the field of view cuts (median -947), 42 % is denser."""

PADDING_HU = -1500.0
"""Darker is padding beyond a round field of view."""

RIGHT, LEFT = 1, 2

_NECKS_MM = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 13.0, 16.0)
"""Half widths of the bridge between the lungs that are tried; where they touch it is a thin one."""


def find_sides(lungs: Runs, scan: Volume, *, least_ml: float = 0.0) -> tuple[Runs, Runs, tuple[Notice, ...]]:
    """The right and the left lung of a mask of both, and notices about what was left out.

    Parts without air (:func:`with_air`), parts outside of the body (:func:`without_strays`) are left out, and
    so is lung whose side cannot be told (:func:`split_left_right`).

    Args:
        lungs: Of a mask (X, Y, Z) on the scan's grid.
        scan: The CT in HU.
        least_ml: Less than this is left out without a notice.

    Returns:
        Right, left, and the notices, which were not sent.
    """
    airy = with_air(lungs, scan.array)
    kept = without_strays(airy, scan.grid, scan.array)
    right, left = split_left_right(kept, scan.grid, scan.array)
    sizes = (lungs.size, airy.size, kept.size, right.size + left.size)
    airless_ml, outside_ml, unknown_ml = -np.diff(sizes) * scan.grid.voxel_ml
    unknown = f"{unknown_ml:.0f} ml of lung were left out: the scan does not show on which side they are"
    remedy = "look at the scan; one that also shows the spine, or both sides of the body, tells the side"
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

    The lungs touch in front of the heart and behind the oesophagus, where only the pleura is between
    them. The mask is eroded until a large part is left on either side of the midline
    (:func:`medseg.inference.midline.find_midline`); every voxel then belongs to the nearest part.

    If no erosion up to 16 mm separates two parts, each connected part is a lung of the side on which two
    thirds of it lie, and a part that lies on both sides is cut at the midline. A scan that does not show the
    midline may still show air beside the body on one side: that side is lateral. Without that, too, the side
    is unknown.

    Without ``hu`` nothing is known of the midline: two large parts are told apart by their position to one
    another, and a lone one by the middle of the scan.

    Args:
        lungs: Of a mask (X, Y, Z).
        grid: Of the mask.
        hu: The CT, (X, Y, Z).

    Returns:
        Right and left, without common voxels. Voxels of ``lungs`` in neither have no side that can be told.
    """
    none = lungs.kept(np.zeros(len(lungs.start), dtype=np.bool_))
    box = lungs.box()
    if box is None:
        return none, none
    lattice = UprightLattice.of(grid, box, LUNG_LATTICE_MM)
    midline = _midline(grid, box, hu)
    lone = None if midline is not None else _lone_side(lungs, grid, hu)
    # Half a chest holds one lung: its lobes must not be taken for two.
    necks_mm = _NECKS_MM[:1] if lone is not None and hu is not None else _NECKS_MM
    sides = _sides(lattice.foreground(lungs), lattice, midline, necks_mm)
    if sides is not None:
        found = lattice.divide(lungs, sides)
        right, left = found.get(RIGHT, none), found.get(LEFT, none)
        smaller = SMALLER if hu is None else LONE_SMALLER
        if (
            midline is not None
            or lone is None
            or min(right.size, left.size) >= smaller * max(right.size, left.size)
        ):
            return right, left
    return (lungs if lone == RIGHT else none), (lungs if lone == LEFT else none)


def _midline(grid: Grid, box: Box, hu: Array | None) -> Midline | None:
    """The midline of a CT in the slices that a box holds."""
    if hu is None:
        return None
    lattice = _body_lattice(grid, box)
    return find_midline(lattice.sampled(hu), lattice.positions_mm())


def _body_lattice(grid: Grid, box: Box) -> UprightLattice:
    """The lattice for questions about the body in the axial slices that a box holds."""
    axial = grid.moves_to("RAS")[0][2]
    x, y, z = (box[axis] if axis == axial else slice(0, grid.shape[axis]) for axis in range(3))
    return UprightLattice.of(grid, (x, y, z), BODY_LATTICE_MM)


def _lone_side(lungs: Runs, grid: Grid, hu: Array | None) -> int | None:
    """`RIGHT` or `LEFT` of a lung in a scan that does not show the midline; None if it cannot be told."""
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
    cut_left, cut_right = cut_shares(body_outline(_body_lattice(grid, box).sampled(hu)))
    if cut_left >= LATERAL_SHARE and cut_right <= 1 - LATERAL_SHARE:
        return RIGHT
    if cut_right >= LATERAL_SHARE and cut_left <= 1 - LATERAL_SHARE:
        return LEFT
    return None


def _sides(
    lungs: Binary, lattice: UprightLattice, midline: Midline | None, necks_mm: Sequence[float]
) -> npt.NDArray[np.uint8] | None:
    """`RIGHT` or `LEFT` for every point, also outside the lungs; None if neither parts nor midline tell."""
    from scipy import ndimage

    positions = lattice.positions_mm()
    right_of = (
        [] if midline is None else [np.broadcast_to(r, lungs.shape) for r in midline.right_of(positions)]
    )
    seeds = _two_parts(lungs, lattice.spacing_mm, right_of, necks_mm)
    if seeds is None:
        if midline is None:
            return None
        seeds = _parts_of_lone(lungs, right_of)
    # The nearest part decides about recesses, which the erosion has taken away.
    indices = ndimage.distance_transform_edt(
        seeds == 0, sampling=lattice.spacing_mm, return_distances=False, return_indices=True
    )
    return np.asarray(seeds[tuple(indices)])


def _two_parts(
    lungs: Binary,
    spacing_mm: tuple[float, float, float],
    right_of: list[Binary],
    necks_mm: Sequence[float],
) -> npt.NDArray[np.uint8] | None:
    """`RIGHT` and `LEFT` in the parts that the least sufficient erosion leaves; None if there is none."""
    from scipy import ndimage

    depth_mm, voxel_ml = None, prod(spacing_mm) / 1000
    for neck_mm in necks_mm:
        core = lungs
        if neck_mm > 0:
            if depth_mm is None:  # it takes long, and most lungs do not touch
                # The scan's faces are no surface of the lungs: in low slabs nothing would be left.
                padded = np.pad(lungs, 1, mode="edge")
                depth_mm = ndimage.distance_transform_edt(padded, sampling=spacing_mm)[1:-1, 1:-1, 1:-1]
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
            continue  # both lungs are in it
        ones = [np.where(side == one, sizes, 0).max() for one in (RIGHT, LEFT)]
        # What was apart from the beginning may be small: a lung that has shrunk.
        least = SMALLEST_ML / voxel_ml if neck_mm == 0 else SMALLER * max(ones)
        if min(ones) >= least:
            return np.asarray(np.where(sizes >= least, side, 0).astype(np.uint8)[parts])
    return None


def _side_of_parts(
    parts: npt.NDArray[np.int32], sizes: Array, right_of: list[Binary], share: float
) -> Array | None:
    """`RIGHT`, `LEFT`, or 0 for both, of each part, from estimates of the midline; None without one."""
    if not right_of:
        return None
    shares = np.array([np.bincount(parts[right], minlength=len(sizes)) for right in right_of])
    shares = shares / np.maximum(sizes, 1)
    right = (shares.mean(axis=0) >= share) & (shares.min(axis=0) >= 0.5)
    left = (shares.mean(axis=0) <= 1 - share) & (shares.max(axis=0) <= 0.5)
    return np.where(right, RIGHT, np.where(left, LEFT, 0)) * (sizes > 0)


def _side_by_order(parts: npt.NDArray[np.int32], sizes: Array) -> Array:
    """The side of the two largest parts, from their position to one another; 0 for all others."""
    second, first = np.argsort(sizes, kind="stable")[-2:]
    middle = [np.flatnonzero(parts == number) // prod(parts.shape[1:]) for number in (second, first)]
    side = np.zeros(len(sizes), dtype=np.intp)
    lies_right = middle[0].mean() > middle[1].mean()
    side[second], side[first] = (RIGHT, LEFT) if lies_right else (LEFT, RIGHT)
    return side


def _parts_of_lone(lungs: Binary, right_of: list[Binary]) -> npt.NDArray[np.uint8]:
    """The side of each connected part; of one that lies on both sides, of each of its points."""
    from scipy import ndimage

    parts, count = ndimage.label(lungs, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    side = _side_of_parts(parts, sizes, right_of, LONE_SIDED)
    assert side is not None
    votes = np.mean(right_of, axis=0) > 0.5
    halves = np.where(votes, RIGHT, LEFT)
    return np.asarray(np.where(lungs, np.where(side[parts] > 0, side[parts], halves), 0).astype(np.uint8))


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


def without_strays(lungs: Runs, grid: Grid, hu: Array) -> Runs:
    """A mask of both lungs without the parts (26-connected) that lie in the air around the patient.

    Args:
        lungs: Of a mask (X, Y, Z).
        grid: Of the mask.
        hu: The CT, (X, Y, Z).
    """
    box = lungs.box()
    if box is None:
        return lungs
    lattice = _body_lattice(grid, box)
    outside = _outside(lattice.sampled(hu)).astype(np.uint8)
    none = lungs.kept(np.zeros(len(lungs.start), dtype=np.bool_))
    air = lattice.divide(lungs, outside).get(1, none)
    part, count = components(lungs, corners=True)
    sizes = np.bincount(part, weights=lungs.lengths, minlength=count)
    within = np.searchsorted(lungs.start, air.start, side="right") - 1
    stray = np.bincount(part[within], weights=air.lengths, minlength=count) >= STRAY_SHARE * sizes
    return lungs.kept(~stray[part])


def _outside(hu: Array) -> Binary:
    """The air around the patient in an upright CT, without padding."""
    from scipy import ndimage

    padding = hu < PADDING_HU
    parts, at_edge = planar_parts((hu < BODY_HU) & ~padding)
    if padding.any():
        across = np.ones((3, 3, 1), dtype=np.bool_)
        at_edge[parts[ndimage.binary_dilation(padding, across)]] = True
        at_edge[0] = False
    sizes = np.bincount(parts.ravel(), minlength=len(at_edge))
    denser = np.bincount(parts[hu > OUTSIDE_HU], minlength=len(at_edge))
    return np.asarray((at_edge & (denser < OUTSIDE_SHARE * sizes))[parts])
