"""Putting a mask on the grid of its scan: other orders of axes, rounded headers, cropped masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medseg.errors import InputRefused
from medseg.images.grid import ROUNDED_GRID_MM, SAME_GRID_MM, Grid
from medseg.images.volume import Mask
from medseg.system.notices import notify


def placed_on(
    mask: Mask,
    grid: Grid,
    *,
    tolerance_mm: float = ROUNDED_GRID_MM,
    crop: bool = False,
    names: tuple[str, str] = ("mask", "scan"),
) -> Mask:
    """The mask on another grid whose voxels coincide with its own, padded with background.

    Grids whose voxels lie less than half a voxel apart, and at most ``tolerance_mm``, are the same apart
    from rounding: see :data:`medseg.images.grid.ROUNDED_GRID_MM`. A notice tells the distance if it is more
    than 0.01 mm, and if the mask was padded.

    Args:
        mask: A mask on the same grid, whatever the order and direction of its axes, or on a part of it, such
            as the box around a structure that 3D Slicer stores.
        grid: The grid of the scan.
        tolerance_mm: The largest distance between corresponding voxels.
        crop: Whether the mask may extend beyond the grid with background, which is cropped. Otherwise that is
            a mask of another scan.
        names: What messages call the mask, and the owner of the grid.

    Raises:
        InputRefused: the voxels do not coincide, or some that are labelled, or without ``crop`` any, lie
            outside of the grid, or the mask looks like one that was made smaller under the scan's own
            header (``grid-mismatch``).
    """
    if mask.grid.same_as(grid):
        return Mask(mask.array, grid, mask.labels, mask.source)
    moved = mask.oriented(grid.axcodes)
    fit = _Fit.of(moved.grid, grid)
    if _has_borrowed_header(mask.grid, grid):
        raise _mismatch(
            mask, grid, f"it has the {names[1]}'s affine but fewer voxels along several axes", names
        )
    if fit.largest_voxels >= 0.5 or fit.largest_mm > tolerance_mm:
        raise _mismatch(mask, grid, f"its voxels do not coincide with the {names[1]}'s", names)
    first = np.array(fit.first)
    start, stop = np.maximum(first, 0), np.minimum(first + moved.grid.shape, grid.shape)
    if not crop and ((first < 0).any() or (first + moved.grid.shape > grid.shape).any()):
        raise _mismatch(mask, grid, f"a part of it lies outside of the {names[1]}", names)
    array: npt.NDArray[np.uint16]
    if moved.grid.shape == grid.shape and not first.any():
        array = moved.array
    else:
        array = np.zeros(grid.shape, moved.array.dtype, order="F")
        if (start < stop).all():
            inside = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
            part = tuple(slice(a, b) for a, b in zip(start - first, stop - first, strict=True))
            array[inside] = moved.array[part]
        lost = int(np.count_nonzero(moved.array)) - int(np.count_nonzero(array))
        if lost:
            raise _mismatch(mask, grid, f"{lost} of its labelled voxels lie outside of the {names[1]}", names)
    _notify(mask, moved.grid, grid, fit, names)
    return Mask(array, grid, mask.labels, mask.source)


def resampled_on(mask: Mask, grid: Grid) -> Mask:
    """The mask resampled to another grid by nearest neighbour, with a notice of what that does to volumes.

    Each voxel gets the value of the mask's voxel that its centre lies in; outside of the mask it is
    background. Voxels that lie on the border of two, up to 1e-6 voxels, belong to the one of lower index.
    """
    matrix = np.linalg.inv(mask.grid.affine) @ grid.affine
    columns, rows = (np.arange(n, dtype=np.float64) for n in grid.shape[:2])
    plane = columns[:, None, None] * matrix[:3, 0] + rows[None, :, None] * matrix[:3, 1] + matrix[:3, 3]
    array = np.zeros(grid.shape, mask.array.dtype, order="F")
    for k in range(grid.shape[2]):
        at = np.floor(plane + k * matrix[:3, 2] + 0.5 - 1e-6).astype(np.int64)
        inside = ((at >= 0) & (at < mask.grid.shape)).all(axis=-1)
        array[:, :, k][inside] = mask.array[tuple(at[inside].T)]
    found = Mask(array, grid, mask.labels, mask.source)
    before, after = (float(np.count_nonzero(each.array)) * each.grid.voxel_ml for each in (mask, found))
    notify(
        "mask-resampled",
        "the mask was resampled to the scan's grid by nearest neighbour: "
        f"{before:.4g} ml became {after:.4g} ml",
        path=mask.source.path,
    )
    return found


@dataclass(frozen=True)
class _Fit:
    """How well a grid fits the voxels of another one.

    Attributes:
        first: The other grid's voxel that is nearest to the first voxel.
        largest_mm: The largest distance of a voxel to the voxel of the other grid that it is put on.
        largest_voxels: The same along the axis where it is largest, in voxels of the other grid.
    """

    first: tuple[int, int, int]
    largest_mm: float
    largest_voxels: float

    @classmethod
    def of(cls, own: Grid, grid: Grid) -> _Fit:
        middle = (np.array(own.shape) - 1) / 2
        x, y, z = (int(n) for n in np.rint(grid.index(own.world(middle)) - middle))
        affine = grid.affine.copy()
        affine[:3, 3] = grid.world((x, y, z))
        ideal = Grid(own.shape, affine)
        off = ideal.index(own.corners_mm) - ideal.index(ideal.corners_mm)
        return cls((x, y, z), own.distance_mm(ideal), float(np.abs(off).max()))


def _has_borrowed_header(own: Grid, grid: Grid) -> bool:
    """Whether a mask has the affine of a scan that has more voxels along at least two axes.

    A mask of half the resolution that was saved with the header of its scan looks like this: its voxels seem
    to be a corner of the scan. Fewer slices alone can be a crop.
    """
    smaller = sum(n < all_ for n, all_ in zip(own.shape, grid.shape, strict=True))
    return smaller >= 2 and bool(np.allclose(own.affine, grid.affine, rtol=0, atol=SAME_GRID_MM))


def _notify(mask: Mask, own: Grid, grid: Grid, fit: _Fit, names: tuple[str, str]) -> None:
    if fit.largest_mm > SAME_GRID_MM:
        notify(
            "grid-rounded",
            f"the {names[0]}'s voxels lie up to {fit.largest_mm:.2g} mm from the {names[1]}'s, "
            "less than half a voxel; they were taken as the same",
            path=mask.source.path,
        )
    if any(
        first > 0 or first + n < all_ for first, n, all_ in zip(fit.first, own.shape, grid.shape, strict=True)
    ):
        sizes = [" x ".join(map(str, shape)) for shape in (own.shape, grid.shape)]
        notify(
            "mask-padded",
            f"the {names[0]} covers {sizes[0]} voxels of the {names[1]}'s {sizes[1]}; "
            "the others were taken as background",
            path=mask.source.path,
        )


def _mismatch(mask: Mask, grid: Grid, problem: str, names: tuple[str, str]) -> InputRefused:
    return InputRefused(
        f"the {names[0]} is not on the {names[1]}'s grid: {problem}; {mask.grid.mismatch(grid)}",
        where=mask.source.path,
        reason="grid-mismatch",
        remedy="pass the scan that was segmented, or resample the mask to its grid first (nearest neighbour)",
    )
