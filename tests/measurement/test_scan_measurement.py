from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from scipy import ndimage

from medseg.errors import InputRefused, UsageError
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.volume import Mask, Volume
from medseg.measurement.measurement_table import BOTH, Measurement, StructureMeasures
from medseg.measurement.scan_measurement import measure
from medseg.phantom.thorax import LABELS, Thorax, default_grid
from medseg.system.notices import collect_notices

GRID = default_grid((8.0, 9.0, 12.0), "LPS")
PATIENT = Thorax()
SCAN, TRUTH = PATIENT.scan(GRID), PATIENT.truth(GRID)
LUNGS = Mask(TRUTH.array, GRID, LABELS[:2])


def tiny(hu: list[int], values: list[int], labels: tuple[Label, ...]) -> tuple[Volume, Mask]:
    """A row of voxels of 1 x 2 x 5 mm and its mask."""
    grid = Grid.from_spacing((len(hu), 1, 1), (1.0, 2.0, 5.0))
    array = np.array(hu, np.int16).reshape(-1, 1, 1)
    return Volume(array, grid), Mask(np.array(values, np.uint8).reshape(-1, 1, 1), grid, labels)


BOTH_SIDES = (Label(name="right_lung", values=(1,)), Label(name="left_lung", values=(2,)))


def test_the_hand_test_of_the_definition():
    found = measure(*tiny([-1000, -960, -950, -900, 40], [1, 1, 1, 1, 0], BOTH_SIDES))
    assert found["right_lung"]["laa950_percent"] == 50
    assert found["right_lung"]["volume_ml"] == pytest.approx(0.04)
    assert found["both_lungs"]["laa950_percent"] == 50
    assert found["left_lung"]["volume_ml"] == 0
    assert found["left_lung"]["laa950_percent"] is None


def test_an_empty_mask_is_measured_as_nothing():
    found = measure(*tiny([-900, -900], [0, 0], BOTH_SIDES))
    assert [row.values["volume_ml"] for row in found.rows] == [0.0] * len(found.rows)
    assert found[BOTH]["laa950_d"] is None


def test_one_voxel_of_lung():
    found = measure(*tiny([-970], [2], BOTH_SIDES))["left_lung"]
    assert (found["mean_hu"], found["sd_hu"], found["perc15_hu"], found["laa950_percent"]) == (
        -970,
        0,
        -970,
        100,
    )
    assert (found["skewness"], found["laa950_d"], found["laa950_clusters"]) == (None, None, 1)


def test_a_scan_with_nan_cannot_be_measured():
    with pytest.raises(InputRefused) as refused:
        measure((np.full((2, 2, 2), np.nan), np.eye(4)), LUNGS)
    assert refused.value.reason == "not-finite"


def test_lungs_in_one_label_are_divided():
    together = np.isin(LUNGS.array, (1, 2, 3, 4)).astype(np.uint8)
    lungs = Mask(together, GRID, (Label(name="lungs", values=(1,)),))
    found, expected = measure(SCAN, lungs), measure(SCAN, LUNGS)
    for name in ("right_lung", "left_lung", BOTH):
        assert found[name] == pytest.approx(expected[name])


@pytest.mark.parametrize("name", ["Lung_R", "right lung", "lung_upper_lobe_right"])
def test_names_of_lungs(name):
    mask = Mask(LUNGS.array, GRID, (Label(name=name, values=(1, 3)),))
    assert measure(SCAN, mask)["right_lung"]["volume_ml"] == pytest.approx(LUNGS.volumes_ml()["right_lung"])


@pytest.mark.parametrize("name", ["lung_nodule", "right_lung_tumour", "heart", "lung_vessels"])
def test_other_names_are_structures(name):
    mask = Mask(LUNGS.array, GRID, (Label(name=name, values=(1, 3)),))
    found = measure(SCAN, mask)
    assert [row.structure for row in found.rows] == [name]
    assert found[name]["volume_ml"] == pytest.approx(LUNGS.volumes_ml()["right_lung"])


def test_a_mask_without_names_is_lung_on_request():
    plain = Mask(np.isin(LUNGS.array, (1, 2, 3, 4)).astype(np.uint8), GRID, ())
    with collect_notices() as notices:
        assert [row.structure for row in measure(SCAN, plain).rows] == ["label_1"]
    assert "unnamed-labels" in [each.reason for each in notices]
    assert measure(SCAN, plain, kind="lung")["right_lung"] == pytest.approx(
        measure(SCAN, LUNGS)["right_lung"]
    )
    found = measure(SCAN, LUNGS, kind="structures")
    assert [row.structure for row in found.rows] == ["right_lung", "left_lung"]


def test_lungs_and_structures_of_one_mask():
    found = measure(SCAN, TRUTH)
    inside = SCAN.array[TRUTH.of("heart")]
    heart = found["heart"]
    assert heart["mean"] == pytest.approx(inside.mean(dtype=float))
    assert heart["p95"] == pytest.approx(np.percentile(inside, 95))
    assert heart["components"] == ndimage.label(TRUTH.of("heart"), np.ones((3, 3, 3)))[1]
    assert found["right_lung"]["volume_ml"] == pytest.approx(TRUTH.volumes_ml()["right_lung"])
    empty = Mask(TRUTH.array, GRID, (Label(name="liver", values=(9,)),))
    assert measure(SCAN, empty)["liver"]["volume_ml"] == 0
    assert measure(SCAN, empty)["liver"]["mean"] is None


def test_histograms_hold_every_voxel():
    found = measure(SCAN, LUNGS)
    counts = found.histograms[BOTH].counts
    assert sum(counts) == np.count_nonzero(np.isin(LUNGS.array, (1, 2, 3, 4)))
    low = sum(counts[:10])  # -1050 to -950: bins hold their lower edge
    assert found[BOTH]["laa950_percent"] == pytest.approx(100 * low / sum(counts))


def test_another_grid_and_a_rind_without_depth_are_refused():
    other = Mask(
        LUNGS.array[:-1],
        Grid((GRID.shape[0] - 1, *GRID.shape[1:]), GRID.affine @ np.diag([1.5, 1, 1, 1])),
        LABELS[:2],
    )
    with pytest.raises(UsageError) as refused:
        measure(SCAN, other)
    assert refused.value.reason == "grid-mismatch"
    for depth in (0, -1, float("nan"), 5000):
        with pytest.raises(UsageError) as refused:
            measure(SCAN, LUNGS, rind_mm=depth)
        assert refused.value.reason == "measure"


def test_tables_hold_what_was_measured(tmp_path):
    found = measure(SCAN, LUNGS, rind_mm=12.0)
    with found.save(tmp_path / "measures.csv").open(newline="") as file:
        rows = {(row["structure"], row["region"]): row for row in csv.DictReader(file)}
    assert len(rows) == 3 * 11
    assert float(rows["left_lung", "core"]["mean_hu"]) == round(found.of("left_lung", "core")["mean_hu"], 4)
    assert rows["left_lung", "core"]["laa950_d"] == ""
    facts = json.loads(found.save(tmp_path / "measures.json").read_text())
    assert facts["settings"]["rind_mm"] == 12.0
    assert "-600 <= HU < -250" in facts["definitions"]["haa_percent"]
    assert len(found.to_frame()) == len(found.rows)
    with pytest.raises(UsageError) as refused:
        found.save(tmp_path / "measures.xlsx")
    assert refused.value.reason == "format"
    with pytest.raises(UsageError) as refused:
        found["spleen"]
    assert refused.value.reason == "no-such-label"


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (4163.123456789, "4163.1235"),
        (-851.33333333, "-851.3333"),
        (12.3456789, "12.3457"),
        (0.000123456789, "0.000123457"),
        (1234567.0, "1234567.0"),
        (float("nan"), "nan"),
        (7, "7"),
        (None, ""),
    ],
)
def test_a_table_has_no_more_digits_than_help(tmp_path, value, cell):
    row = StructureMeasures("liver", "whole", {"x": value})
    text = Measurement((row,)).save(tmp_path / "m.csv").read_text()
    assert next(iter(csv.DictReader(text.splitlines())))["x"] == cell


def test_a_mask_that_was_cropped_is_put_on_its_scan():
    inside = np.argwhere(np.isin(LUNGS.array, (1, 2, 3, 4)))
    low, high = inside.min(axis=0), inside.max(axis=0) + 1
    part = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    affine = GRID.affine.copy()
    affine[:3, 3] = GRID.world(low)
    array = LUNGS.array[part]
    cropped = Mask(array, Grid(array.shape, affine), LABELS[:2])
    marks = Mask((array == 3).astype(np.uint8), cropped.grid, ())
    with collect_notices():  # that it covers a part of the scan
        found = measure(SCAN, cropped, lesions=marks)
    assert found["left_lung"] == pytest.approx(measure(SCAN, LUNGS)["left_lung"])
    assert found["lesions"]["volume_ml"] == pytest.approx(np.count_nonzero(LUNGS.array == 3) * GRID.voxel_ml)
