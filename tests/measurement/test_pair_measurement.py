from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from medseg.errors import UsageError
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.volume import Mask, Volume
from medseg.io.itk import as_itk
from medseg.measurement.methods_section import methods_text
from medseg.measurement.pair_measurement import measure_pair
from medseg.phantom.thorax import LABELS, Thorax, default_grid

SIDES = (Label(name="right_lung", values=(1,)), Label(name="left_lung", values=(2,)))
GRID = default_grid((5.0, 4.0, 6.0), "LPS")
SCAN, TRUTH = Thorax().scan(GRID), Thorax().truth(GRID)
LUNGS = Mask(TRUTH.array, GRID, LABELS[:2])


def row(hu: list[int], values: list[int], x0: float = 0.0) -> tuple[Volume, Mask]:
    """A row of voxels of 1 x 2 x 5 mm (10 mm³) and its mask."""
    affine = np.diag([1.0, 2.0, 5.0, 1.0])
    affine[0, 3] = x0
    grid = Grid((len(hu), 1, 1), affine)
    array = np.array(hu, np.int16).reshape(-1, 1, 1)
    return Volume(array, grid), Mask(np.array(values, np.uint8).reshape(-1, 1, 1), grid, SIDES)


INSPIRATION = row([0, -960, -950, -951, -900, 40], [0, 1, 1, 1, 1, 0])
EXPIRATION = row([0, -860, -857, -856, 40], [0, 1, 1, 1, 0])


def flags(found) -> list[str]:
    return [notice.reason for notice in found.notices]


def test_changes_and_air_trapping_by_hand():
    found = measure_pair(*INSPIRATION, *EXPIRATION)["right_lung"]
    assert found["insp_volume_ml"] == pytest.approx(0.04)
    assert found["exp_volume_ml"] == pytest.approx(0.03)
    assert found["volume_change_ml"] == pytest.approx(-0.01)
    assert found["volume_change_percent"] == pytest.approx(-25)
    assert found["insp_mean_hu"] == pytest.approx(-940.25)  # (960 + 950 + 951 + 900) / 4
    assert found["mean_change_hu"] == pytest.approx(-2573 / 3 + 940.25)
    assert found["air_trapping_percent"] == pytest.approx(200 / 3)  # -856 is not below -856
    assert found["insp_laa950_percent"] == 50
    assert "prm_normal_percent" not in found


def test_a_registered_scan_gives_the_response_map():
    moved = row([0, -900, -900, -856, -700, 0], [0] * 6)[0]
    found = measure_pair(*INSPIRATION, *EXPIRATION, registration=moved)
    assert found.settings["registration"] == "registered scan"
    # -960/-900 emphysema, -950/-900 small airways, -951/-856 and -900/-700 normal.
    lung = found["right_lung"]
    shares = [lung[f"prm_{name}_percent"] for name in ("emphysema", "small_airways", "normal", "covered")]
    assert shares == [25, 25, 50, 100]
    assert found["left_lung"]["prm_normal_percent"] is None
    assert found.fitness["registration_dice"] is None
    a, b = [-960, -950, -951, -900], [-900, -900, -856, -700]
    assert found.fitness["registration_correlation"] == pytest.approx(np.corrcoef(a, b)[0, 1])


@pytest.mark.parametrize("form", ["array", "file"])
def test_a_displacement_field_moves_the_expiration(tmp_path, form):
    # The expiration lies 3 mm farther along R: the field says so in every voxel.
    expiration = row([0, -900, -900, -856, -700, 0], [0, 1, 1, 1, 1, 0], x0=3.0)
    vectors = np.zeros((6, 1, 1, 3), np.float32)
    vectors[..., 0] = 3.0
    field: object = (vectors, INSPIRATION[0].grid.affine)
    if form == "file":
        lps = sitk.GetImageFromArray(np.ascontiguousarray(-vectors.transpose(2, 1, 0, 3)), isVector=True)
        lps.CopyInformation(as_itk(np.zeros((6, 1, 1), np.uint8), INSPIRATION[0].grid))
        sitk.WriteImage(lps, str(tmp_path / "field.mha"))
        field = tmp_path / "field.mha"
    found = measure_pair(*INSPIRATION, *expiration, registration=field)
    lung = found["right_lung"]
    shares = [lung[f"prm_{name}_percent"] for name in ("emphysema", "small_airways", "normal", "covered")]
    assert shares == [25, 25, 50, 100]
    assert found.settings["registration"] == "displacement field"
    assert "np." not in found.save(tmp_path / "pair.csv").read_text()
    assert found.fitness["registration_dice"] == 1
    # Voxels 1 to 4 of one and, unmoved, 4 to 7 of the other.
    assert found.fitness["registration_dice_before"] == pytest.approx(2 / 8)
    assert found.fitness["registration_folded_percent"] == 0
    # A shift changes no volume: |-960 + 900|, |-950 + 900|, |-951 + 856|, |-900 + 700|.
    assert found.fitness["registration_residual_g_per_l"] == pytest.approx((60 + 50 + 95 + 200) / 4)


def test_a_field_that_misses_the_lungs_is_reported():
    vectors = np.full((6, 1, 1, 3), 50.0)
    found = measure_pair(*INSPIRATION, *EXPIRATION, registration=(vectors, INSPIRATION[0].grid.affine))
    assert "pair-registration" in flags(found)
    assert found["right_lung"]["prm_covered_percent"] == 0
    assert found["right_lung"]["prm_normal_percent"] is None


def squeezed(by: float) -> tuple[Volume, Mask]:
    """The phantom on a grid whose slices are closer: lungs of less height, and denser by as much."""
    affine = GRID.affine.copy()
    affine[:3, 2] *= by
    grid = Grid(GRID.shape, affine)
    lung = np.isin(TRUTH.array, (1, 2, 3, 4))
    hu = np.where(lung & (SCAN.array < -100), (SCAN.array + 1000.0) / by - 1000, SCAN.array)
    return Volume(np.rint(hu).astype(np.int16), grid), Mask(TRUTH.array, grid, LABELS[:2])


def test_simpleitk_finds_lungs_that_became_shorter():
    expiration = squeezed(0.8)
    found = measure_pair(SCAN, LUNGS, *expiration, registration="simpleitk")
    assert found["both_lungs"]["volume_change_percent"] == pytest.approx(-20)
    assert found.fitness["registration_dice_before"] < 0.9
    assert found.fitness["registration_dice"] > 0.95
    assert found.fitness["registration_correlation"] > 0.8
    assert found.fitness["registration_folded_percent"] < 0.1
    assert found["both_lungs"]["prm_covered_percent"] > 95
    # Density by volume is the same, so mass is kept: little remains beside interpolation.
    assert found.fitness["registration_residual_g_per_l"] < 40
    assert "pair-registration" not in flags(found)
    assert "lung-expiration" not in flags(found)
    paragraph = methods_text(found)
    assert "@galban2012" in paragraph
    assert "Dice" in paragraph


def test_exchanged_scans_are_reported():
    assert "pair-volumes" in flags(measure_pair(*EXPIRATION, *INSPIRATION))
    assert "pair-volumes" not in flags(measure_pair(*INSPIRATION, *EXPIRATION))


def test_parts_and_sides_are_rows(tmp_path):
    found = measure_pair(SCAN, LUNGS, *squeezed(0.8), registration=SCAN)
    assert len(found.rows) == 3 * 11
    third = found.of("left_lung", "upper_third_by_volume")
    assert third["volume_change_percent"] == pytest.approx(-20)
    assert third["prm_covered_percent"] == 100
    header = found.save(tmp_path / "pair.csv").read_text().splitlines()[0]
    assert "scan_insp_kernel" in header
    assert "scan_registration_correlation" in header


def test_a_registered_scan_in_another_order_of_axes_is_the_same():
    turned = measure_pair(SCAN, LUNGS, SCAN, LUNGS, registration=SCAN.oriented("SAR"))
    straight = measure_pair(SCAN, LUNGS, SCAN, LUNGS, registration=SCAN)
    assert [row.values for row in turned.rows] == [row.values for row in straight.rows]


def test_masks_without_lungs_and_other_grids_are_refused():
    empty = row([-900, -900], [0, 0])
    with pytest.raises(UsageError) as refused:
        measure_pair(*INSPIRATION, *empty)
    assert refused.value.reason == "measure"
    with pytest.raises(UsageError) as refused:
        measure_pair(*INSPIRATION, *EXPIRATION, registration=EXPIRATION[0])
    assert refused.value.reason == "grid-mismatch"
    with pytest.raises(UsageError) as refused:
        measure_pair(*INSPIRATION, *EXPIRATION, registration=3)
    assert refused.value.reason == "image-type"
