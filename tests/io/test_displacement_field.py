from __future__ import annotations

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from medseg.errors import InputRefused
from medseg.images.grid import Grid
from medseg.io.displacement_field import DisplacementField, find_field

GRID = Grid.from_spacing((4, 5, 6), (2.0, 3.0, 5.0))
VECTORS = np.random.default_rng(0).normal(size=(4, 5, 6, 3)).astype(np.float32)


def itk_field() -> sitk.Image:
    """The field as ITK has it: L and P grow to the other side, arrays are (Z, Y, X, 3)."""
    lps = VECTORS * np.array([-1, -1, 1], np.float32)
    image = sitk.GetImageFromArray(np.ascontiguousarray(lps.transpose(2, 1, 0, 3)), isVector=True)
    image.SetSpacing(GRID.spacing_mm)
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    return image


@pytest.mark.parametrize("name", ["field.nii.gz", "field.mha"])
def test_a_field_that_itk_wrote(tmp_path, name):
    sitk.WriteImage(itk_field(), str(tmp_path / name))
    for source in (tmp_path / name, str(tmp_path / name), itk_field()):
        found = find_field(source)
        np.testing.assert_allclose(found.vectors, VECTORS, atol=1e-6)
        assert found.grid.same_as(GRID)


def test_a_nifti_of_displacements_has_ras_components(tmp_path):
    image = nibabel.Nifti1Image(VECTORS[:, :, :, None, :], GRID.affine)
    image.header["intent_code"] = 1006
    image.header.set_xyzt_units("mm")
    image.to_filename(tmp_path / "field.nii")
    np.testing.assert_allclose(find_field(tmp_path / "field.nii").vectors, VECTORS, atol=1e-6)


def test_a_scan_is_no_field(tmp_path):
    scan = sitk.GetImageFromArray(np.zeros((6, 5, 4), np.int16))
    for name in ("scan.nii.gz", "scan.mha"):
        sitk.WriteImage(scan, str(tmp_path / name))
        assert find_field(tmp_path / name) is None
    assert find_field(scan) is None
    assert find_field(tmp_path) is None
    assert find_field((VECTORS, GRID.affine)).grid.same_as(GRID)


def test_damaged_fields_are_refused():
    broken = VECTORS.copy()
    broken[0, 0, 0, 0] = np.nan
    with pytest.raises(InputRefused) as refused:
        DisplacementField(broken, GRID)
    assert refused.value.reason == "not-finite"
    with pytest.raises(InputRefused) as refused:
        DisplacementField(VECTORS[..., :2], GRID)
    assert refused.value.reason == "several-channels"
