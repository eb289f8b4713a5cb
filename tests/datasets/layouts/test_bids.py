"""BIDS folders."""

from __future__ import annotations

import pytest
from support.layouts import found, put

from medseg.errors import InputWarning, UsageError


def test_bids(tmp_path):
    put(tmp_path, "sub-01/anat/sub-01_T1w.nii.gz", "sub-02/ses-a/anat/sub-02_ses-a_T1w.nii.gz")
    put(tmp_path, "sub-02/ses-b/anat/sub-02_ses-b_T1w.nii.gz", "sub-03/anat/sub-03_T1w.nii.gz")
    derived = tmp_path / "derivatives" / "manual"
    put(derived, "sub-01/anat/sub-01_desc-lungs_dseg.nii.gz", label=True)
    put(derived, "sub-02/ses-a/anat/sub-02_ses-a_T1w_dseg.nii.gz", label=True)
    put(derived, "sub-02/ses-b/anat/sub-02_ses-b_label-lung_mask.nii.gz", label=True)
    with pytest.warns(InputWarning, match="sub-03_T1w.*no partner"):
        cases = found(tmp_path)
    assert {name: (label.rsplit("/", 1)[1], who) for name, (_, label, who) in cases.items()} == {
        "sub-01_T1w": ("sub-01_desc-lungs_dseg.nii.gz", "sub-01"),
        "sub-02_ses-a_T1w": ("sub-02_ses-a_T1w_dseg.nii.gz", "sub-02"),
        "sub-02_ses-b_T1w": ("sub-02_ses-b_label-lung_mask.nii.gz", "sub-02"),
    }
    put(derived, "sub-01/anat/sub-01_dseg.nii.gz", label=True)
    with pytest.raises(UsageError, match="2 labels could be"):
        found(tmp_path)


def test_bids_labels_that_match_two_images_or_no_subject(tmp_path):
    put(tmp_path, "sub-1/anat/sub-1_run-1_T1w.nii.gz", "sub-1/anat/sub-1_run-2_T1w.nii.gz")
    put(tmp_path, "derivatives/m/sub-1/anat/tumour_dseg.nii.gz", label=True)
    with (
        pytest.warns(InputWarning, match="no partner") as warned,
        pytest.raises(UsageError, match="no case"),
    ):
        found(tmp_path)
    assert any("tumour_dseg" in str(each.message) for each in warned)
    put(tmp_path, "derivatives/m/sub-1/anat/sub-1_T1w_dseg.nii.gz", label=True)
    with pytest.raises(UsageError, match="2 images could belong to this label"):
        found(tmp_path)


def test_bids_with_two_contrasts_of_a_subject(tmp_path):
    put(tmp_path, "sub-1/anat/sub-1_T1w.nii.gz", "sub-1/anat/sub-1_T2w.nii.gz")
    put(tmp_path, "derivatives/m/sub-1/anat/sub-1_T2w_dseg.nii.gz", label=True)
    with pytest.warns(InputWarning, match="sub-1_T1w.*no partner"):
        assert list(found(tmp_path)) == ["sub-1_T2w"]
