"""The table of a batch: its columns, its encoding, and whether it was edited."""

import csv

import pytest
from support.commands import invoke
from support.layouts import put

from medseg.batch_processing import results
from medseg.batch_processing.case_discovery import items
from medseg.inference.case_result import CaseResult

LUNGS = {"right_lung": 2000.25, "left_lung": 1500.5}
DONE = CaseResult("ä", "m", "done", volumes_ml=LUNGS, study="s", inputs=("/x/ä.nii",))


def cells(path):
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def test_a_byte_order_mark_is_written_on_request_and_kept(tmp_path):
    path = results.write(tmp_path / "results.csv", [DONE])
    assert path.read_bytes().startswith(b"case,")
    results.write(path, [DONE], bom=True)
    assert path.read_bytes().startswith(b"\xef\xbb\xbfcase,")
    results.write(path, [DONE])
    assert path.read_bytes().startswith(b"\xef\xbb\xbfcase,")
    (row,) = cells(path)
    assert (row["case"], row["input"], row["both_lungs_ml"]) == ("ä", "/x/ä.nii", "3500.75")
    assert results.is_unedited(path, [DONE])


def test_a_table_without_the_later_columns_is_unedited(tmp_path):
    path = results.write(tmp_path / "results.csv", [DONE])
    (row,) = cells(path)
    for name in ("study", "qc_flags", "input", "both_lungs_ml"):
        del row[name]
    for change, unedited in (({}, True), ({"right_lung_ml": "1"}, False)):
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, row)
            table.writeheader()
            table.writerow(row | change)
        assert results.is_unedited(path, [DONE]) is unedited


@pytest.mark.parametrize(
    ("name", "patient", "study"),
    [
        ("ct.nii.gz", "", ""),
        ("p1/ct.nii.gz", "p1", ""),
        ("p1/2020/ct.nii.gz", "p1", "2020"),
        ("p1/2020/a/ct.nii.gz", "p1", "2020"),
    ],
)
def test_patient_and_study_are_the_folders_above_a_scan(tmp_path, name, patient, study):
    put(tmp_path, name)
    (item,) = items(tmp_path)
    assert (item.patient, item.study) == (patient, study)


def test_the_study_of_a_manifest_is_in_the_table(tmp_path):
    (tmp_path / "m.csv").write_text("id,patient,Study ID,image\na,p1,2020,a.nii\nb,,,b.nii\n")
    assert [(item.patient, item.study) for item in items(tmp_path / "m.csv")] == [("p1", "2020"), ("b", "")]


def test_a_batch_writes_path_patient_and_mark(tmp_path):
    put(tmp_path, "scans/p1/2020/ct.nii.gz")
    out = tmp_path / "out"
    invoke("batch", tmp_path / "scans", "-o", out, "--model", "threshold", "--workers", 1, "--bom")
    assert (out / "results.csv").read_bytes().startswith(b"\xef\xbb\xbf")
    (row,) = cells(out / "results.csv")
    assert (row["patient"], row["study"]) == ("p1", "2020")
    assert row["input"] == str(tmp_path / "scans/p1/2020/ct.nii.gz")
    both = float(row["right_lung_ml"]) + float(row["left_lung_ml"])
    assert float(row["both_lungs_ml"]) == pytest.approx(both, abs=2e-4)
    invoke("report", out)
    assert "medseg view" in (out / "report.html").read_text(encoding="utf-8")
