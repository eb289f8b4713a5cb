"""The input of lungmask's network: axial slices, cropped to the body and resized to 256 x 256.

The steps, their order and their rounding are those of ``lungmask.utils.preprocess`` (lungmask 0.2.22,
Hofmanninger et al. 2020, doi:10.1186/s41747-020-00173-2). A slice of integers stays one of integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

Voxels: TypeAlias = npt.NDArray[Any]
Binary: TypeAlias = npt.NDArray[np.bool_]
Box: TypeAlias = tuple[slice, slice]
_Number = TypeVar("_Number", np.uint8, np.float32)

SIDE = 256
"""Rows and columns of the network's input."""

_LOW_HU, _HIGH_HU = -1024, 600
_BODY_HU = -500
_COARSE = 128


@dataclass(frozen=True)
class BodySlice:
    """A slice as the network sees it.

    Attributes:
        image: float32 (256, 256), 0 at -1024 HU and 1 at 600 HU.
        box: The part of the slice that it shows, rows and columns.
    """

    image: npt.NDArray[np.float32]
    box: Box

    def restored(self, values: npt.NDArray[_Number]) -> npt.NDArray[_Number]:
        """Values (256, 256) at the resolution of the box: each voxel has the nearest one."""
        rows, columns = (nearest(SIDE, each.stop - each.start) for each in self.box)
        return values[np.ix_(rows, columns)]


def body_slice(axial: Voxels) -> BodySlice:
    """A slice (rows to posterior, columns to left) in HU, cropped to the body."""
    from scipy import ndimage

    clipped = np.clip(axial, _LOW_HU, _HIGH_HU)
    box = body_box(clipped)
    cropped = clipped[box]
    resized = ndimage.zoom(cropped, np.asarray([SIDE, SIDE]) / np.asarray(cropped.shape), order=1)
    image = np.divide(np.minimum(resized, _HIGH_HU) + 1024, 1624)
    return BodySlice(np.asarray(image, dtype=np.float32), box)


def body_box(clipped: Voxels) -> Box:
    """The box of the body in a clipped slice; the whole slice if there is none."""
    rows, columns = (nearest(n, _COARSE) for n in clipped.shape)
    body = _body(clipped[np.ix_(rows, columns)])
    if not body.any():
        return slice(0, clipped.shape[0]), slice(0, clipped.shape[1])
    back = [nearest(_COARSE, n) for n in clipped.shape]
    if min(clipped.shape) < _COARSE:
        body = _first_part(body[np.ix_(*back)])
        first, second = (np.flatnonzero(body.any(axis=1 - axis)) for axis in (0, 1))
    else:
        # Enlarging keeps the body in one piece, so that its extent along each axis is enough.
        there = [body.any(axis=1), body.any(axis=0)]
        first, second = (np.flatnonzero(np.asarray(each)[at]) for each, at in zip(there, back, strict=True))
    return slice(int(first[0]), int(first[-1]) + 1), slice(int(second[0]), int(second[-1]) + 1)


def _body(coarse: Voxels) -> Binary:
    """The largest region above -500 HU, closed, with holes filled, and opened."""
    from scipy import ndimage

    mask: Binary = ndimage.binary_closing(coarse > _BODY_HU)
    outside, _ = ndimage.label(~np.pad(mask, 1), structure=np.ones((3, 3)))
    mask = np.asarray(outside != outside[0, 0])[1:-1, 1:-1]
    mask = ndimage.binary_erosion(mask, iterations=2)
    parts, count = ndimage.label(mask)
    if not count:
        return np.zeros_like(mask)
    largest = 1 + int(np.bincount(parts.ravel())[1:].argmax())
    grown: Binary = ndimage.binary_dilation(parts == largest, iterations=2)
    return grown


def _first_part(mask: Binary) -> Binary:
    """The first component, corners connected."""
    from scipy import ndimage

    parts, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    chosen: Binary = parts == 1
    return chosen


@lru_cache(maxsize=4096)
def nearest(n_in: int, n_out: int) -> npt.NDArray[np.intp]:
    """The voxel that ``scipy.ndimage.zoom`` of order 0 takes for each new one along an axis."""
    from scipy import ndimage

    places: npt.NDArray[np.intp] = ndimage.zoom(np.arange(n_in), n_out / n_in, order=0)
    return places
