"""Tissues of the phantom on a grid or at single points."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from medseg.images.grid import Grid
from medseg.phantom.anatomy import CODE, Part
from medseg.phantom.shapes import Array, Coordinates, Point

_SLAB_VOXELS = 1 << 16  # at eight points per voxel, working memory stays near 30 MB on any grid
_BLOCK_POINTS = 1 << 15  # the intermediate arrays of a formula stay in the cache of the processor


class Layer(NamedTuple):
    """Parts in a common space, world mm divided by ``scale``, and the corners (n, 8, 3) of their boxes."""

    parts: tuple[Part, ...]
    scale: Point
    corners: Array


def slabs(grid: Grid) -> Iterator[tuple[slice, Array]]:
    """Slices along the first axis, each with the affine of that part of the grid."""
    rows = max(1, _SLAB_VOXELS // (grid.shape[1] * grid.shape[2]))
    for start in range(0, grid.shape[0], rows):
        affine = grid.affine.copy()
        affine[:3, 3] += affine[:3, 0] * start
        yield slice(start, min(start + rows, grid.shape[0])), affine


def coordinates(affine: Array, ranges: Sequence[tuple[int, int]]) -> Coordinates:
    """World x, y, z of a block of voxels; on an axis-aligned grid each is a line, not a block."""
    axes = np.ogrid[tuple(slice(low, high) for low, high in ranges)]
    x, y, z = (
        sum((row[a] * axes[a] for a in range(3) if row[a]), start=np.full((1, 1, 1), row[3]))
        for row in affine[:3]
    )
    return x, y, z


def whole(shape: Sequence[int]) -> list[tuple[int, int]]:
    """Index ranges that cover a whole grid."""
    return [(0, n) for n in shape]


def layer(parts: Sequence[Part], scale: Point) -> Layer:
    """The layer of these parts in a space scaled by ``scale``."""
    boxes = np.array([part.shape.box for part in parts]).reshape(-1, 2, 3)
    choice = np.array(list(product((0, 1), repeat=3)))
    return Layer(tuple(parts), scale, boxes[:, choice, np.arange(3)])


def tissues_on(layers: Sequence[Layer], affine: Array, shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """Tissue codes, uint8 (X, Y, Z), at the voxel centres."""
    tissues = np.zeros(shape, np.uint8)
    for layer in layers:
        unscaled = np.diag([*(1 / s for s in layer.scale), 1.0]) @ affine
        inverse = np.linalg.inv(unscaled)
        reach = layer.corners @ inverse[:3, :3].T + inverse[:3, 3]
        low = np.maximum(np.floor(reach.min(axis=1)), 0).astype(int)
        high = np.minimum(np.ceil(reach.max(axis=1)) + 1, shape).astype(int)
        # A part is painted only into the block of voxels that its box can reach.
        for number in np.flatnonzero((low < high).all(axis=1)):
            for ranges in _blocks(low[number].tolist(), high[number].tolist()):
                block = tissues[tuple(slice(a, b) for a, b in ranges)]
                _fill(block, layer.parts[number], coordinates(unscaled, ranges))
    return tissues


def _blocks(low: Sequence[int], high: Sequence[int]) -> Iterator[list[tuple[int, int]]]:
    """Index ranges of consecutive blocks, of at most `_BLOCK_POINTS` points or one row, from low to high."""
    (start, *others), (stop, *ends) = low, high
    rest = list(zip(others, ends, strict=True))
    rows = max(1, _BLOCK_POINTS // math.prod(b - a for a, b in rest))
    for first in range(start, stop, rows):
        yield [(first, min(first + rows, stop)), *rest]


def tissues_at(layers: Sequence[Layer], points: Array) -> npt.NDArray[np.uint8]:
    """Tissue codes, uint8 (...), at world points (..., 3)."""
    tissues = np.zeros(points.shape[:-1], np.uint8)
    for layer in layers:
        x, y, z = np.moveaxis(points / np.asarray(layer.scale), -1, 0)
        for part in layer.parts:
            _fill(tissues, part, (x, y, z))
    return tissues


def _fill(tissues: npt.NDArray[np.uint8], part: Part, xyz: Coordinates) -> None:
    inside = part.shape.inside(xyz)
    if part.only is not None:
        inside = inside & (tissues == CODE[part.only])
    np.copyto(tissues, CODE[part.tissue], where=inside)
