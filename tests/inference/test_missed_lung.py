"""Which part of missed air is lung and which is gas in the bowel, on boxes of 4 mm voxels (0.064 ml)."""

import numpy as np
import pytest

from medseg.inference.missed_lung import lung_and_gas

SHAPE, MM = (24, 16, 34), (4.0, 4.0, 4.0)
LUNG = np.s_[2:22, 2:14, 16:32]
UNDER = np.s_[4:14, 2:12, 4:14]  # 10 x 10 x 10 voxels: 64 ml


def scan(part, hu):
    """A lung of thresholds at -850 HU and missed air at ``hu``."""
    air, lungs = np.zeros(SHAPE, dtype=bool), np.zeros(SHAPE, dtype=bool)
    values = np.full(SHAPE, 40, dtype=np.float32)
    lungs[LUNG], values[LUNG] = True, -850
    air[part], values[part] = True, hu
    return air, values, lungs


@pytest.mark.parametrize(
    ("hu", "gas"),
    [(-950, True), (-890, False)],  # a lobe apart from the rest of its lung is denser than gas
)
def test_dark_air_below_a_lung_is_gas(hu, gas):
    air, values, lungs = scan(UNDER, hu)
    lung, bowel = lung_and_gas(air, values, lungs, MM)
    assert np.array_equal(bowel, air & gas)
    assert np.array_equal(lung, air & (not gas))


def test_dark_air_beside_a_lung_is_an_emphysematous_lung():
    air, values, lungs = scan(UNDER, -950)
    lungs[:14] = False
    lung, bowel = lung_and_gas(air, values, lungs, MM)
    assert np.array_equal(lung, air)
    assert not bowel.any()


@pytest.mark.parametrize(("columns", "gas"), [(5, True), (4, False)])
def test_half_of_the_gas_lies_below_the_lung(columns, gas):
    air, values, lungs = scan(UNDER, -950)
    lungs[:14] = False
    lungs[4 : 4 + columns, 2:12, 20] = True
    assert lung_and_gas(air, values, lungs, MM)[1].any() == gas


def test_gas_below_a_missed_lung_is_gas():
    air, values, lungs = scan(UNDER, -950)
    air |= lungs
    lung, bowel = lung_and_gas(air, values, np.zeros_like(lungs), MM)
    assert np.array_equal(lung, lungs)
    assert bowel[UNDER].all()


def test_less_than_50_ml_is_neither():
    air, values, lungs = scan(np.s_[4:14, 2:12, 4:11], -950)  # 700 voxels: 45 ml
    lung, bowel = lung_and_gas(air, values, lungs, MM)
    assert not lung.any()
    assert not bowel.any()
