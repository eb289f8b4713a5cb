"""Which part of a threshold mask is airway, on boxes of 4 mm voxels (0.064 ml)."""

import numpy as np
import pytest

from medseg.inference.leaked_airway import leaked_airway

SHAPE, MM = (20, 20, 30), (4.0, 4.0, 4.0)


def box(place):
    mask = np.zeros(SHAPE, dtype=bool)
    mask[place] = True
    return mask


@pytest.mark.parametrize(("height", "airway"), [(18, True), (17, False)])
def test_a_part_that_no_network_holds_for_lung_is_airway_from_10_ml_on(height, airway):
    trachea = box(np.s_[8:11, 8:11, 5 : 5 + height])  # 9 voxels a slice: 18 slices are 10.4 ml, 17 are 9.8
    assert np.array_equal(leaked_airway(trachea, trachea, MM), trachea & airway)


@pytest.mark.parametrize(("slices", "airway"), [(12, True), (11, False)])
def test_the_3d_networks_deny_half_of_an_airway(slices, airway):
    air = box(np.s_[8:12, 8:12, 0:24])  # 16 voxels a slice: 12 slices are 12.3 ml, 11 are 11.3
    denied = box(np.s_[8:12, 8:12, 0:slices])
    assert np.array_equal(leaked_airway(air, denied, MM), air & airway)


def test_a_sheet_at_the_surface_of_a_lung_is_not_airway():
    sheet = box(np.s_[0:20, 0:20, 10:12])  # 51 ml, two voxels thick
    assert not leaked_airway(sheet, sheet, MM).any()


def test_the_edge_of_the_airway_goes_with_it():
    trachea = box(np.s_[8:12, 8:12, 2:22])
    edge = box(np.s_[12:13, 9:10, 10:11])  # an opening removes it
    beyond = box(np.s_[13:14, 9:10, 10:11])
    air = trachea | edge | beyond
    assert np.array_equal(leaked_airway(air, air, MM), trachea | edge)
