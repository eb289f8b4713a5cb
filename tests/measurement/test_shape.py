from __future__ import annotations

import math

import numpy as np
import pytest

from medseg.measurement.shape import DEFINITIONS, shape_of


def test_one_voxel_by_hand():
    found = shape_of(np.ones((1, 1, 1), bool), (1.0, 2.0, 3.0))
    assert found.keys() == DEFINITIONS.keys()
    assert (found["volume_ml"], found["components"]) == (0.006, 1)
    assert found["max_diameter_mm"] == 3.0
    assert found["axial_diameter_mm"] == 2.0
    assert found["equivalent_diameter_mm"] == pytest.approx((36 / math.pi) ** (1 / 3))
    assert found["surface_mm2"] == pytest.approx(8 * math.hypot(1.5, 0.75, 0.5) / 2)


def test_a_row_is_as_long_as_its_voxels():
    row = np.zeros((5, 4, 3), bool)
    row[1:4, 2, 1] = True
    found = shape_of(row, (2.0, 1.0, 1.0))
    assert found["max_diameter_mm"] == found["axial_diameter_mm"] == pytest.approx(6.0)


def test_two_parts_and_their_distance():
    apart = np.zeros((1, 5, 5), bool)
    apart[0, 0, 0] = apart[0, 3, 4] = True
    found = shape_of(apart, (1.0, 1.0, 2.0))
    assert found["components"] == 2
    # From -0.5 in y of the one to 3.5 of the other, at heights 0 and 8 mm; or from -1 to 9 mm at y 0 and 3.
    assert found["max_diameter_mm"] == pytest.approx(math.hypot(3, 10))


def test_a_ball_is_round_and_a_plate_is_not():
    x, y, z = np.ogrid[-14:15, -28:29, -7:8]
    ball = shape_of(x**2 + (y / 2) ** 2 + (2 * z) ** 2 < 12.3**2, (1.0, 0.5, 2.0))
    # The facets of marching cubes on a binary mask have 10 to 20 % more area than the ball.
    assert 0.8 < ball["sphericity"] < 1
    assert ball["max_diameter_mm"] == pytest.approx(24.6, abs=2.0)
    assert ball["equivalent_diameter_mm"] == pytest.approx(24.6, abs=0.5)
    plate = shape_of(np.ones((20, 20, 1), bool), (1.0, 1.0, 1.0))
    assert plate["sphericity"] < 0.6


def test_the_diameter_of_many_points_is_that_of_all_pairs():
    mask = np.random.default_rng(0).random((9, 8, 7)) < 0.4
    found = shape_of(mask, (1.0, 2.0, 0.5))
    corners = np.argwhere(mask)[:, None] + 0.5 * np.array(
        [step for axis in np.eye(3) for step in (axis, -axis)]
    )
    points = corners.reshape(-1, 3) * (1.0, 2.0, 0.5)
    pairs = np.linalg.norm(points[:, None] - points, axis=-1)
    assert found["max_diameter_mm"] == pytest.approx(pairs.max(), abs=1.0)


def test_an_empty_mask_has_no_shape():
    found = shape_of(np.zeros((3, 3, 3), bool), (1.0, 1.0, 1.0))
    assert (found.pop("volume_ml"), found.pop("components")) == (0, 0)
    assert set(found.values()) == {None}
