"""A folder as a PACS exports it: one case for each CT volume; everything else is left out, and named once."""

import subprocess

import pandas as pd
import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid
from support.batches import chest, medseg

import medseg as package
from medseg.io import write_dicom_series

CT = "1.2.840.10008.5.1.4.1.1.2"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
DOSE_REPORT = "1.2.840.10008.5.1.4.1.1.88.67"
RT_DOSE = "1.2.840.10008.5.1.4.1.1.481.2"
# A structured report has no image (PS3.3 A.35).
OF_IMAGES = ("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
OF_PLACES = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness")


def put_object(path, like, sop_class, modality, without=(), **tags):
    """Saves one more object of the study, in a series of its own."""
    ds = dcmread(like)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = sop_class
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    ds.SeriesInstanceUID, ds.Modality = generate_uid(), modality
    for name in without:
        delattr(ds, name)
    for name, value in tags.items():
        setattr(ds, name, value)
    ds.save_as(path)


@pytest.fixture
def study(tmp_path):
    """A folder of two phases and what else a study holds, with names that say nothing, in one folder."""
    work, place = tmp_path / "work", tmp_path / "export" / "PAT001" / "STU1"
    work.mkdir()
    place.mkdir(parents=True)
    for phase in (0, 1):
        write_dicom_series(chest(phase), work / f"phase{phase}")
    package.segment_file(work / "phase0", work / "lungs.dcm", model="threshold", format="dicom-seg")
    first = sorted((work / "phase0").iterdir())
    of_study = dcmread(first[0])
    for phase in (0, 1):
        for number, path in enumerate(sorted((work / f"phase{phase}").iterdir())):
            ds = dcmread(path)
            ds.StudyInstanceUID = of_study.StudyInstanceUID
            ds.FrameOfReferenceUID = of_study.FrameOfReferenceUID
            ds.SeriesNumber = phase + 2
            ds.save_as(place / f"I{phase}{number:04d}")
    (work / "lungs.dcm").rename(place / "I90000")
    put_object(place / "I90001", first[0], SECONDARY_CAPTURE, "OT")
    put_object(place / "I90002", first[0], CT, "CT", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    put_object(place / "I90003", first[0], DOSE_REPORT, "SR", without=(*OF_IMAGES, *OF_PLACES))
    put_object(place / "I90004", first[0], RT_DOSE, "RTDOSE", DoseUnits="GY", DoseType="PHYSICAL")
    return tmp_path / "export"


def test_each_ct_volume_is_one_case_and_the_rest_is_named_once(study, tmp_path):
    command = medseg("batch", study, "-o", tmp_path / "out", "--model", "threshold", "--workers", 1)
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "2 done"
    assert ended.stderr.count("not scans to segment") == 1
    table = pd.read_csv(tmp_path / "out" / "results.csv", dtype=str)
    assert list(table.status) == ["done", "done"]
    assert set(table.patient) == {"PAT001"}
    assert set(table.study) == {"STU1"}
    places = {path.rsplit("/", 1)[1][:2] for path in table.input}
    assert places == {"I0", "I1"}  # one case for each phase
