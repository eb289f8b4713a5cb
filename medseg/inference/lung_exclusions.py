"""Parts of a lung mask that are not lung: airless organs, and air around the patient."""

from __future__ import annotations

from itertools import product

import numpy as np

from medseg.images.connected_components import components
from medseg.images.grid import Grid
from medseg.images.run_length import Array, Binary, Runs
from medseg.inference.midline import BODY_HU, planar_parts
from medseg.inference.upright_lattice import body_lattice

AIR_HU, AIR_SHARE, AIRLESS_SHARE = -500.0, 0.02, 0.25
"""Lungs hold air: in eleven chest CTs, and in 56 with simulated disease, at least 36 % of the lungs is darker
than `AIR_HU`. A part with less air than `AIR_SHARE` is lung only beside a part with air of similar volume
(at least `AIRLESS_SHARE` of one another)."""

OUTSIDE_HU, OUTSIDE_SHARE, STRAY_SHARE = -930.0, 0.25, 0.5
"""A dark region at the edge of an axial slice is air around the patient if less than `OUTSIDE_SHARE` of it is
denser than `OUTSIDE_HU`. A part of the mask with `STRAY_SHARE` or more of its volume in such air is not lung.
In an emphysematous lung that the field of view cuts (median -947 HU), 42 % is denser."""

PADDING_HU = -1500.0
"""Darker voxels are padding beyond a round field of view."""


def with_air(lungs: Runs, hu: Array) -> Runs:
    """A mask of both lungs without airless parts such as brain, liver or kidney.

    A network that has learned how consolidated lung looks may find it in organs that its training did not
    show. A 26-connected part with less air than `AIR_SHARE` is left out, unless its volume and that of the
    largest part with air are at least `AIRLESS_SHARE` of one another: then it may be an airless lung.

    Args:
        lungs: Runs of a mask (X, Y, Z).
        hu: The CT in HU, (X, Y, Z).
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
    """A mask of both lungs without 26-connected parts that lie outside the body.

    Outside is the air around the patient, and what lies beyond it as seen from the body: the core of a
    hollow table is denser than air, and the field of view may cut it open.

    Args:
        lungs: Runs of a mask (X, Y, Z).
        grid: The mask's grid.
        hu: The CT in HU, (X, Y, Z).
    """
    box = lungs.box()
    if box is None:
        return lungs
    lattice = body_lattice(grid, box)
    sampled = lattice.sampled(hu)
    air_around = _outside(sampled, lattice.highest_across(hu))
    outside = (air_around | _beyond(air_around, _trunk(sampled))).astype(np.uint8)
    none = lungs.kept(np.zeros(len(lungs.start), dtype=np.bool_))
    air = lattice.divide(lungs, outside).get(1, none)
    part, count = components(lungs, corners=True)
    sizes = np.bincount(part, weights=lungs.lengths, minlength=count)
    within = np.searchsorted(lungs.start, air.start, side="right") - 1
    stray = np.bincount(part[within], weights=air.lengths, minlength=count) >= STRAY_SHARE * sizes
    return lungs.kept(~stray[part])


def _outside(hu: Array, highest: Array) -> Binary:
    """Where an upright CT shows air around the patient; padding excluded.

    Args:
        hu: The CT at the points of a lattice.
        highest: Around each point; a thin plate that closes a table lies between the points.
    """
    from scipy import ndimage

    padding = hu < PADDING_HU
    parts, at_edge = planar_parts((highest < BODY_HU) & ~padding)
    if padding.any():
        across = np.ones((3, 3, 1), dtype=np.bool_)
        at_edge[parts[ndimage.binary_dilation(padding, across)]] = True
        at_edge[0] = False
    sizes = np.bincount(parts.ravel(), minlength=len(at_edge))
    denser = np.bincount(parts[hu > OUTSIDE_HU], minlength=len(at_edge))
    return np.asarray((at_edge & (denser < OUTSIDE_SHARE * sizes))[parts])


def _trunk(hu: Array) -> Binary:
    """The largest dense part of an upright CT, without thin plates such as the shell of a table."""
    from scipy import ndimage

    dense = hu > BODY_HU
    across = ndimage.generate_binary_structure(2, 1)[..., None]
    parts, count = ndimage.label(ndimage.binary_erosion(dense, across, border_value=1))
    if not count:
        return np.zeros_like(dense)
    largest = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    return np.asarray(ndimage.binary_dilation(largest, across) & dense)


def _beyond(air: Binary, body: Binary) -> Binary:
    """Points that air around the patient separates from the body, to the side or in front or behind.

    A lung that the field of view cuts is open to a face of the scan, but no such air lies between it and the
    body.
    """
    beyond = np.zeros_like(body)
    for axis, step in product((0, 1), (1, -1)):
        order = tuple(slice(None, None, step if n == axis else None) for n in range(3))
        inner, free = body[order], ~np.logical_or.accumulate(body[order], axis)
        free &= inner.any(axis, keepdims=True)
        deeper = np.flip(np.logical_or.accumulate(np.flip(air[order] & free, axis), axis), axis)
        beyond[order] |= free & deeper
    return beyond
