"""Masks that have a qform alone, whose quaternion has single precision, on scans with an sform."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import medseg
from medseg import io
from medseg.images.grid import Grid
from medseg.images.mask_placement import placed_on
from medseg.system.notices import collect_notices


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((256, 256, 60), (1, 1, 3)), ((64, 320, 320), (4, 0.8, 0.8)), ((128, 128, 90), (2, 2, 2))],
)
@pytest.mark.parametrize("storage", [(-1, -1, 1), (1, 1, 1)])
def test_its_grid_is_the_scans(tmp_path, shape, spacing, storage):
    random = np.random.default_rng(3)
    apart = []
    for _ in range(100):
        tilt = Rotation.from_euler("xyz", random.uniform(-25, 25, 3) * (1, 0.2, 0.2), degrees=True)
        affine = np.eye(4)
        affine[:3, :3] = tilt.as_matrix() @ np.diag(storage) * spacing
        affine[:3, 3] = random.uniform(-200, 200, 3)
        header = nibabel.Nifti1Header()
        header.set_data_shape(shape)
        header.set_qform(affine, 1)
        apart.append((Grid(shape, affine).distance_mm(Grid(shape, header.get_qform())), affine))
    worst, affine = max(apart, key=lambda one: one[0])
    scan = nibabel.Nifti1Image(np.zeros(shape, np.uint8), affine)
    mask = nibabel.Nifti1Image(np.zeros(shape, np.uint8), None)
    mask.set_qform(affine, 1)
    mask.set_sform(None, 0)
    mask.dataobj[3:9, 20:30, 5:50] = 1
    nibabel.save(scan, tmp_path / "scan.nii.gz")
    nibabel.save(mask, tmp_path / "mask.nii.gz")
    volume = medseg.read(tmp_path / "scan.nii.gz")
    with collect_notices() as notices:
        found = placed_on(io.read_mask(tmp_path / "mask.nii.gz", ()), volume.grid)
    assert found.grid == volume.grid
    assert np.array_equal(found.array, np.asarray(mask.dataobj))
    # nibabel takes a tiny fourth component of the quaternion for 0, so that its grid is further off.
    off = io.read_mask(tmp_path / "mask.nii.gz", ()).grid.distance_mm(volume.grid)
    assert off <= worst + 1e-3
    assert [notice.reason for notice in notices] == ["grid-rounded"] * (off > 0.01)
