"""Planes of a scan in radiological view: the patient's right on the left, front or head at the top.

Arrays are (X, Y, Z) in RAS order. A picture has rows from the top and columns from the left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medseg.images.grid import Grid
from medseg.images.volume import Voxels

Binary = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Plane:
    """An anatomical plane, as a cut through a volume.

    Attributes:
        across: The axis perpendicular to the plane.
        left: The axis that points to the left of the picture.
        up: The axis that points to the top of the picture.
        sides: Letters for the left and the right of the picture.
        ends: Letters for the top and the bottom of the picture.
    """

    across: int
    left: int
    up: int
    sides: str
    ends: str

    def cut(self, array: Voxels, at: int) -> Voxels:
        """The picture (rows, columns) of slice ``at`` of an array (X, Y, Z) in RAS order."""
        return upright(np.moveaxis(array, self.across, 0)[at])

    def pixel_mm(self, grid: Grid) -> tuple[float, float]:
        """Width and height of a voxel in the picture."""
        return grid.spacing_mm[self.left], grid.spacing_mm[self.up]

    def size_mm(self, grid: Grid) -> tuple[float, float]:
        """Width and height of the picture."""
        width, height = self.pixel_mm(grid)
        return grid.shape[self.left] * width, grid.shape[self.up] * height


AXIAL = Plane(2, 0, 1, sides="RL", ends="AP")
CORONAL = Plane(1, 0, 2, sides="RL", ends="SI")
SAGITTAL = Plane(0, 1, 2, sides="AP", ends="SI")
PLANES = (AXIAL, CORONAL, SAGITTAL)


def upright(plane: Voxels) -> Voxels:
    """The picture (rows, columns) of an array whose axes point to the left and to the top."""
    return plane.T[::-1, ::-1]


def fullest(found: Binary, axis: int) -> int:
    """The slice of an array (X, Y, Z) along ``axis`` with the most voxels; the middle one if it is empty."""
    area = found.sum(axis=tuple(a for a in range(3) if a != axis))
    return int(area.argmax()) if area.any() else found.shape[axis] // 2


def grey_levels(plane: Voxels, limits: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """Intensities as grey values from 0 to 255; values outside ``limits`` become black or white."""
    low, high = limits
    shares = np.clip((plane.astype(np.float32) - low) / (high - low), 0, 1)
    levels: npt.NDArray[np.uint8] = (255 * shares).astype(np.uint8)
    return levels


def coloured(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The picture as RGB, uint8 (rows, columns, 3), for drawing in colour."""
    return np.repeat(grey[..., None], 3, axis=2)


def square_pixels(plane: Voxels, spacing_mm: Sequence[float], pixel_mm: float) -> Voxels:
    """The plane resampled to square pixels of ``pixel_mm`` by nearest neighbour."""
    picked = []
    for n, mm in zip(plane.shape, spacing_mm, strict=True):
        pixels = max(1, round(n * mm / pixel_mm))
        at = ((np.arange(pixels) + 0.5) * pixel_mm / mm).astype(np.int64)
        picked.append(np.minimum(at, n - 1))
    return plane[np.ix_(*picked)]


def inner_border(inside: Binary, width: int = 1) -> Binary:
    """The pixels of a region at most ``width`` from a pixel outside; beyond the picture counts as outside."""
    border: Binary = inside & ~ndimage.binary_erosion(inside, iterations=width)
    return border
