"""The surface that marching cubes draws between the voxel centres of a mask, as elements with areas.

Every cube of 2 x 2 x 2 neighbouring voxels that are not all inside or all outside holds a surface element
(Lorensen and Cline 1987, doi:10.1145/37402.37422), whose area in mm² follows from its 8 voxels and the voxel
size. The edge of the scan counts as outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import product
from math import prod

import numpy as np
import numpy.typing as npt

Binary = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]
Codes = npt.NDArray[np.uint8]


def surface_elements(mask: Binary, spacing_mm: Sequence[float]) -> tuple[Values, Values]:
    """Positions in mm, (n, d), and areas, (n,), of the surface elements; d is the number of longer axes.

    In a mask of a single slice the elements are pieces of the outline, with lengths in mm.

    Args:
        mask: bool (X, Y, Z).
        spacing_mm: Voxel size along the three axes, which are orthogonal.
    """
    axes = [axis for axis, length in enumerate(mask.shape) if length > 1]
    if not axes:
        return np.zeros((1, 1)), np.ones(1)
    spacing = tuple(float(spacing_mm[axis]) for axis in axes)
    codes = _codes(mask.reshape([mask.shape[axis] for axis in axes]))
    on_surface = (codes != 0) & (codes != 2**2 ** len(axes) - 1)
    positions = np.argwhere(on_surface) * np.asarray(spacing)
    return positions, _areas(spacing)[codes[on_surface]]


def surface_and_volume(mask: Binary, spacing_mm: Sequence[float]) -> tuple[float, float]:
    """Area in mm² and enclosed volume in mm³ of the surface; (0.0, 0.0) for an empty mask.

    A mask of one slice is as thick as its voxels. The surface cuts corners, so it encloses a little less than
    the voxels do.

    Args:
        mask: bool (X, Y, Z).
        spacing_mm: Voxel size along the three axes, which are orthogonal.
    """
    codes = _codes(mask)
    counts = np.array([np.bincount(plane.ravel(), minlength=256) for plane in codes])
    # Gauss: the volume is the integral of x over the projection of the surface on the plane across x.
    projected, moments = _projections()
    volume = float((counts @ projected) @ np.arange(len(counts)) + (counts @ moments).sum())
    areas = _areas(tuple(float(mm) for mm in spacing_mm))
    return float(counts.sum(axis=0) @ areas), volume * float(prod(spacing_mm))


def _codes(mask: Binary) -> Codes:
    """For every cell of neighbouring voxels, the edge included, one bit for each corner inside the mask."""
    padded = np.pad(mask, 1)
    shape = [length - 1 for length in padded.shape]
    codes = np.zeros(shape, np.uint8)
    for bit, corner in enumerate(product((0, 1), repeat=mask.ndim)):
        place = tuple(slice(first, first + length) for first, length in zip(corner, shape, strict=True))
        codes |= padded[place].astype(np.uint8) << bit
    return codes


@cache
def _areas(spacing: tuple[float, ...]) -> Values:
    """The area of the surface in a cell, by the code of its corners: 256 for cubes, 16 for squares.

    Bit i of the code is set if corner i, counted with the last axis fastest, is inside. Along a line the
    weight of an end is 1.
    """
    if len(spacing) == 1:
        return np.array([0.0, 1.0, 1.0, 0.0])
    if len(spacing) == 2:
        along_x, along_y = spacing  # an edge between corners that differ in y runs along x
        cut = 0.5 * float(np.hypot(along_x, along_y))
        by_code = {0: 0.0, 15: 0.0, 6: 2 * cut, 9: 2 * cut}
        by_code |= dict.fromkeys((3, 12), along_y) | dict.fromkeys((5, 10), along_x)
        return np.array([by_code.get(code, cut) for code in range(16)])
    faces = prod(spacing) / np.asarray(spacing)  # mm² of a face across each axis
    return np.array([np.linalg.norm(vectors * faces, axis=1).sum() for vectors, _ in _triangles()])


@cache
def _projections() -> tuple[Values, Values]:
    """For each of 256 codes the area projected on the plane across x, and the integral of x over it."""
    projected = np.array([vectors[:, 0].sum() for vectors, _ in _triangles()])
    moments = np.array([(vectors[:, 0] * centres[:, 0]).sum() for vectors, centres in _triangles()])
    return projected, moments


@cache
def _triangles() -> tuple[tuple[Values, Values], ...]:
    """Area vectors, (k, 3), and centres, (k, 3), of the triangles in a unit cell, for each of 256 codes.

    The corners in the minority are cut off, so that a mask and its complement have the same surface; if
    four corners are inside, those are cut off. DeepMind's table has the same areas for all 256 codes. Vectors
    point out of the mask.
    """
    from skimage.measure import marching_cubes

    none = np.zeros((0, 3))
    found = [(none, none)]
    for code in range(1, 255):
        cut_off = code if code.bit_count() <= 4 else 255 - code
        corners = [float(cut_off >> bit & 1) for bit in range(8)]
        points, triangles, _, _ = marching_cubes(np.reshape(corners, (2, 2, 2)), 0.5, method="lorensen")
        a, b, c = np.moveaxis(points[triangles].astype(np.float64), 1, 0)
        outwards = -0.5 if cut_off == code else 0.5
        found.append((outwards * np.cross(b - a, c - a), (a + b + c) / 3))
    return (*found, (none, none))
