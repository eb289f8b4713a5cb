"""Folders with a dataset.json: MSD and nnU-Net."""

from __future__ import annotations

import pytest
from support.commands import invoke
from support.layouts import found, listed, msd, put

from medseg.datasets.layouts import manifest_of
from medseg.datasets.manifest import Manifest
from medseg.errors import UsageError


def test_cases_of_msd_without_a_label_are_in_no_split(tmp_path):
    """With them in test, no model could be evaluated: their labels are not public."""
    folder = msd(tmp_path / "Task06_Lung")
    put(folder, "imagesTr/c9.nii.gz")
    out, message = invoke("manifest", folder, "-o", tmp_path / "m.csv", "--val", "0.3", "--test", "0.3")
    assert out == "4 cases of 4 patients: 1 no split, 1 test, 1 train, 1 val\n"
    assert "c9.nii.gz: it has no partner" in message
    cases = Manifest.read(tmp_path / "m.csv").cases
    assert [case.id for case in cases if case.label is None] == ["c4"]
    assert next(case.split for case in cases if case.id == "c4") is None


def test_missing_files_of_msd_are_reported(tmp_path):
    (msd(tmp_path) / "labelsTr" / "c2.nii.gz").unlink()
    with pytest.raises(UsageError, match=r"1 listed files are missing, the first is .*labelsTr/c2") as caught:
        found(tmp_path)
    assert caught.value.reason == "layout-missing"


def test_nnunet_version_1_has_one_file_per_channel(tmp_path):
    put(tmp_path, "imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz", "imagesTr/ab_0000.nii.gz")
    put(tmp_path, "labelsTr/a.nii.gz", "labelsTr/ab.nii.gz", label=True)
    entries = [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in ("a", "ab")]
    cases = manifest_of(listed(tmp_path, {"modality": {"0": "T1"}, "training": entries}), made=tmp_path).cases
    assert [[path.name for path in case.images] for case in cases] == [
        ["a_0000.nii.gz", "a_0001.nii.gz"],
        ["ab_0000.nii.gz"],
    ]
    (tmp_path / "imagesTr" / "a_0000.nii.gz").unlink()  # a channel between others is missing
    with pytest.raises(UsageError, match=r"listed files are missing.*a_0000"):
        found(tmp_path)


def test_nnunet_version_2(tmp_path):
    put(tmp_path, "imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz", "imagesTs/b_0000.nii.gz")
    put(tmp_path, "imagesTs/b_0001.nii.gz")
    put(tmp_path, "labelsTr/a.nii.gz", label=True)
    text = {"channel_names": {"0": "T1", "1": "T2"}, "file_ending": ".nii.gz", "numTraining": 1}
    cases = manifest_of(listed(tmp_path, text), made=tmp_path).cases
    assert [(case.id, len(case.images), case.split) for case in cases] == [("a", 2, "train"), ("b", 2, None)]
