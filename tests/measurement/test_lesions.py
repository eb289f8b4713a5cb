from __future__ import annotations

import math

import numpy as np
import pytest

from medseg.errors import UsageError
from medseg.images.grid import Grid
from medseg.images.volume import Mask
from medseg.measurement.lesions import growth, measure_lesions, totals
from medseg.measurement.lung_measures import LungScan
from medseg.measurement.scan_measurement import measure
from medseg.phantom.thorax import LABELS, Nodule, Thorax, default_grid, orientations

GRID = Grid.from_spacing((20, 12, 12), (2.0, 1.0, 3.0))


def lungs() -> LungScan:
    """Two blocks of lung: the left at low x, the right at high x, as in RAS+."""
    sides = np.zeros(GRID.shape, np.uint8)
    sides[1:9, 1:11, 1:10] = 2
    sides[11:19, 1:11, 1:10] = 1
    return LungScan(sides, np.full(GRID.shape, -800, np.int16), GRID)


def test_a_lesion_by_hand():
    found = np.zeros(GRID.shape, bool)
    found[13:15, 4:6, 7:9] = True  # 8 voxels of 6 mm³
    (lesion,) = measure_lesions(found, lungs())
    assert (lesion.number, lesion.volume_mm3, lesion.nelson_class) == (1, pytest.approx(48), "small")
    assert (lesion.side, lesion.third, lesion.outside_percent) == ("right", "upper", 0)
    # Nearest outside: x 10 is 3 voxels of 2 mm away, y 0 is 4 of 1 mm, z 10 is 2 of 3 mm.
    assert lesion.pleura_mm == pytest.approx(4.0)
    assert lesion.center_mm == pytest.approx((27.0, 4.5, 22.5))


@pytest.mark.parametrize(
    ("voxels", "name"), [(49, "small"), (50, "intermediate"), (500, "intermediate"), (501, "large")]
)
def test_classes_at_their_bounds(voxels, name):
    grid = Grid.from_spacing((30, 30, 30), (1.0, 1.0, 1.0))
    found = np.zeros(grid.shape, bool)
    found.ravel()[:voxels] = True
    scan = LungScan(np.ones(grid.shape, np.uint8), np.zeros(grid.shape, np.int16), grid)
    (lesion,) = measure_lesions(found, scan)
    assert (lesion.volume_mm3, lesion.nelson_class) == (pytest.approx(voxels), name)


def test_lesions_that_the_lung_mask_spares_belong_to_their_lung():
    scan = lungs()
    found = np.zeros(GRID.shape, bool)
    found[2:4, 5:7, 2:4] = True
    scan.sides[found] = 0
    (lesion,) = measure_lesions(found, scan)
    assert (lesion.side, lesion.third, lesion.outside_percent) == ("left", "lower", 100)
    assert lesion.pleura_mm == pytest.approx(4.0)  # x 0 is two voxels of 2 mm away
    share = totals((lesion,), scan)["share_of_lungs_percent"]
    assert share == pytest.approx(100 * 8 / (2 * 8 * 10 * 9))


def test_totals_of_several_and_of_none():
    found = np.zeros(GRID.shape, bool)
    found[3, 3, 3] = found[12:16, 2:8, 2:8] = True
    lesions = measure_lesions(found, lungs())
    assert [lesion.number for lesion in lesions] == [1, 2]
    assert [lesion.side for lesion in lesions] == ["right", "left"]
    assert totals(lesions, lungs()) == {
        "lesions": 2,
        "volume_ml": pytest.approx(0.870),
        "share_of_lungs_percent": pytest.approx(100 * 145 / 1440),
        "small_lesions": 1,
        "intermediate_lesions": 0,
        "large_lesions": 1,
    }
    assert measure_lesions(np.zeros(GRID.shape, bool), lungs()) == ()
    assert totals((), lungs())["share_of_lungs_percent"] == 0


def test_a_lesion_without_lungs_has_no_place():
    empty = LungScan(np.zeros(GRID.shape, np.uint8), np.zeros(GRID.shape, np.int16), GRID)
    found = np.zeros(GRID.shape, bool)
    found[0, 0, 0] = True
    (lesion,) = measure_lesions(found, empty)
    assert (lesion.side, lesion.third, lesion.pleura_mm) == (None, None, None)
    assert totals((lesion,), empty)["share_of_lungs_percent"] is None


def test_nodules_of_the_phantom_lie_where_they_were_put_in_all_48_orders():
    nodules = (Nodule((84.3, -31.4, 88.0), 13.0, "right"), Nodule((-83.6, -27.3, -60.0), 11.0, "left"))
    patient, grid = Thorax(nodules=nodules), default_grid((6.0, 7.0, 8.0))
    scan, truth = patient.scan(grid), patient.truth(grid)
    marks = Mask(np.isin(truth.array, (3, 4)).astype(np.uint8), grid, ())
    masks = Mask(truth.array, grid, LABELS[:2])
    for axcodes in orientations()[::5]:
        found = measure(scan.oriented(axcodes), masks.oriented(axcodes), lesions=marks.oriented(axcodes))
        rows = {row.structure: row for row in found.rows if row.structure.startswith("lesion")}
        assert rows["lesions"].values["lesions"] == 2
        assert rows["lesion_1"].region == "right_upper_third"
        assert rows["lesion_2"].region == "left_lower_third"
        place = [rows["lesion_1"].values[f"center_{axis}_mm"] for axis in "ras"]
        assert place == pytest.approx(nodules[0].center_mm, abs=4)


def test_a_volume_that_doubles_in_100_days():
    found = growth(100, 200, 100)
    assert found.doubling_days == pytest.approx(100)
    assert (found.change_percent, found.beyond_repeatability, found.grows) == (pytest.approx(100), True, True)


def test_growth_at_its_limits():
    assert growth(100, 127, 90).beyond_repeatability is False
    assert growth(1000, 1271, 90).beyond_repeatability is True
    slow = growth(100, 200, 401)
    assert (slow.doubling_days, slow.grows) == (pytest.approx(401), False)
    assert growth(100, 100, 90).doubling_days is None
    assert growth(200, 100, 90).doubling_days == pytest.approx(-90)
    assert growth(200, 100, 90).grows is False
    assert growth(100, 150, 90).doubling_days == pytest.approx(math.log(2) * 90 / math.log(1.5))


@pytest.mark.parametrize("wrong", [(0, 10, 90), (10, 0, 90), (10, 10, 0), (float("nan"), 10, 90)])
def test_growth_needs_two_volumes_and_a_time(wrong):
    with pytest.raises(UsageError) as refused:
        growth(*wrong)
    assert refused.value.reason == "measure"
