"""Sides of lungs in label maps."""

import numpy as np

from medseg.inference.lungs import LEFT, RIGHT
from medseg.measurement.lung_labels import middle_column


def test_the_middle_is_half_way_between_the_means_of_the_lungs_columns():
    sides = np.zeros((10, 2, 1), np.uint8)
    assert middle_column(sides) is None
    sides[6:8, 0] = RIGHT  # columns 6 and 7
    assert middle_column(sides) is None
    sides[1:4, 1] = LEFT  # columns 1 to 3
    assert middle_column(sides) == (6.5 + 2) / 2
