"""A lung of ten voxels, three of them airless: all volumes are known from paper and pencil."""

import numpy as np
import pytest

import medseg
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.volume import Mask, Volume
from medseg.inference.airless_lung import aerated, airless_ml, lungs_of
from medseg.phantom.thorax import Thorax, default_grid

LABELS = (
    Label(name="right_lung", values=(1,), side="right"),
    Label(name="left_lung", values=(2,), side="left"),
    Label(name="heart", values=(3,)),
)
GRID = Grid.from_spacing((4, 4, 4), (10.0, 10.0, 5.0))  # 0.5 ml a voxel


def chest():
    """Ten voxels of right lung, three of them at -499, -500 and 40 HU; four of left lung and two of heart."""
    painted, hu = np.zeros((4, 4, 4), dtype=np.uint8), np.full((4, 4, 4), -850, dtype=np.int16)
    painted.reshape(-1)[:10] = 1
    hu.reshape(-1)[:4] = -501, -500, -499, 40
    painted.reshape(-1)[20:24] = 2
    painted.reshape(-1)[40:42] = 3
    hu.reshape(-1)[40:42] = 40
    return Mask(painted, GRID, LABELS), Volume(hu, GRID)


def test_the_airless_volume_of_each_side_by_hand():
    assert airless_ml(*chest()) == pytest.approx({"right_lung": 1.5, "left_lung": 0.0})


def test_only_airless_voxels_of_lungs_are_left_out():
    mask, scan = chest()
    kept = aerated(mask, scan)
    assert kept.volumes_ml() == pytest.approx({"right_lung": 3.5, "left_lung": 2.0, "heart": 1.0})
    assert mask.volumes_ml()["right_lung"] == pytest.approx(5.0)
    assert set(airless_ml(kept, scan).values()) == {0.0}


def test_lesions_within_the_lungs_are_kept():
    mask, scan = chest()
    lesion = Label(name="lesion", values=(4,))
    lung = Label(name="right_lung", values=(1, 4), side="right")
    painted = np.array(mask.array)
    painted.reshape(-1)[3] = 4  # the voxel at 40 HU
    kept = aerated(Mask(painted, GRID, (lung, LABELS[1], lesion)), scan)
    assert kept.volumes_ml() == pytest.approx({"right_lung": 4.0, "left_lung": 2.0, "lesion": 0.5})


def test_lungs_are_labels_of_that_name_with_a_side():
    kidney = Label(name="right_kidney", values=(4,), side="right")
    assert lungs_of((*LABELS, kidney)) == LABELS[:2]


def test_the_sidecar_says_what_is_airless_and_a_mask_may_leave_it_out(tmp_path):
    grid = default_grid((5.0, 5.0, 6.0))
    scan = Thorax().scan(grid)
    with medseg.collect_notices():
        whole = medseg.segment_file(scan, tmp_path / "whole.nii.gz", model="threshold")
        only = medseg.segment_file(
            scan, tmp_path / "only.nii.gz", model="threshold", runtime=medseg.Runtime(aerated_only=True)
        )
    hu, lungs = np.asarray(scan.array), np.asarray(whole.mask.array)
    dense_ml = {
        label.name: np.count_nonzero((lungs == label.value) & (hu >= -500)) * 0.15
        for label in whole.mask.labels
    }
    for name, ml in whole.facts["airless_ml"].items():
        assert ml > 0
        assert abs(ml - dense_ml[name]) < 1e-3
        assert abs(whole.facts["volumes_ml"][name] - ml - only.facts["volumes_ml"][name]) < 1e-3
    assert np.array_equal(np.asarray(only.mask.array) > 0, (lungs > 0) & (hu < -500))
    assert only.facts["airless_ml"] == whole.facts["airless_ml"]
    assert only.facts["aerated_only"] is True
