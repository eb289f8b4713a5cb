"""The grid that the channels of a case share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medseg.errors import InputRefused
from medseg.images.grid import ROUNDED_GRID_MM, SAME_GRID_MM, Grid
from medseg.images.volume import Volume
from medseg.system.notices import notify


def on_first_grid(volumes: Sequence[Volume]) -> tuple[Volume, ...]:
    """The channels of a case, all on the grid of the first.

    A grid that is :func:`shared` is taken as the first's. A notice tells the distance if it is more than
    :data:`~medseg.images.grid.SAME_GRID_MM`.

    Raises:
        InputRefused: a channel is on another grid than the first (``grid-mismatch``).
    """
    grid = volumes[0].grid
    found = [volumes[0]]
    for number, volume in enumerate(volumes[1:], start=2):
        if not shared(volume.grid, grid):
            first = f" ({volumes[0].source.path})" if volumes[0].source.path else ""
            raise InputRefused(
                f"channel {number} is not on the grid of the first{first}: {volume.grid.mismatch(grid)}",
                where=volume.source.path,
                reason="grid-mismatch",
                remedy="register the channels and resample them to one grid first",
            )
        gap = volume.grid.distance_mm(grid)
        if gap > SAME_GRID_MM:
            notify(
                "grid-rounded",
                f"the voxels of channel {number} lie up to {gap:.2g} mm from the first channel's, less than "
                "half a voxel; they were taken as the same",
                path=volume.source.path,
            )
            volume = Volume(volume.array, grid, volume.source)
        found.append(volume)
    return tuple(found)


def shared(own: Grid, grid: Grid) -> bool:
    """Whether a channel's grid is the first one's, or differs from it only as rounded headers do.

    Its voxels are then at most :data:`~medseg.images.grid.ROUNDED_GRID_MM` apart, and less than half a voxel
    along every axis.
    """
    gap = own.distance_mm(grid)  # infinite if the shapes differ
    if not SAME_GRID_MM < gap <= ROUNDED_GRID_MM:
        return gap <= SAME_GRID_MM
    off = grid.index(own.corners_mm) - grid.index(grid.corners_mm)
    return bool(np.abs(off).max() < 0.5)
