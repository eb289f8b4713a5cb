from __future__ import annotations

import math

import numpy as np
import pytest

from medseg.errors import UsageError
from medseg.images.grid import Grid
from medseg.images.volume import Mask
from medseg.measurement.lesion_growth import measure_growth
from medseg.measurement.measurement_table import Measurement
from medseg.measurement.methods_section import methods_text

FIRST = Grid.from_spacing((20, 4, 4), (1.0, 2.0, 5.0))  # 10 mm³
SECOND = Grid.from_spacing((20, 4, 4), (1.0, 1.0, 2.0))  # 2 mm³


def mask(grid: Grid, **runs: tuple[int, int]) -> Mask:
    """Runs of voxels along x in a row of their own, by value: ``v1=(first, number)``."""
    array = np.zeros(grid.shape, np.uint8)
    for name, (first, number) in runs.items():
        value = int(name[1:])
        array[first : first + number, value - 1, 0] = value
    return Mask(array, grid, ())


def test_one_lesion_that_doubles_in_100_days_on_another_grid():
    # 4 voxels of 10 mm³, then 40 of 2 mm³.
    array = np.zeros(SECOND.shape, np.uint8)
    array[:, :2, 0] = 1
    found = measure_growth(mask(FIRST, v1=(3, 4)), Mask(array, SECOND, ()), 100)
    (row,) = found.rows
    assert (row.structure, row.region) == ("lesions", "growth")
    assert row.values == pytest.approx(
        {
            "earlier_mm3": 40,
            "later_mm3": 80,
            "earlier_lesions": 1,
            "later_lesions": 1,
            "change_percent": 100,
            "doubling_days": 100,
            "beyond_repeatability": 1,
            "grows": 1,
        }
    )


def test_lesions_are_followed_by_their_value():
    # 100 to 120 mm³; 40 to 30 mm³; a new one; one that has gone.
    earlier = mask(FIRST, v1=(0, 10), v2=(0, 4), v4=(0, 2))
    later = mask(FIRST, v1=(0, 12), v2=(0, 3), v3=(0, 5))
    found = measure_growth(earlier, later, 90)
    rows = {row.structure: row.values for row in found.rows}
    assert set(rows) == {"lesions", "label_1", "label_2", "label_3", "label_4"}
    assert rows["label_1"]["change_percent"] == pytest.approx(20)
    assert rows["label_1"]["doubling_days"] == pytest.approx(90 * math.log(2) / math.log(1.2))
    assert rows["label_1"]["beyond_repeatability"] == 0
    assert rows["label_2"]["change_percent"] == pytest.approx(-25)
    assert rows["label_2"]["doubling_days"] == pytest.approx(-90 * math.log(2) / math.log(4 / 3))
    assert rows["label_2"]["grows"] == 0
    assert (rows["label_3"]["earlier_mm3"], rows["label_3"]["later_mm3"]) == (0, pytest.approx(50))
    assert rows["label_3"]["doubling_days"] is None
    assert (rows["label_4"]["later_mm3"], rows["label_4"]["change_percent"]) == (0, None)
    assert rows["lesions"]["earlier_mm3"] == pytest.approx(160)
    assert rows["lesions"]["later_mm3"] == pytest.approx(200)


def test_masks_without_lesions_have_no_growth():
    (row,) = measure_growth(mask(FIRST), mask(FIRST), 90).rows
    assert (row.values["earlier_mm3"], row.values["grows"]) == (0, None)


def test_files_and_their_labels(tmp_path):
    paths = [mask(FIRST, v1=(0, n), v2=(0, 5)).save(tmp_path / f"{n}.nii.gz") for n in (10, 13)]
    found = measure_growth(*paths, 90)
    assert found.of("label_1", "growth")["change_percent"] == pytest.approx(30)
    assert found.of("label_2", "growth")["doubling_days"] is None  # unchanged
    assert found.of("label_2", "growth")["change_percent"] == pytest.approx(0)


@pytest.mark.parametrize("days", [0, -1, float("nan"), float("inf")])
def test_a_time_that_is_none_is_refused(days):
    with pytest.raises(UsageError) as refused:
        measure_growth(mask(FIRST), mask(FIRST), days)
    assert refused.value.reason == "measure"


def test_growth_is_added_to_a_measurement_and_to_its_paragraph():
    grown = measure_growth(mask(FIRST, v1=(0, 10)), mask(FIRST, v1=(0, 12)), 92)
    found = Measurement((), settings={"spacing_mm": [1.0, 1.0, 1.0]}).joined(grown)
    assert found.settings["spacing_mm"] == [1.0, 1.0, 1.0]
    assert found.of("lesions", "growth")["change_percent"] == pytest.approx(20)
    text = methods_text(found)
    assert "ln 2 x days / ln(V2 / V1)" in text
    assert "27 %" in text
    assert "@article{nelson2009" in text
