"""Lattices on small grids, whose points can be counted by hand, in all orders and directions of the axes."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.images.grid import Grid
from medseg.images.run_length import Runs
from medseg.inference.upright_lattice import UprightLattice
from medseg.phantom.thorax import orientations

GRID = Grid.from_spacing((7, 5, 3), (1.0, 2.0, 5.0))
BOX = (slice(1, 7), slice(0, 5), slice(0, 3))


def test_points_are_at_most_so_far_apart_from_the_start_of_the_box():
    lattice = UprightLattice.of(GRID, BOX, 4.5)
    assert [each.tolist() for each in lattice.indices] == [[1, 5], [0, 2, 4], [0, 1, 2]]
    assert lattice.spacing_mm == (4.0, 4.0, 5.0)
    assert [each.ravel().tolist() for each in lattice.positions_mm()] == [[1, 5], [0, 4, 8], [0, 5, 10]]


@pytest.mark.parametrize("codes", orientations())
def test_every_orientation_has_the_same_points(codes):
    values = np.arange(105).reshape(GRID.shape)
    order, flips = GRID.moves_to(codes)
    turned = np.flip(values.transpose(order), [n for n, flip in enumerate(flips) if flip])
    box = [
        slice(GRID.shape[axis] - BOX[axis].stop, GRID.shape[axis] - BOX[axis].start) if flip else BOX[axis]
        for axis, flip in zip(order, flips, strict=True)
    ]
    lattice = UprightLattice.of(GRID.oriented(codes), tuple(box), 4.5)
    assert np.array_equal(lattice.sampled(turned), values[1:6:4, ::2])
    # In each slice, columns 0 to 4, 5 and 6; rows 0 and 1, 2 and 3, 4: the last voxel of each is the highest.
    assert np.array_equal(lattice.highest_across(turned), values[[4, 6]][:, [1, 3, 4]])
    mask = Runs.of(turned % 3 == 0)
    assert np.array_equal(lattice.foreground(mask), values[1:6:4, ::2] % 3 == 0)
    assert [each.ravel().tolist() for each in lattice.positions_mm()] == [[1, 5], [0, 4, 8], [0, 5, 10]]
    # Each voxel belongs to the point before it: 0 to 4 to the first, 5 and 6 to the second.
    halves = np.zeros((2, 3, 3), dtype=np.uint8)
    halves[1] = 1
    divided = lattice.divide(mask, halves)
    upper = np.isin(turned, values[5:])
    assert np.array_equal(divided[1].binary(), mask.binary() & upper)
    assert np.array_equal(divided[0].binary(), mask.binary() & ~upper)
