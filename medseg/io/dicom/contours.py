"""Outlines of regions of pixels, and the inverse: the pixels inside an outline."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

from medseg.images.grid import Array

# A keyhole must not pass through the centre of a pixel, where readers would disagree.
_CLEARANCE = 0.02
_NEIGHBOURS = 8


def outlines(region: npt.NDArray[np.bool_]) -> list[Array]:
    """Closed polygons (n, 2) around ``region`` (X, Y) in pixel units, halfway between inside and outside.

    Marching squares at 0.5 (Lorensen and Cline 1987, as in scikit-image); pixels that only
    touch at a corner are separate. A hole is joined to the outline around it by a keyhole, a
    channel of zero width. The first point is not repeated at the end.
    """
    from skimage.measure import find_contours

    padded = np.pad(region, 1)
    parts, _ = ndimage.label(padded)  # corners do not connect, as with fully_connected="low"
    outer: dict[int, Array] = {}
    holes: dict[int, list[Array]] = {}
    for contour in find_contours(padded.astype(np.uint8), 0.5, fully_connected="low"):
        points = _straightened(contour[:-1])
        part = _part(parts, points[0])
        # The outline of a part encloses more area than its holes.
        if part in outer and abs(_area(points)) < abs(_area(outer[part])):
            holes.setdefault(part, []).append(points)
        else:
            if part in outer:
                holes.setdefault(part, []).append(outer[part])
            outer[part] = points
    return [_with_holes(points, holes.get(part, [])) - 1.0 for part, points in outer.items()]


def filled(polygon: Array, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The pixels whose centre is inside ``polygon`` (n, 2) by the even-odd rule: bool (X, Y).

    An edge that is traversed twice, as in a keyhole, has no effect at all: its crossings are
    computed from the same end in both directions.
    """
    inside: npt.NDArray[np.bool_] = np.zeros(shape, np.bool_)
    corner = np.clip(np.floor(polygon.min(axis=0)), 0, shape).astype(int)
    size = np.clip(np.ceil(polygon.max(axis=0)) + 1, 0, shape).astype(int) - corner
    if size.min() > 0:
        box = tuple(slice(c, c + n) for c, n in zip(corner, size, strict=True))
        inside[box] = _inside(polygon - corner, (int(size[0]), int(size[1])))
    return inside


def _inside(polygon: Array, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    ends = np.stack([polygon, np.roll(polygon, -1, axis=0)])
    swap = (ends[0, :, 1] > ends[1, :, 1]) | (
        (ends[0, :, 1] == ends[1, :, 1]) & (ends[0, :, 0] > ends[1, :, 0])
    )
    low, high = np.where(swap[:, None], ends[1], ends[0]), np.where(swap[:, None], ends[0], ends[1])
    # Rows y with low.y <= y < high.y, so that a vertex on a row counts once.
    first = np.maximum(np.ceil(low[:, 1]), 0).astype(int)
    last = np.minimum(np.ceil(high[:, 1]), shape[1]).astype(int)
    counts = np.maximum(last - first, 0)
    edge = np.repeat(np.arange(len(counts)), counts)
    row = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    slope = (high[edge, 0] - low[edge, 0]) / (high[edge, 1] - low[edge, 1])
    column = low[edge, 0] + (row - low[edge, 1]) * slope
    # Every crossing toggles inside and outside for all pixels to its right.
    start = np.clip(np.ceil(column), 0, shape[0]).astype(int)
    turns = np.bincount(start * shape[1] + row, minlength=(shape[0] + 1) * shape[1])
    inside: npt.NDArray[np.bool_] = np.cumsum(turns.reshape(-1, shape[1])[:-1], axis=0) % 2 == 1
    return inside


def _straightened(points: Array) -> Array:
    """The polygon without points on the straight line between their neighbours."""
    into, out = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    bends = into[:, 0] * out[:, 1] - into[:, 1] * out[:, 0]
    kept: Array = points[np.abs(bends) > 1e-9]
    return kept


def _part(parts: npt.NDArray[np.int32], point: Array) -> int:
    """The part that a point halfway between an inside and an outside pixel belongs to."""
    one, other = np.floor(point).astype(int), np.ceil(point).astype(int)
    return int(parts[tuple(one)] or parts[tuple(other)])


def _area(points: Array) -> float:
    x, y = points.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def _with_holes(outline: Array, holes: list[Array]) -> Array:
    # From left to right, so that a channel may end on an earlier hole.
    for hole in sorted(holes, key=lambda points: float(points[:, 0].min())):
        i, j = _keyhole(outline, hole)
        loop = np.concatenate([hole[j:], hole[: j + 1]])
        outline = np.concatenate([outline[: i + 1], loop, outline[i:]])
    return outline


def _keyhole(outline: Array, hole: Array) -> tuple[int, int]:
    """Indices of the outline's and the hole's points to join: close, and away from pixel centres."""
    distances, nearest = cKDTree(outline).query(hole, k=min(_NEIGHBOURS, len(outline)))
    best = (0, 0)
    for number, flat in enumerate(np.argsort(distances, axis=None)):
        j, place = np.unravel_index(flat, distances.shape)
        i = int(nearest[j, place])
        if number == 0:
            best = (i, int(j))
        if _is_clear(outline[i], hole[j]):
            return i, int(j)
    return best


def _is_clear(start: Array, end: Array) -> bool:
    """Whether a line stays away from pixel centres, checked where it crosses rows and columns."""
    for axis in (0, 1):
        low, high = sorted((float(start[axis]), float(end[axis])))
        crossed = np.arange(np.ceil(low), np.floor(high) + 1)
        if not crossed.size:
            continue
        if high == low:
            return bool(low % 1) or not np.arange(*np.ceil(np.sort([start[1 - axis], end[1 - axis]]))).size
        share = (crossed - start[axis]) / (end[axis] - start[axis])
        other = start[1 - axis] + share * (end[1 - axis] - start[1 - axis])
        if (np.abs(other - np.rint(other)) < _CLEARANCE).any():
            return False
    return True
