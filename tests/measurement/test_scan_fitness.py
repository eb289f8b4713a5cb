from __future__ import annotations

from dataclasses import replace

import numpy as np
import pydicom
import pytest

from medseg.errors import UsageError
from medseg.images.volume import Mask, Volume
from medseg.io import read, write_dicom_series
from medseg.measurement.scan_fitness import ScanFitness, fitness_of, notices_of
from medseg.measurement.scan_measurement import cut_lungs, measure
from medseg.phantom.thorax import LABELS, Thorax, default_grid, orientations

GRID = default_grid((4.0, 4.0, 5.0), "LPS")
SCAN, TRUTH = Thorax().scan(GRID, noise_sd=8.0), Thorax().truth(GRID)
LUNGS = Mask(TRUTH.array, GRID, LABELS[:2])
GOOD = ScanFitness(1.0, "B31f", False, -1000.0, 10.0, False, 45.0, 0.0, -850.0)


def facts(scan: Volume = SCAN, mask: Mask = LUNGS) -> ScanFitness:
    return fitness_of(scan, cut_lungs(scan, mask))


def reasons(fitness: ScanFitness) -> list[str]:
    return [notice.reason for notice in notices_of(fitness)]


def test_the_air_of_the_trachea_and_the_tissue_of_the_heart_are_found():
    # The phantom's airway has -1000 HU, its heart 42 and blood 45.
    found = facts()
    assert found.trachea_hu == pytest.approx(-1000, abs=3)
    assert found.trachea_sd_hu == pytest.approx(8, abs=3)
    assert found.airway_in_mask is False
    assert found.heart_hu == pytest.approx(43, abs=6)
    assert found.aorta_hu == pytest.approx(45, abs=6)
    assert found.outline_jump_mm < 1.5
    assert found.slice_thickness_mm == 5.0
    assert (found.kernel, found.contrast_agent, found.cut_cm2) == (None, None, 0.0)


def test_the_facts_are_the_same_in_other_orders_of_axes():
    upright = facts()
    for axcodes in orientations()[::7]:
        turned = facts(SCAN.oriented(axcodes), LUNGS.oriented(axcodes))
        assert turned.trachea_hu == pytest.approx(upright.trachea_hu)
        assert turned.heart_hu == pytest.approx(upright.heart_hu, abs=2)  # every second voxel is looked at
        assert turned.slice_thickness_mm == 5.0
        assert turned.aorta_hu == pytest.approx(upright.aorta_hu, abs=5)
        assert turned.outline_jump_mm == pytest.approx(upright.outline_jump_mm, abs=0.3)


def test_an_airway_in_the_mask_is_reported():
    array = np.where(TRUTH.array == 5, 1, TRUTH.array).astype(np.uint8)
    found = facts(mask=Mask(array, GRID, LABELS[:2]))
    assert found.airway_in_mask is True
    assert "airway-in-mask" in reasons(found)


def test_lungs_on_the_edge_of_the_scan_are_cut():
    part = (slice(None), slice(None), slice(20, None))
    whole = LUNGS.grid
    affine = whole.affine.copy()
    affine[:3, 3] = whole.world((0, 0, 20))
    grid = type(whole)(LUNGS.array[part].shape, affine)
    cut = Mask(LUNGS.array[part], grid, LABELS[:2])
    found = facts(Volume(SCAN.array[part], grid), cut)
    on_face = np.count_nonzero(np.isin(cut.array[:, :, 0], (1, 2, 3, 4))) * 16 / 100
    assert found.cut_cm2 == pytest.approx(on_face)
    assert "lung-cut" in reasons(found)


def test_contrast_medium_is_seen_between_the_lungs():
    bright = SCAN.array.copy()
    bright[TRUTH.array == 6] += 150
    found = facts(Volume(bright, GRID))
    assert found.heart_hu > facts().heart_hu + 30
    assert "lung-contrast" in reasons(found)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"slice_thickness_mm": 1.6}, "lung-thick-slices"),
        ({"kernel": "BONEPLUS"}, "lung-sharp-kernel"),
        ({"contrast_agent": True}, "lung-contrast"),
        ({"heart_hu": 81.0}, "lung-contrast"),
        ({"aorta_hu": 81.0}, "lung-contrast"),
        ({"outline_jump_mm": 2.6}, "lung-motion"),
        ({"cut_cm2": 1.0}, "lung-cut"),
        ({"mean_hu": -749.0}, "lung-expiration"),
        ({"trachea_hu": -984.0}, "trachea-air"),
        ({"airway_in_mask": True}, "airway-in-mask"),
    ],
)
def test_each_fact_beyond_its_limit_gives_its_notice(change, reason):
    assert reasons(GOOD) == []
    assert reasons(replace(GOOD, **change)) == [reason]


def test_values_at_the_limits_are_fit():
    at = {"slice_thickness_mm": 1.5, "heart_hu": 80.0, "mean_hu": -750.0, "trachea_hu": -985.0}
    at |= {"aorta_hu": 80.0, "outline_jump_mm": 2.5}
    assert reasons(replace(GOOD, **at)) == []
    assert reasons(ScanFitness()) == []


def test_a_corrected_scan_has_air_of_minus_1000(tmp_path):
    dim = Volume(np.rint(SCAN.array * 0.95).astype(np.int16), GRID)
    found, fresh = measure(dim, LUNGS, correct_air=True), measure(SCAN, LUNGS)
    assert found.fitness["hu_factor"] == pytest.approx(1 / 0.95, rel=0.004)
    assert "trachea-air" not in [notice.reason for notice in found.notices]
    assert "trachea-air" in [notice.reason for notice in measure(dim, LUNGS).notices]
    for name in ("mean_hu", "perc15_hu", "median_hu"):
        assert found["both_lungs"][name] == pytest.approx(fresh["both_lungs"][name], abs=4)
    header = found.save(tmp_path / "m.csv").read_text().splitlines()[0]
    assert "scan_trachea_hu" in header
    assert header.endswith("flags")


def test_a_scan_without_a_trachea_cannot_be_corrected():
    filled = SCAN.array.copy()
    filled[TRUTH.array == 5] = 40
    scan = Volume(filled, GRID)
    assert facts(scan).trachea_hu is None
    with pytest.raises(UsageError) as refused:
        measure(scan, LUNGS, correct_air=True)
    assert refused.value.reason == "measure"


def test_the_header_of_a_dicom_scan_is_read(tmp_path):
    write_dicom_series(SCAN, tmp_path)
    for path in tmp_path.iterdir():
        header = pydicom.dcmread(path)
        header.ConvolutionKernel, header.SliceThickness = ["Br59f", "3"], "2.5"
        header.ContrastBolusAgent = "APPLIED"
        header.save_as(path)
    found = measure(read(tmp_path), LUNGS)
    assert found.fitness["kernel"] == "Br59f 3"
    assert found.fitness["slice_thickness_mm"] == 2.5
    flags = [notice.reason for notice in found.notices]
    assert flags == ["lung-thick-slices", "lung-sharp-kernel", "lung-contrast"]
