"""Studies and patients of DICOM files in two splits are found, and not named."""

from __future__ import annotations

import json

from support.check_cases import series, with_

from medseg.datasets.manifest import Case
from medseg.datasets.validation import (
    check,
    subject_of,
)


def test_a_dicom_study_in_two_splits_is_reported_without_an_identifier(tmp_path):
    same = {"StudyInstanceUID": "1.2.3.4", "PatientID": "SECRET1"}
    made = [series(tmp_path, 0, "train", **same), series(tmp_path, 1, "val", **(same | {"PatientID": "X"}))]
    made = [with_(case, split="test") if case.split == "val" else case for case in made]
    report = check(made)
    findings = [each for each in report.findings if each.severity == "error"]
    assert [(each.case, each.code) for each in findings if each.code != "no-label"] == [
        ("c1", "study-in-two-splits")
    ]
    assert "1.2.3.4" not in str(report)
    assert "SECRET1" not in json.dumps(report.to_json())
    one = [with_(case, patient="p") for case in made]
    assert [e.code for e in check(one).findings if "splits" in e.code] == ["patient-in-two-splits"]


def test_a_dicom_patient_in_two_splits_is_reported_without_an_identifier(tmp_path):
    made = [
        series(tmp_path, n, split, PatientID="SECRET1") for n, split in enumerate(("train", "test", "test"))
    ]
    made.append(series(tmp_path, 3, "test", PatientID=" "))
    report = check(made)
    findings = [each for each in report.findings if each.code == "dicom-patient-in-two-splits"]
    assert [(each.case, each.severity) for each in findings] == [("c1", "warning")]  # once a patient
    assert "SECRET1" not in str(report)


def test_subjects_of_files_folders_and_missing_paths(tmp_path):
    assert subject_of(Case(id="a", images=(tmp_path / "gone",))) == (None, None)
    assert subject_of(Case(id="a", images=(tmp_path,))) == (None, None)
    (tmp_path / "a.txt").write_text("not DICOM")
    (tmp_path / "b.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\x02\0\0\0UL\x04\0\0\0")  # cut short
    assert subject_of(Case(id="a", images=(tmp_path,))) == (None, None)
    case = series(tmp_path, 0, "test", PatientID="P", StudyInstanceUID="1.2")
    one_file = with_(case, images=(sorted(case.images[0].iterdir())[0],))
    assert None not in subject_of(case)
    assert subject_of(case) == subject_of(one_file)
