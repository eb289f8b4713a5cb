"""Images of other libraries: each voxel stays where that library says it is."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from medseg.errors import InputRefused, UsageError
from medseg.images.label import Label
from medseg.images.volume import Volume
from medseg.io import read
from medseg.io.foreign_images import as_mask, as_volume
from medseg.io.read_options import ReadOptions
from medseg.phantom.thorax import Thorax, default_grid, rotated

# Unequal spacing, oblique, and stored from left to right: a swapped or flipped axis cannot pass.
GRID = rotated(default_grid((12.0, 14.0, 20.0), "LPS"), (9.0, -13.0, 21.0))
SCAN = Thorax().scan(GRID, seed=1)
SHEARED = np.array([[2, 1, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]])
LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return SCAN.save(tmp_path_factory.mktemp("scan") / "ct.nii.gz")


def corners(shape) -> list[tuple[int, ...]]:
    return list(product(*((0, n - 1) for n in shape)))


def test_a_simpleitk_image_keeps_its_geometry(file):
    image = sitk.ReadImage(str(file))
    volume = as_volume(image)
    assert volume.grid.shape == image.GetSize()
    for index in corners(image.GetSize()):
        expected = np.array(image.TransformIndexToPhysicalPoint(index)) * LPS_TO_RAS
        np.testing.assert_allclose(volume.grid.world(index), expected, atol=1e-4)
        assert volume.array[index] == image.GetPixel(*index)
    np.testing.assert_array_equal(volume.array, SCAN.array)


def test_changing_a_simpleitk_image_does_not_change_the_volume(file):
    image = sitk.ReadImage(str(file))
    volume = as_volume(image)
    image.SetPixel(0, 0, 0, 12345)
    assert volume.array[0, 0, 0] == SCAN.array[0, 0, 0]


def test_a_nibabel_image_keeps_its_geometry(file):
    image = nibabel.load(file)
    volume = as_volume(image)
    for index in corners(image.shape):
        expected = nibabel.affines.apply_affine(image.affine, index)
        np.testing.assert_allclose(volume.grid.world(index), expected, atol=1e-6)
    np.testing.assert_array_equal(volume.array, np.asarray(image.dataobj))
    assert volume.array.dtype == np.int16


@pytest.mark.parametrize("kind", ["simpleitk", "nibabel", "array"])
def test_every_kind_gives_what_the_reader_gives(kind, file):
    whole = read(file)
    image = {
        "simpleitk": lambda: sitk.ReadImage(str(file)),
        "nibabel": lambda: nibabel.load(file),
        "array": lambda: (np.array(whole.array), np.array(whole.affine)),
    }[kind]()
    volume = as_volume(image)
    np.testing.assert_array_equal(volume.array, whole.array)
    assert volume.array.dtype == whole.array.dtype
    assert volume.grid.distance_mm(whole.grid) < 1e-3


def test_volumes_and_paths_are_accepted_too(file):
    assert as_volume(SCAN) is SCAN
    np.testing.assert_array_equal(as_volume(file).array, SCAN.array)
    np.testing.assert_array_equal(as_volume(str(file)).array, SCAN.array)


def test_scaled_integers_stay_integers(tmp_path):
    header = nibabel.Nifti1Header()
    header.set_slope_inter(2, -1024)
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.diag([2, 3, 4, 1]), header)
    image.header.set_data_dtype(np.int16)
    path = tmp_path / "scaled.nii"
    nibabel.save(image, path)
    volume = as_volume(nibabel.load(path))
    np.testing.assert_array_equal(volume.array, read(path).array)
    assert volume.array.dtype == read(path).array.dtype


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ((np.zeros((3, 4)), np.eye(4)), "not-3d"),
        ((np.zeros((3, 4, 5, 2)), np.eye(4)), "not-3d"),
        ((np.zeros((3, 4, 5)), np.zeros((4, 4))), "geometry"),
        (
            (np.zeros((3, 4, 5)), np.array([[2, 1, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]])),
            "sheared",
        ),
        ((np.full((3, 4, 5), np.nan), np.eye(4)), "not-finite"),
        ((np.zeros((3, 4, 5), complex), np.eye(4)), "pixel-type"),
        (sitk.Image([3, 4], sitk.sitkInt16), "not-3d"),
        (sitk.Image([3, 4, 5], sitk.sitkVectorFloat32, 2), "several-channels"),
        (nibabel.Nifti1Image(np.zeros((3, 4, 5), np.int16), None), "no-geometry"),
        (nibabel.Nifti1Image(np.zeros((3, 4, 5, 2), np.int16), np.eye(4)), "not-3d"),
    ],
)
def test_unusable_images_are_refused(image, reason):
    with pytest.raises(InputRefused) as caught:
        as_volume(image)
    assert caught.value.reason == reason


def test_contradicting_forms_are_refused_until_one_is_trusted():
    image = nibabel.Nifti1Image(np.zeros((3, 4, 5), np.int16), np.diag([2.0, 2.0, 2.0, 1.0]))
    image.set_sform(np.diag([2.0, 2.0, 2.0, 1.0]), 1)
    image.set_qform(np.diag([-2.0, 2.0, 2.0, 1.0]), 1)
    with pytest.raises(InputRefused) as caught:
        as_volume(image)
    assert caught.value.reason == "form-conflict"
    assert as_volume(image, ReadOptions(trust="qform")).grid.axcodes == "LAS"


def test_voxels_that_are_not_finite_may_be_replaced():
    array = np.zeros((3, 4, 5), np.float32)
    array[1, 1, 1] = np.inf
    with pytest.warns(UserWarning, match="replaced by -1024"):
        volume = as_volume((array, np.eye(4)), ReadOptions(nonfinite=-1024))
    assert volume.array[1, 1, 1] == -1024


@pytest.mark.parametrize("image", [None, np.zeros((3, 4, 5)), (np.zeros((3, 4, 5)), np.eye(3)), 3])
def test_other_objects_are_refused_with_the_accepted_types(image):
    with pytest.raises(UsageError, match="SimpleITK") as caught:
        as_volume(image)
    assert caught.value.reason == "image-type"


LABELS = (Label(name="a", values=(1,)), Label(name="b", values=(2,)))


def test_masks_of_other_libraries_are_label_maps():
    array = np.zeros((3, 4, 5), np.uint8)
    array[0, 1, 2], array[2, 3, 4] = 1, 2
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    for each in (image, nibabel.Nifti1Image(array, np.eye(4)), (array.astype(np.float64), np.eye(4))):
        mask = as_mask(each, LABELS)
        np.testing.assert_array_equal(mask.array, array)
        assert mask.labels == LABELS
    assert as_mask(mask) is mask


def test_a_mask_with_fractions_is_refused():
    with pytest.raises(InputRefused) as caught:
        as_mask((np.full((3, 4, 5), 0.5), np.eye(4)))
    assert caught.value.reason == "mask-dtype"
    assert isinstance(as_volume((np.full((3, 4, 5), 0.5), np.eye(4))), Volume)
