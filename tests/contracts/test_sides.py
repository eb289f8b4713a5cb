"""Left stays left in every file: 48 axis orders, straight and oblique, through NIfTI and DICOM.

The phantom's truth itself is stored as the scan, so that no network is needed: what is read is
written as a mask, and nibabel and SimpleITK must find both lungs where they were put. The laws
in test_laws.py say the same of the segmenter, those in test_writers.py of single voxels.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk

from medseg.images.volume import Mask, Volume
from medseg.io import read, read_mask, write_dicom_series
from medseg.phantom.thorax import LABELS, Thorax, default_grid, orientations, rotated

TURNS = [(0.0, 0.0, 0.0), (8.0, -5.0, 12.0), (-14.0, 17.0, -6.0)]
RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # from LPS, which is ITK's and DICOM's
NIFTI_MM, DICOM_MM = 0.001, 0.01

Image = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]  # label map and RAS+ affine


@pytest.fixture(scope="module", params=TURNS, ids=str)
def truth(request: pytest.FixtureRequest) -> Mask:
    return Thorax.random(4711).truth(rotated(default_grid((32.0, 34.0, 46.0)), request.param))


def stored(truth: Mask, axcodes: str) -> Volume:
    """The truth as a scan whose axes are stored in the order ``axcodes``."""
    turned = truth.oriented(axcodes)
    return Volume(np.ascontiguousarray(turned.array).astype(np.int16), turned.grid)


def by_nibabel(path: Path) -> Image:
    image = nib.load(path)
    return np.asarray(image.dataobj).astype(np.int64), image.affine


def by_itk(image: sitk.Image) -> Image:
    lps = np.eye(4)
    lps[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) @ np.diag(image.GetSpacing())
    lps[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).T.astype(np.int64), RAS @ lps


def corners(image: Image) -> npt.NDArray[np.float64]:
    """The eight outermost voxel centres in RAS+ mm, in no order."""
    array, affine = image
    ends = np.array(list(product(*((0, n - 1) for n in array.shape))))
    return ends @ affine[:3, :3].T + affine[:3, 3]


def apart_mm(one: Image, other: Image) -> float:
    """The largest distance from a corner of one grid to the nearest of the other."""
    gaps = np.linalg.norm(corners(one)[:, None] - corners(other)[None], axis=-1)
    return float(gaps.min(axis=1).max())


def lungs(image: Image) -> npt.NDArray[np.float64]:
    """The centroids of the right and of the left lung in RAS+ mm."""
    array, affine = image
    sides = {label.name: label.values for label in LABELS}
    return np.array(
        [
            (np.argwhere(np.isin(array, sides[f"{side}_lung"])) @ affine[:3, :3].T + affine[:3, 3]).mean(
                axis=0
            )
            for side in ("right", "left")
        ]
    )


def assert_same(found: Image, scan: Image, within_mm: float) -> None:
    """The same grid, both lungs at the same place, and each on its side of the patient."""
    assert apart_mm(found, scan) <= within_mm
    right, left = lungs(found)
    np.testing.assert_allclose([right, left], lungs(scan), atol=within_mm)
    # RAS+: x grows towards the patient's right.
    assert left[0] < -20 < 20 < right[0]


def test_left_is_left_through_nifti_in_all_48_orders(truth, tmp_path):
    for axcodes in orientations():
        scan = stored(truth, axcodes)
        source, target = tmp_path / f"{axcodes}.nii.gz", tmp_path / f"{axcodes}_mask.nii.gz"
        nib.save(nib.Nifti1Image(scan.array, scan.grid.affine), source)  # not by our own writer
        volume = read(source)
        Mask(volume.array, volume.grid, LABELS).save(target)
        original = np.asarray(scan.array).astype(np.int64), scan.grid.affine
        for found in (by_nibabel(target), by_itk(sitk.ReadImage(str(target)))):
            assert found[0].shape == scan.grid.shape, axcodes
            np.testing.assert_array_equal(found[0], original[0], err_msg=axcodes)
            assert_same(found, original, NIFTI_MM)


def test_left_is_left_through_dicom_in_all_48_orders(truth, tmp_path):
    for axcodes in orientations():
        scan = stored(truth, axcodes)
        folder, target = tmp_path / axcodes, tmp_path / f"{axcodes}.nii.gz"
        write_dicom_series(scan, folder)
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
        series = by_itk(reader.Execute())
        volume = read(folder)
        Mask(volume.array, volume.grid, LABELS).save(target)
        for found in (by_nibabel(target), by_itk(sitk.ReadImage(str(target)))):
            assert_same(found, series, DICOM_MM)
            assert_same(found, (scan.array.astype(np.int64), scan.grid.affine), DICOM_MM)


def test_a_mask_read_back_keeps_its_sides(truth, tmp_path):
    path = Mask(truth.array, truth.grid, LABELS).save(tmp_path / "mask.nii.gz")
    right, left = lungs((read_mask(path, LABELS).array.astype(np.int64), read_mask(path, LABELS).grid.affine))
    assert left[0] < -20 < 20 < right[0]


def test_the_check_itself_detects_a_mirrored_grid(truth):
    array, affine = truth.array.astype(np.int64), truth.grid.affine
    mirrored = array[::-1], affine
    with pytest.raises(AssertionError):
        assert_same(mirrored, (array, affine), DICOM_MM)
