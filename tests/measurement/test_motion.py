from __future__ import annotations

import numpy as np
import pytest

from medseg.images.grid import Grid
from medseg.measurement.motion import outline_jump_mm

GRID = Grid.from_spacing((100, 60, 30), (2.0, 3.0, 4.0))


def block(shift: int = 0, start: int = 15) -> np.ndarray:
    """A box of lung, 100 x 90 mm, that lies some voxels farther along x from a slice on."""
    sides = np.zeros(GRID.shape, np.uint8)
    sides[20:70, 10:40, :start] = 1
    sides[20 + shift : 70 + shift, 10:40, start:] = 1
    return sides


def test_a_still_lung_does_not_jump():
    assert outline_jump_mm(block(), GRID) == 0


def test_a_shift_by_hand():
    # 5 voxels of 2 mm: 2 x 10 mm x 90 mm = 1800 mm² of pi / 4 x 380 mm of outline.
    assert outline_jump_mm(block(shift=5), GRID) == pytest.approx(1800 / (np.pi / 4 * 380))


def test_a_steady_slope_is_no_jump():
    sides = np.zeros(GRID.shape, np.uint8)
    for z in range(30):
        sides[20 + z : 60 + z, 10:40, z] = 2
    assert outline_jump_mm(sides, GRID) == pytest.approx(0)


def test_what_cannot_be_known():
    assert outline_jump_mm(np.zeros(GRID.shape, np.uint8), GRID) is None
    assert outline_jump_mm(block()[:, :, 10:19], GRID) is None
    assert outline_jump_mm(block(shift=5), Grid.from_spacing(GRID.shape, (2.0, 3.0, 5.5))) is None
    assert outline_jump_mm(block(shift=5)[::10, ::10], Grid.from_spacing((10, 6, 30), (2.0, 3.0, 4.0))) == 0
