"""Planes of a scan as radiologists look at them: the patient's right on the left, front or head on top.

Arrays are (X, Y, Z) in RAS order. A plane of the picture has rows from the top and columns from the left.
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
    """How a volume is cut.

    Attributes:
        across: The axis that is cut.
        left: The axis that runs to the left of the picture.
        up: The axis that runs to its top.
        sides: Letters of what is seen on the left and on the right.
        ends: Letters of what is seen at the top and at the bottom.
    """

    across: int
    left: int
    up: int
    sides: str
    ends: str

    def cut(self, array: Voxels, at: int) -> Voxels:
        """(rows, columns) of the picture: slice ``at`` of an array (X, Y, Z) in RAS order."""
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
    """(rows, columns) of the picture, from an array whose axes run to its left and to its top."""
    return plane.T[::-1, ::-1]


def fullest(found: Binary, axis: int) -> int:
    """The slice of an array (X, Y, Z) across ``axis`` with most voxels; the middle one without any."""
    area = found.sum(axis=tuple(a for a in range(3) if a != axis))
    return int(area.argmax()) if area.any() else found.shape[axis] // 2


def grey_levels(plane: Voxels, limits: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """Intensities as grey values from 0 to 255; what lies outside of ``limits`` is black or white."""
    low, high = limits
    shares = np.clip((plane.astype(np.float32) - low) / (high - low), 0, 1)
    levels: npt.NDArray[np.uint8] = (255 * shares).astype(np.uint8)
    return levels


def coloured(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(rows, columns, 3), to draw on."""
    return np.repeat(grey[..., None], 3, axis=2)


def square_pixels(plane: Voxels, spacing_mm: Sequence[float], pixel_mm: float) -> Voxels:
    """The plane on square pixels of ``pixel_mm``, each with the value of the voxel under its centre."""
    picked = []
    for n, mm in zip(plane.shape, spacing_mm, strict=True):
        pixels = max(1, round(n * mm / pixel_mm))
        at = ((np.arange(pixels) + 0.5) * pixel_mm / mm).astype(np.int64)
        picked.append(np.minimum(at, n - 1))
    return plane[np.ix_(*picked)]


def inner_border(inside: Binary) -> Binary:
    """The pixels of a region that have a neighbour outside; beyond the picture's edge is outside."""
    border: Binary = inside & ~ndimage.binary_erosion(inside)
    return border
