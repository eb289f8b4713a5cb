"""Label maps stored with a scale factor, as nibabel writes floats with the header of an integer scan."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

import medseg
from medseg import io
from medseg.errors import InputRefused
from medseg.system.notices import collect_notices

AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])


def saved(path, values, dtype, cls=nibabel.Nifti1Image):
    """The values as nibabel stores them in an integer type: with scl_slope and scl_inter of its choice."""
    header = cls.header_class()
    header.set_data_dtype(dtype)
    nibabel.save(cls(values, AFFINE, header), path)
    return path


def labels_up_to(top):
    return np.arange(20 * 20 * 4).reshape(20, 20, 4) % (top + 1)


@pytest.mark.parametrize("cls", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize(
    ("top", "dtype"),
    [
        (1, "i2"),
        (2, "i2"),
        (4, "i2"),
        (117, "i2"),
        (7, "u1"),
        (100, "u1"),
        (254, "i1"),
        (1039, "u2"),
        (33, "i4"),
    ],
)
def test_they_are_read_as_the_labels_that_were_saved(tmp_path, top, dtype, cls):
    labels = labels_up_to(top)
    path = saved(tmp_path / "labels.nii.gz", labels.astype(float), dtype, cls)
    off = np.abs(nibabel.load(path).get_fdata() - labels).max()  # how nibabel itself reads them
    with collect_notices() as notices:
        mask = io.read_mask(path, ())
    assert np.array_equal(mask.array, labels)
    assert {notice.reason for notice in notices} <= {"labels-rounded"}
    assert bool(notices) == (off > 1e-6)


def test_the_notice_states_how_far_off_they_were(tmp_path):
    # 0..7 in one byte: the factor is 7/255 = 0.027451, so that 4 is stored as 146 and read as 4.00784.
    path = saved(tmp_path / "labels.nii.gz", np.array([0.0, 4.0, 7.0]).reshape(3, 1, 1), "u1")
    with collect_notices() as notices:
        io.read_mask(path, ())
    assert "up to 0.0078 off" in str(notices[0])


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_rounding_errors_of_another_program_are_rounded(tmp_path, dtype):
    values = labels_up_to(5) + np.tile([1e-5, -9e-4, 0.0, 5e-4], 400).reshape(20, 20, 4)
    path = saved(tmp_path / "labels.nii", values, dtype)
    with collect_notices() as notices:
        assert np.array_equal(io.read_mask(path, ()).array, labels_up_to(5))
    assert "0.0009" in str(notices[0])


@pytest.mark.parametrize("in_memory", [False, True])
def test_images_of_nibabel_are_read_like_their_files(tmp_path, in_memory):
    image = nibabel.load(saved(tmp_path / "labels.nii.gz", labels_up_to(7).astype(float), "u1"))
    if in_memory:
        image = nibabel.Nifti1Image(image.get_fdata(), AFFINE)
        with pytest.raises(InputRefused, match="not whole"):  # the factor, and with it the reason, is lost
            medseg.as_mask(image)
    else:
        with collect_notices():
            assert np.array_equal(medseg.as_mask(image).array, labels_up_to(7))


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.linspace(0, 1, 1600), "u1"),  # probabilities
        (np.linspace(0, 1, 1600), "i2"),
        (np.tile([0.0, 0.5, 1.0], 600)[:1600], "i2"),
        (np.tile([0.0, 1.0, 1.01], 600)[:1600], "f4"),
        (np.linspace(0, 3000, 1600), "u1"),  # a factor of 11.8, which no label survives
    ],
)
def test_values_between_whole_numbers_are_not_a_label_map(tmp_path, values, dtype):
    path = saved(tmp_path / "scan.nii.gz", values.reshape(20, 20, 4), dtype)
    with pytest.raises(InputRefused) as caught:
        io.read_mask(path, ())
    assert caught.value.reason == "mask-dtype"
