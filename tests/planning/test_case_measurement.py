"""The fingerprint of small cases whose numbers are known from paper and pencil."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.datasets.manifest import Case
from medseg.errors import InputRefused, UsageError
from medseg.images.grid import Grid
from medseg.images.volume import Mask, Volume
from medseg.io.picture.masks import MaskCoding
from medseg.planning.case_measurement import make_fingerprint
from medseg.planning.fingerprint import Fingerprint


def case(folder, name="a", *, spacing=(1.0, 2.0, 4.0), low=0, axcodes="RAS"):
    """12 x 10 x 8 voxels, 10 x 6 x 5 of them not 0; value 2 is a bar of 4 x 1 x 1 and a cube of 2^3."""
    image, label = np.zeros((12, 10, 8), np.int16), np.zeros((12, 10, 8), np.uint8)
    image[1:11, 2:8, 3:8] = 100
    label[2:6, 3, 4], label[8:10, 5:7, 5:7] = 2, 2
    label[1, 2, 6] = 2  # a single voxel
    image[label == 2] = 300
    image[1, 2, 7] = low or 100
    grid = Grid((12, 10, 8), np.diag([*spacing, 1.0]))
    scan = Volume(image, grid).oriented(axcodes)
    mask = Mask(label, grid, ()).oriented(axcodes)
    scan.save(folder / f"{name}.nii.gz")
    mask.save(folder / f"{name}_label.nii.gz")
    return Case(id=name, images=(folder / f"{name}.nii.gz",), label=folder / f"{name}_label.nii.gz")


def fingerprint(*cases, **settings):
    return make_fingerprint(cases, name="set", channels=["T1"], progress=False, **settings)


def test_the_numbers_of_a_case(tmp_path):
    found = fingerprint(case(tmp_path), names={2: "bar"})
    (size,), (channel,), (label,) = found.cases, found.channels, found.labels
    assert size.stored == (12, 10, 8)
    assert size.shape == (10, 6, 5)
    assert size.spacing_mm == (1, 2, 4)
    assert found.kept_by_crop == pytest.approx(300 / 960)
    assert (channel.mean, channel.sd, channel.low, channel.high) == (300, 0, 300, 300)
    assert (label.value, label.name, label.cases, label.parts) == (2, "bar", 1, 2)
    assert label.median_ml == pytest.approx(13 * 8 / 1000)  # voxels of 8 mm^3
    assert label.smallest_ml == pytest.approx(4 * 8 / 1000)
    # Boxes of 4 x 2 x 4 mm and 2 x 4 x 8 mm: the 10th percentile of two values is the smaller + a tenth.
    assert label.thin_mm == pytest.approx((2.2, 2.2, 4.4))


def test_axes_are_those_of_the_body(tmp_path):
    turned = fingerprint(case(tmp_path, axcodes="SLP"))
    assert turned == fingerprint(case(tmp_path, "b"))


def test_the_modality_follows_from_air(tmp_path):
    assert fingerprint(case(tmp_path)).modality == "MR"
    assert fingerprint(case(tmp_path, low=-1000)).modality == "CT"
    assert fingerprint(case(tmp_path, low=-1000), modality="MR").modality == "MR"


def test_ignored_voxels_are_no_foreground(tmp_path):
    with pytest.raises(UsageError, match="empty") as refused:
        fingerprint(case(tmp_path), coding=MaskCoding(ignore_value=2))
    assert refused.value.reason == "plan-empty"


def test_json_keeps_everything(tmp_path):
    found = fingerprint(case(tmp_path))
    assert Fingerprint.model_validate_json(found.model_dump_json()) == found


def test_a_case_without_label_is_left_out(tmp_path):
    bare = Case(id="bare", images=(tmp_path / "a.nii.gz",))
    assert len(fingerprint(case(tmp_path), bare).cases) == 1
    with pytest.raises(UsageError) as refused:
        fingerprint(bare)
    assert refused.value.reason == "no-label"


def test_a_label_on_another_grid_is_refused(tmp_path):
    first, second = case(tmp_path), case(tmp_path, "b", spacing=(2.0, 2.0, 4.0))
    with pytest.raises(InputRefused):
        fingerprint(first.model_copy(update={"label": second.label}))
