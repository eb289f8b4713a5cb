"""Plausibility checks of grids read from files: voxel sizes, extents and right angles."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medseg.errors import InputRefused
from medseg.images.grid import SAME_GRID_MM, Array, Grid
from medseg.system.notices import notify

# From one micrometre (micro-CT) to one metre between voxels; a field of view of 20 m and a
# million millimetres from the origin are ten times beyond any scanner. Values outside these
# limits mean a wrong unit or byte order.
_SPACING_MM = (0.001, 1000.0)
_EXTENT_MM = 20_000.0
_FARTHEST_MM = 1_000_000.0
# Beyond the tolerance for equal grids (`SAME_GRID_MM`), but smaller than any voxel we segment: such an
# affine is squared, with a notice.
_REPAIRED_MM = 0.1


def plausible(grid: Grid) -> Grid:
    """``grid`` itself, if a scan can have it.

    Raises:
        InputRefused: voxel size, extent or position is impossible for a scanner (``geometry``).
    """
    low, high = _SPACING_MM
    spacing = grid.spacing_mm
    extent = max(n * s for n, s in zip(grid.shape, spacing, strict=True))
    if min(spacing) < low or max(spacing) > high or extent > _EXTENT_MM:
        raise _refused(
            f"a voxel spacing of {' x '.join(f'{s:.4g}' for s in spacing)} mm for"
            f" {' x '.join(map(str, grid.shape))} voxels is impossible for a medical scan",
        )
    farthest = float(np.abs(grid.corners_mm).max())
    if farthest > _FARTHEST_MM:
        raise _refused(f"the affine places voxels {farthest:.4g} mm from the origin")
    return grid


def squared(grid: Grid, path: Path) -> Grid:
    """``grid`` with right angles between its axes.

    The nearest orthogonal grid keeps spacing and centre and has the rotation of the polar
    decomposition (Higham 1986, SIAM J. Sci. Stat. Comput. 7(4), section 2: nearest in the
    Frobenius norm). The grid is unchanged if no corner would move by more than 0.01 mm.

    Raises:
        InputRefused: a corner would move by more than 0.1 mm (``sheared``).
    """
    u, _, vt = np.linalg.svd(grid.direction)
    affine: Array = np.eye(4)
    affine[:3, :3] = (u @ vt) * np.asarray(grid.spacing_mm)
    middle = (np.asarray(grid.shape) - 1) / 2
    affine[:3, 3] = grid.world(middle) - affine[:3, :3] @ middle
    square = Grid(grid.shape, affine)
    moved = square.distance_mm(grid)
    if moved <= SAME_GRID_MM:
        return grid
    if moved > _REPAIRED_MM:
        raise InputRefused(
            f"the affine has shear: its axes are not orthogonal, by {moved:.3g} mm at a corner",
            reason="sheared",
            remedy="resample the scan to a grid with right angles, with the tool that sheared it",
        )
    notify(
        "affine-squared",
        f"the affine was not quite orthogonal and was squared, which moves voxels by up to {moved:.2g} mm",
        path=path,
    )
    return square


def _refused(problem: str) -> InputRefused:
    return InputRefused(
        problem,
        reason="geometry",
        remedy="correct the geometry of the file: its spacing, position or unit of length",
    )
