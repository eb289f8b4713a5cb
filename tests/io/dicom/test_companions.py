"""A series in several folders: one volume, but copies and phases of it stay apart."""

import shutil

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid
from support.series import NUMBERS, a_volume

from medseg import io
from medseg.io.dicom.companions import companion_folders


def spread(tmp_path, volume=None, *, folders=("DIR000", "DIR001"), top="cd"):
    """A series whose files are dealt to folders in turn, the first of them first: 3 and 2 of 5 slices."""
    series = io.write_dicom_series(volume or a_volume(), tmp_path / f"series_{top}")
    paths = sorted(series.iterdir())
    share = -(-len(paths) // len(folders))
    for number, path in enumerate(paths):
        folder = tmp_path / top / folders[number // share]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.move(path, folder / path.name)
    series.rmdir()
    return [tmp_path / top / name for name in folders]


def test_any_file_stands_for_the_series_in_all_its_folders(tmp_path):
    one, two = spread(tmp_path)
    for folder in (one, two):
        volume = io.read(sorted(folder.iterdir())[0])
        assert np.array_equal(volume.array, NUMBERS)
        assert len(volume.source.files) == 5
    assert np.array_equal(io.read(tmp_path / "cd").array, NUMBERS)


def test_another_series_in_the_same_folders_is_left_out(tmp_path):
    folders = spread(tmp_path)
    others = spread(tmp_path, a_volume(NUMBERS + 1), top="other")
    for folder, other in zip(folders, others, strict=True):
        for path in other.iterdir():
            shutil.copy(path, folder / f"x{path.name}")
    assert np.array_equal(io.read(folders[0] / "slice0001.dcm").array, NUMBERS)
    assert np.array_equal(io.read(folders[0] / "xslice0001.dcm").array, NUMBERS + 1)


def test_a_copy_of_the_series_is_separate(tmp_path):
    folder = io.write_dicom_series(a_volume(), tmp_path / "a")
    shutil.copytree(folder, tmp_path / "b")
    assert np.array_equal(io.read(sorted(folder.iterdir())[0]).array, NUMBERS)


def test_another_phase_of_the_series_is_separate(tmp_path):
    folder = io.write_dicom_series(a_volume(), tmp_path / "a")
    shutil.copytree(folder, tmp_path / "b")
    for path in (tmp_path / "b").iterdir():
        ds = pydicom.dcmread(path)
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        ds.save_as(path)
    assert np.array_equal(io.read(sorted(folder.iterdir())[0]).array, NUMBERS)


@pytest.mark.parametrize("keyword", ["PatientID", "StudyInstanceUID"])
def test_a_series_of_another_patient_with_the_same_uid_is_separate(tmp_path, keyword):
    one, two = spread(tmp_path)
    for path in two.iterdir():
        ds = pydicom.dcmread(path)
        setattr(ds, keyword, "1.2.3.4")
        ds.save_as(path)
    assert companion_folders(sorted(one.iterdir())[0]) == ()
