from __future__ import annotations

import numpy as np
import pytest

from medseg.images.volume import Mask, Volume
from medseg.measurement.aorta import find_aorta_hu
from medseg.measurement.scan_fitness import fitness_of, notices_of
from medseg.measurement.scan_measurement import cut_lungs
from medseg.phantom.thorax import LABELS, Thorax, default_grid

GRID = default_grid((3.0, 2.5, 5.0), "LPS")
# Muscle and heart have more texture than blood, which is as homogeneous as the noise allows.
SCAN, TRUTH = Thorax().scan(GRID, noise_sd=25.0), Thorax().truth(GRID)
LUNGS = Mask(TRUTH.array, GRID, LABELS[:2])


def with_bright_aorta(hu: float) -> Volume:
    """The phantom's descending aorta, a cylinder of 10 to 12 mm, filled with contrast medium."""
    index = np.moveaxis(np.indices(GRID.shape), 0, -1)
    place = GRID.world(index)
    start, end = np.array([-19.0, -42, 51]), np.array([-15.0, -58, -400])
    along = ((place - start) @ (end - start)) / ((end - start) @ (end - start))
    aside = np.linalg.norm(place - start - along[..., None] * (end - start), axis=-1)
    bright = SCAN.array.copy()
    inside = (aside < 10) & (along > 0)
    bright[inside] = np.rint(hu + np.random.default_rng(2).normal(0, 10, inside.sum()))
    return Volume(bright, GRID)


@pytest.mark.parametrize("hu", [45.0, 180.0, 350.0])
def test_the_blood_of_the_aorta_is_measured(hu):
    found = fitness_of(with_bright_aorta(hu), cut_lungs(with_bright_aorta(hu), LUNGS))
    assert found.aorta_hu == pytest.approx(hu, abs=8)
    assert ("lung-contrast" in [notice.reason for notice in notices_of(found)]) == (hu > 80)


def test_there_is_no_aorta_beside_one_lung_or_none():
    cut = cut_lungs(SCAN, LUNGS)
    for sides in (np.where(cut.sides == 1, 1, 0), np.where(cut.sides == 2, 2, 0), np.zeros_like(cut.sides)):
        assert find_aorta_hu(sides.astype(np.uint8), cut.hu, cut.grid) is None
