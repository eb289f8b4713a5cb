from __future__ import annotations

import numpy as np
import pytest

from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.volume import Mask, Volume
from medseg.measurement.lobes import LOBES, lobe_name, severity
from medseg.measurement.methods_section import methods_text
from medseg.measurement.scan_measurement import measure

NAMES = [f"lung_{place}_lobe_{side}" for side, place in LOBES]
LABELS = tuple(Label(name=name, values=(n,)) for n, name in enumerate(NAMES, start=1))
GRID = Grid.from_spacing((20, 5, 1), (1.0, 2.0, 5.0))  # 10 mm³


def five_lobes() -> tuple[Volume, np.ndarray]:
    """Each lobe is a row of 20 voxels."""
    lobes = np.repeat(np.arange(1, 6, dtype=np.uint8)[None, :, None], 20, axis=0)
    return Volume(np.full(GRID.shape, -850, np.int16), GRID), lobes


@pytest.mark.parametrize(
    ("percent", "score"),
    [
        (0, 0),
        (0.1, 1),
        (4.9, 1),
        (5, 2),
        (25, 2),
        (25.1, 3),
        (50, 3),
        (50.1, 4),
        (75, 4),
        (75.1, 5),
        (100, 5),
    ],
)
def test_scores_at_their_bounds(percent, score):
    assert severity(percent) == score


def test_the_severity_score_by_hand():
    scan, lobes = five_lobes()
    lesions = np.zeros(GRID.shape, np.uint8)
    for row, voxels in enumerate((0, 1, 5, 11, 16)):  # 0, 5, 25, 55 and 80 %
        lesions[:voxels, row] = 1
    found = measure(scan, Mask(lobes, GRID, LABELS), lesions=Mask(lesions, GRID, ()))
    rows = [found[lobe_name(number)] for number in range(1, 6)]
    assert [row["involved_percent"] for row in rows] == pytest.approx([0, 5, 25, 55, 80])
    assert [row["ct_severity"] for row in rows] == [0, 2, 2, 4, 5]
    assert found["both_lungs"]["ct_severity"] == 13
    assert "ct_severity" not in found["right_lung"]
    assert "@pan2020" in methods_text(found)


def test_lesions_that_the_lobes_spare_belong_to_the_nearest():
    scan, lobes = five_lobes()
    lesions = np.zeros(GRID.shape, np.uint8)
    lesions[17:, 4] = 1
    lobes[17:, 4] = 0  # 1 to 3 mm from the fifth lobe, and 4 from the third: the fourth ends before
    lobes[10:, 3] = 0
    found = measure(scan, Mask(lobes, GRID, LABELS), lesions=Mask(lesions, GRID, ()))
    assert found["left_lower_lobe"]["involved_percent"] == pytest.approx(100 * 3 / 20)
    assert found["left_lower_lobe"]["ct_severity"] == 2
    assert found["left_upper_lobe"]["ct_severity"] == 0


def test_lobes_have_all_measures_and_together_make_the_lungs():
    _, lobes = five_lobes()
    hu = np.arange(100, dtype=np.int16).reshape(GRID.shape) * 3 - 1000
    found = measure(Volume(hu, GRID), Mask(lobes, GRID, LABELS))
    middle = found["right_middle_lobe"]
    voxels = hu[lobes == 2].astype(float)
    assert middle["volume_ml"] == pytest.approx(0.2)
    assert middle["mean_hu"] == pytest.approx(voxels.mean())
    assert middle["perc15_hu"] == pytest.approx(np.percentile(voxels, 15))
    assert middle["laa950_percent"] == pytest.approx(100 * (voxels < -950).mean())
    assert sum(found[lobe_name(n)]["volume_ml"] for n in range(1, 6)) == pytest.approx(1.0)
    assert found["right_lung"]["volume_ml"] == pytest.approx(0.6)
    assert "ct_severity" not in middle
    assert "for each lobe" in methods_text(found)


def test_fractions_of_hu_are_those_of_the_whole_lung():
    _, lobes = five_lobes()
    hu = np.random.default_rng(1).normal(-900, 60, GRID.shape).astype(np.float32)
    found = measure(Volume(hu, GRID), Mask(np.where(lobes == 5, 5, 0).astype(np.uint8), GRID, LABELS))
    lobe, lung = found["left_lower_lobe"], found["left_lung"]
    for name in ("mean_hu", "laa950_percent", "volume_ml"):
        assert lobe[name] == pytest.approx(lung[name])
    assert lobe["perc15_hu"] == pytest.approx(np.percentile(hu[lobes == 5], 15), abs=1 / 16)


def test_a_lobe_that_is_missing_leaves_no_sum():
    scan, lobes = five_lobes()
    lobes[lobes == 3] = 0
    found = measure(scan, Mask(lobes, GRID, LABELS), lesions=Mask((lobes == 1).astype(np.uint8), GRID, ()))
    assert "ct_severity" not in found["both_lungs"]
    assert found["right_upper_lobe"]["ct_severity"] == 5
    assert not any(row.structure == "right_lower_lobe" for row in found.rows)
