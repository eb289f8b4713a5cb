"""A coarse, upright lattice of voxels on a grid, for questions that need no fine resolution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medseg.images.grid import Grid
from medseg.images.run_length import Array, Binary, Integers, Runs

Box = tuple[slice, slice, slice]

BODY_LATTICE_MM = 5.0
"""Distance of the points at which the body is sampled."""


@dataclass(frozen=True, eq=False)
class UprightLattice:
    """Every n-th voxel of a box in a grid, with the axes in RAS order and direction.

    The same voxels are taken whatever the order and direction of the stored axes are. "Upright" arrays have
    one value per lattice point, (X, Y, Z) from the patient's left to right, back to front, bottom to top.

    Attributes:
        grid: The grid.
        indices: For each axis of the grid, the increasing indices that are taken.
        order: The grid's axes in the order of RAS.
        flips: For each of them, whether it runs the other way.
        spacing_mm: Distances of the lattice points, upright.
    """

    grid: Grid
    indices: tuple[Integers, Integers, Integers]
    order: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    spacing_mm: tuple[float, float, float]

    @classmethod
    def of(cls, grid: Grid, box: Box, spacing_mm: float) -> UprightLattice:
        """The lattice of a box with points at most ``spacing_mm`` apart, unless the voxels are larger."""
        order, flips = grid.moves_to("RAS")
        every = [max(1, int(spacing_mm / mm)) for mm in grid.spacing_mm]
        flipped = [flips[order.index(axis)] for axis in range(3)]
        x, y, z = (_taken(box[axis], every[axis], flipped[axis]) for axis in range(3))
        right, front, up = (every[axis] * grid.spacing_mm[axis] for axis in order)
        return cls(grid, (x, y, z), order, flips, (right, front, up))

    @property
    def _turned(self) -> tuple[int, ...]:
        return tuple(axis for axis in range(3) if self.flips[axis])

    def positions_mm(self) -> tuple[Array, Array, Array]:
        """Distances of the points from the scan's left, back and lowest voxel, as open grids of float64."""
        along = []
        for axis, flip in zip(self.order, self.flips, strict=True):
            index, last = self.indices[axis], self.grid.shape[axis] - 1
            along.append((last - index[::-1] if flip else index) * self.grid.spacing_mm[axis])
        x, y, z = along
        return x[:, None, None], y[None, :, None], z[None, None, :]

    def sampled(self, array: Array) -> Array:
        """The values of an array (X, Y, Z) on the grid at the points, upright."""
        # Steps, unlike lists of indices, take no copy of what is left out.
        steps = tuple(slice(i[0], i[-1] + 1, i[1] - i[0] if len(i) > 1 else 1) for i in self.indices)
        return np.ascontiguousarray(np.flip(array[steps].transpose(self.order), self._turned))

    def highest_across(self, array: Array) -> Array:
        """The highest value of an array (X, Y, Z) on the grid around each point, upright.

        Around a point are the voxels of its axial slice that belong to it, see `divide`: unlike `sampled`,
        this misses no thin plate.
        """
        axial = self.order[2]
        steps: list[slice | Integers] = [slice(None)] * 3
        steps[axial] = self.indices[axial]
        highest = array[tuple(steps)]
        for axis in range(3):
            if axis != axial:
                taken, flipped = self.indices[axis], self.flips[self.order.index(axis)]
                starts = np.concatenate([[0], taken[:-1] + 1 if flipped else taken[1:]])
                highest = np.maximum.reduceat(highest, starts, axis=axis)
        return np.ascontiguousarray(np.flip(highest.transpose(self.order), self._turned))

    def foreground(self, mask: Runs) -> Binary:
        """Whether the points lie in a mask on the grid, upright."""
        return np.asarray(np.flip(mask.at(self.indices).transpose(self.order), self._turned))

    def divide(self, mask: Runs, values: npt.NDArray[np.uint8]) -> dict[int, Runs]:
        """A mask on the grid, split by the value of the lattice point that each voxel belongs to.

        A voxel belongs to the last point to the left, back and bottom of it, at the edges to the nearest one.

        Args:
            mask: The mask.
            values: Upright.

        Returns:
            The runs of each value that occurs.
        """
        stored = np.flip(values, self._turned).transpose([self.order.index(axis) for axis in mask.order])
        return mask.divided(stored, [self._point(axis) for axis in mask.order])

    def _point(self, axis: int) -> Integers:
        """For each index of an axis, the number of the lattice point that it belongs to."""
        taken, every = self.indices[axis], np.arange(self.grid.shape[axis])
        if self.flips[self.order.index(axis)]:
            point = np.searchsorted(taken, every)
        else:
            point = np.searchsorted(taken, every, side="right") - 1
        return np.asarray(point.clip(0, len(taken) - 1))


def _taken(part: slice, every: int, flipped: bool) -> Integers:
    """Every n-th index of a part of an axis, from its upright start."""
    first = part.start + (part.stop - 1 - part.start) % every if flipped else part.start
    return np.arange(first, part.stop, every)


def body_lattice(grid: Grid, box: Box) -> UprightLattice:
    """The lattice of the whole axial slices that a box covers, for the outline of the body."""
    axial = grid.moves_to("RAS")[0][2]
    x, y, z = (box[axis] if axis == axial else slice(0, grid.shape[axis]) for axis in range(3))
    return UprightLattice.of(grid, (x, y, z), BODY_LATTICE_MM)
