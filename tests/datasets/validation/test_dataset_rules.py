"""Rules for a whole set: each finding by a set that has this fault and no other."""

from __future__ import annotations

import nibabel as nib
import numpy as np
from support.check_cases import RECIPE, found, only, with_

import medseg
from medseg.datasets.validation import (
    check,
)
from medseg.images.grid import Grid
from medseg.images.volume import Volume


def test_an_unusual_storage_orientation_is_reported(make):
    cases = make("train", "train", "train", "val")
    for path in (*cases[1].images, cases[1].label):
        image = nib.load(path)
        nib.save(image.as_reoriented([[0, -1], [1, 1], [2, 1]]), path)
    finding = only(cases, "orientation-outlier")
    assert (finding.case, finding.severity) == ("case_1", "warning")
    assert "stored as LAS, but 3 of 4 cases as RAS" in finding.problem
    assert found(cases[:2]) == [(None, "no-validation-case")]  # of two none is the outlier


def test_unusual_voxel_sizes_are_reported(make):
    cases = make("train", "train", "val")
    for path in (*cases[0].images, cases[0].label):
        image = nib.load(path)
        medseg.write(
            Volume(np.asarray(image.dataobj)[:, :, ::4], Grid.from_spacing((49, 34, 7), (8, 9, 48))), path
        )
    finding = only(cases, "spacing-outlier")
    assert (finding.case, finding.severity) == ("case_0", "warning")
    assert "48 mm along S-I, usually 12" in finding.problem


def test_an_unusual_field_of_view_is_reported(make):
    cases = make("train", "train", "val")
    for path in (*cases[0].images, cases[0].label):
        image = nib.load(path)
        cut = np.asarray(image.dataobj)[:, :, 12:20]
        nib.save(nib.Nifti1Image(cut, image.affine), path)
    finding = only(cases, "size-outlier")
    # 8 of 28 slices of 12 mm.
    assert "96 mm along S-I, usually 336" in finding.problem


def test_the_same_voxels_in_another_format_and_order_are_a_duplicate(cases, tmp_path):
    scan = medseg.read(cases[0].images[0])
    as_float = Volume(scan.array.astype(np.float32), scan.grid).oriented("SLP")
    copy = with_(cases[1], images=(as_float.save(tmp_path / "copy.nrrd"),), label=cases[0].label)
    finding = next(f for f in check([cases[0], copy, cases[2]], RECIPE).findings if f.code == "duplicate")
    assert (finding.case, finding.severity) == ("case_1", "warning")
    assert "case_0" in finding.problem


def test_a_duplicate_in_another_split_is_an_error(cases):
    copy = with_(cases[2], images=cases[0].images, label=cases[0].label)
    finding = only([*cases[:2], copy], "duplicate-across-splits")
    assert (finding.case, finding.severity) == ("case_2", "error")
    assert "case_0, which is in split train, not val" in finding.problem
    # Of several equal ones the one in another split is named, not the one without a split.
    nobodys = with_(cases[0], id="n", split=None)
    codes = found([nobodys, cases[0], cases[1], copy])
    assert codes == [("case_2", "duplicate-across-splits"), ("case_0", "duplicate")]


def test_a_patient_in_two_splits_is_reported(cases):
    shared = [with_(case, patient="p") for case in cases]
    finding = only(shared, "patient-in-two-splits")
    assert (finding.case, finding.severity) == ("case_2", "error")
    assert "'p' is in split val, but with case case_0 in split train" in finding.problem


def test_missing_training_cases_are_reported(cases):
    held = [with_(case, split="val") for case in cases]
    finding = only(held, "no-training-case")
    assert (finding.case, finding.severity) == (None, "error")
    assert only(held, "no-training-case", None).severity == "warning"


def test_missing_validation_cases_are_reported(cases):
    finding = only([with_(case, split="train") for case in cases], "no-validation-case")
    assert (finding.case, finding.severity) == (None, "warning")
