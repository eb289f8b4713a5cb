"""The midline of the chest in a CT, from the outline of the body and from the spine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medseg.images.run_length import Array, Binary

BODY_HU = -500.0
"""Denser is body (or table): halfway between air and soft tissue."""

BONE_HU, SPINE_MM, SPINE_SHARE, SPINE_RATIO = 200.0, (40.0, 60.0), 0.14, 1.3
"""The spine fills a window of `SPINE_MM` (across, deep) in the back half of the body with this share of bone,
and with this many times the bone of any other place. In 17 chest CTs it has 0.16 to 0.54, and 1.7 to 4.5
times that of the next place; in a head, 0.12 and 1.1 times."""

SPINE_DRIFT_MM, SPINE_SLAB_MM = 40.0, 60.0
"""The spine of a slice is looked for about this far from that of the whole scan, in slabs of this height."""

CUT_SHARE = 0.5
"""The outline is of use where the left and the right face of the scan cut the body to at most this share of
its depth, in the median slice: in an ellipse this moves the middle by a thirtieth of the width."""

LEAST_AHEAD_MM = 20.0
"""The middle of the outline lies at least this far in front of the spine, and more ahead than aside."""

SPINE_ASIDE = 0.2
"""The spine lies at most this share of the body's width beside the middle of its outline. In 13 chest CTs,
whole and as 1,226 stacks of one to three slices, upright and turned by 20 and 30 degrees, it lies at most
0.18 beside it; shoulder blades and humeral heads, which can hold more bone, lie at least 0.21 beside it."""

SPINE_DEPTHS, SPINE_WIDTHS = 0.4, 0.4
"""Where the field of view cuts the body on one side, the spine lies at least these shares of the body's depth
and of its visible width from the other side. In 13 chest CTs it lies at least 0.43 of the depth from either
side, turned patients included; a shoulder blade that was taken for it lay at 0.29."""

STRAIGHT_MM = 100.0
"""Lower stacks of slices have an upright midline: they are too low to see a tilt."""

Plane = tuple[float, float, float, float]


@dataclass(frozen=True)
class Midline:
    """Estimates of the plane between the two halves of a body.

    Attributes:
        planes: Coefficients (a, b, c, d) of each estimate. A point lies to the right where
            a x + b y + c z > d, in mm from the scan's left, back and lowest voxel.
    """

    planes: tuple[Plane, ...]

    def right_of(self, positions_mm: Sequence[Array]) -> list[Binary]:
        """For each plane, whether points lie to the right of it.

        Args:
            positions_mm: x, y and z of the points, as arrays that broadcast.
        """
        x, y, z = positions_mm
        return [np.asarray(a * x + b * y + c * z > d) for a, b, c, d in self.planes]


def find_midline(hu: Array, positions_mm: tuple[Array, Array, Array]) -> Midline | None:
    """The midline of a chest; None if the scan does not show it.

    Three planes are given, as far as they are known: upright through the middle of the body's outline,
    upright through the spine, and through both, which follows a patient who lies turned. The outline is not
    used where the field of view cuts it.

    Args:
        hu: A CT, upright (X, Y, Z), some 5 mm between voxels.
        positions_mm: Of its voxels, as open grids, see `UprightLattice.positions_mm`.
    """
    body = body_outline(hu)
    there = body.any(axis=(0, 1))
    if not there.any():
        return None
    hu, body = hu[:, :, there], body[:, :, there]
    x, y, z = (positions_mm[0][:, 0, 0], positions_mm[1][0, :, 0], positions_mm[2][0, 0, there])
    outline = _line(z, _centres(body, x, y)) if max(cut_shares(body)) <= CUT_SHARE else None
    found = _spine(hu, body, x, y, z)
    spine = None if found is None else _line(z, found)
    if spine is not None and not _plausible(spine, outline, body, x, y, z):
        spine = None
    planes: list[Plane] = []
    for line in (outline, spine):
        if line is not None:
            planes.append((1.0, 0.0, -line[0][0], line[0][1]))
    if outline is not None and spine is not None:
        planes += [plane for plane in (_through(spine, outline, float(z.mean())),) if plane is not None]
    return Midline(tuple(planes)) if planes else None


def body_outline(hu: Array) -> Binary:
    """The largest dense part of a CT, filled in each slice; a cavity that the scan's edge cuts stays open."""
    from scipy import ndimage

    parts, count = ndimage.label(hu > BODY_HU)
    if not count:
        return np.zeros(hu.shape, dtype=np.bool_)
    body = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    gaps, at_edge = planar_parts(~body)
    return np.asarray(~at_edge[gaps])


def cut_shares(body: Binary) -> tuple[float, float]:
    """How deep the left and the right face of a scan cut a body, as shares of its depth, in the median slice.

    Args:
        body: Upright (X, Y, Z).
    """
    # From the first to the last voxel of each column: the face may cut a lung, which is open there.
    depth = body.shape[1] - body.argmax(axis=1) - body[:, ::-1].argmax(axis=1)
    depth[~body.any(axis=1)] = 0
    left, right = (float(np.median(depth[face] / np.maximum(depth.max(axis=0), 1))) for face in (0, -1))
    return left, right


def planar_parts(dark: Binary) -> tuple[npt.NDArray[np.int32], Binary]:
    """The parts of a mask in each axial slice, numbered from 1, and which of them touch the slice's edges.

    The background counts as part 0, which touches none.
    """
    from scipy import ndimage

    flat = np.zeros((3, 3, 3), dtype=np.bool_)
    flat[:, 1, 1] = flat[1, :, 1] = True
    parts, count = ndimage.label(dark, flat)
    at_edge = np.zeros(count + 1, dtype=np.bool_)
    for face in (parts[0], parts[-1], parts[:, 0], parts[:, -1]):
        at_edge[face.ravel()] = True
    at_edge[0] = False
    return parts, at_edge


def _centres(body: Binary, x: Array, y: Array) -> Array:
    """The middle of the body in each slice, (Z, 2)."""
    area = body.sum(axis=(0, 1))
    return np.stack([x @ body.sum(axis=1) / area, y @ body.sum(axis=0) / area], axis=1)


def _spine(hu: Array, body: Binary, x: Array, y: Array, z: Array) -> Array | None:
    """The middle of the spine in each slice, (Z, 2); None if there is none.

    It is the place with most bone in the back half of the body: over all slices first, which neither a rib
    nor a heart full of contrast is, then near that place in each.
    """
    from scipy import ndimage

    step = [float(along[1] - along[0]) if len(along) > 1 else 1.0 for along in (x, y, z)]
    depth = np.where(body.any(axis=0), y[:, None], np.nan)
    half = (np.nanmin(depth, axis=0) + np.nanmax(depth, axis=0)) / 2
    bone = (hu > BONE_HU) & body & (y[None, :, None] < half)
    window = [max(1, round(mm / along)) for mm, along in zip(SPINE_MM, step, strict=False)]
    share = ndimage.uniform_filter(bone.astype(np.float32), (*window, 1), mode="constant")
    whole = share.mean(axis=2)
    at = np.unravel_index(whole.argmax(), whole.shape)
    elsewhere = whole[np.abs(x - x[at[0]]) > SPINE_MM[0]].max(initial=0.0)
    if whole[at] < max(SPINE_SHARE, SPINE_RATIO * elsewhere):
        return None
    share = ndimage.uniform_filter1d(share, max(1, round(SPINE_SLAB_MM / step[2])), axis=2, mode="nearest")
    away2 = np.add.outer((x - x[at[0]]) ** 2, (y - y[at[1]]) ** 2)
    share *= np.exp(-away2 / 2 / SPINE_DRIFT_MM**2)[..., None]
    across, deep = np.unravel_index(share.reshape(-1, len(z)).argmax(axis=0), whole.shape)
    return np.stack([x[across], y[deep]], axis=1)


def _plausible(spine: Array, outline: Array | None, body: Binary, x: Array, y: Array, z: Array) -> bool:
    """Whether a spine lies in the middle of the body, as far as the field of view shows the body."""
    at = float(spine[0][0] * z.mean() + spine[0][1])
    skin = x[body.any(axis=(1, 2))][[0, -1]]
    if outline is not None:
        return bool(abs(at - (outline[0][0] * z.mean() + outline[0][1])) <= SPINE_ASIDE * np.ptp(skin))
    depth = np.ptp(y[body.any(axis=(0, 2))])
    least = max(SPINE_DEPTHS * depth, SPINE_WIDTHS * np.ptp(skin))
    uncut = np.array(cut_shares(body)) <= CUT_SHARE
    return bool((np.abs(at - skin) >= least)[uncut].all())


def _line(z: Array, points: Array) -> Array:
    """Slope and value at z = 0 of x and y along a line through most of the points, (2, 2)."""
    if len(z) < 2 or z[-1] - z[0] < STRAIGHT_MM:
        return np.stack([np.zeros(2), np.median(points, axis=0)], axis=1)
    # Theil-Sen: slices with arms, shoulders or pelvis do not count.
    far = len(z) // 2
    slopes = np.median((points[far:] - points[:-far]) / (z[far:] - z[:-far])[:, None], axis=0)
    return np.stack([slopes, np.median(points - slopes * z[:, None], axis=0)], axis=1)


def _through(back: Array, front: Array, z: float) -> Plane | None:
    """The plane from a line at the back to one in front of it, at height z; None if that is not in front."""
    ahead = (front[:, 0] - back[:, 0]) * z + front[:, 1] - back[:, 1]
    if ahead[1] < max(LEAST_AHEAD_MM, abs(ahead[0])):
        return None
    # The third component of the cross product of the way from the line at the back with that ahead.
    a, b = ahead[1], -ahead[0]
    c, d = -(a * back[0][0] + b * back[1][0]), a * back[0][1] + b * back[1][1]
    return float(a), float(b), float(c), float(d)
