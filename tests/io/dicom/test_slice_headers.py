"""Discovery of slices in a DICOM folder: nothing that could be a slice is skipped."""

import gzip
import os
import shutil
import socket

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid
from support.series import NUMBERS, a_volume, datasets, edit, enhanced, moved, put, refusal

from medseg import io
from medseg.errors import InputWarning


@pytest.fixture
def series(tmp_path):
    return io.write_dicom_series(a_volume(), tmp_path / "series")


def last(folder):
    return max(folder.iterdir())


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 4000, b"<html>Not found</html>", b"\x89PNG\r\n\x1a\n" + bytes(200)]
)
def test_a_file_named_like_a_slice_without_being_one_is_not_skipped(series, content):
    last(series).write_bytes(content)
    error = refusal(series)
    assert error.reason == "unreadable"
    assert last(series).name in error.where


def test_names_without_suffix_count_by_their_shape(series):
    for number, path in enumerate(sorted(series.iterdir())):
        path.rename(series / f"IM{number:04d}")
    assert np.array_equal(io.read(series).array, NUMBERS)
    (series / "IM0004").write_bytes(b"")
    assert refusal(series).reason == "unreadable"
    (series / "IM0004").unlink()
    (series / "README").write_text("no slice is named so")
    assert io.read(series).grid.shape == (3, 4, 4)


def test_a_link_to_nowhere_may_be_a_slice(series):
    path = last(series)
    content = path.read_bytes()
    path.unlink()
    path.symlink_to("gone.dcm")
    assert "link" in refusal(series).problem
    (series.parent / "elsewhere").write_bytes(content)
    path.unlink()
    path.symlink_to(series.parent / "elsewhere")
    assert np.array_equal(io.read(series).array, NUMBERS)


def test_pipes_sockets_and_hidden_files_are_never_opened(series):
    os.mkfifo(series / "slice9999.dcm")
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.open(series, os.O_RDONLY)
        listening.bind(f"/proc/self/fd/{here}/slice8888.dcm")
        os.close(here)
        (series / "._slice0001.dcm").write_bytes(b"\0\5\x16\7Mac OS X")
        (series / ".hidden").mkdir()
        shutil.copy(series / "slice0001.dcm", series / ".hidden")
        assert np.array_equal(io.read(series).array, NUMBERS)


def test_folders_within_folders_count(series, tmp_path):
    deep = tmp_path / "a" / "b" / "c"
    deep.parent.mkdir(parents=True)
    shutil.copytree(series, deep)
    assert np.array_equal(io.read(tmp_path / "a").array, NUMBERS)
    shutil.move(last(deep), tmp_path / "a" / "b")
    assert np.array_equal(io.read(tmp_path / "a").array, NUMBERS)
    # A file stands for its series: the slice in the folder around its own one is not left out.
    assert np.array_equal(io.read(min(deep.iterdir())).array, NUMBERS)


def test_a_dicomdir_stands_for_its_folder_and_its_paths_are_not_followed(series, tmp_path):
    outside = io.write_dicom_series(a_volume(NUMBERS[::-1]), tmp_path / "outside")
    ds = pydicom.Dataset()
    ds.SOPClassUID = "1.2.840.10008.1.3.10"
    record = pydicom.Dataset()
    record.ReferencedFileID = ["..", "outside", min(outside.iterdir()).name]
    ds.DirectoryRecordSequence = [record]
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, "1.2"
    ds.save_as(series / "DICOMDIR", enforce_file_format=True)
    for path in (series, series / "DICOMDIR"):
        assert np.array_equal(io.read(path).array, NUMBERS)


def test_gzip_around_a_slice_is_undone(series):
    for path in sorted(series.iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert np.array_equal(io.read(series).array, NUMBERS)
    assert np.array_equal(io.read(min(series.iterdir())).array, NUMBERS)


def test_a_gzip_bomb_is_not_unpacked(series):
    path = last(series)
    bomb = gzip.compress(path.read_bytes() + bytes(1 << 28), 9)
    path.unlink()
    path.with_name("slice0005.dcm.gz").write_bytes(bomb)
    assert refusal(series).reason == "too-large"


def test_a_deflate_bomb_is_not_unpacked(series):
    def bomb(ds, _):
        ds.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
        ds.PixelData += bytes(1 << 28)

    edit(series, bomb, slice(0, 1))
    assert min(series.iterdir()).stat().st_size < 1 << 20
    assert refusal(series).reason == "too-large"


@pytest.mark.parametrize("depth", [50, 5000])
def test_nesting_is_bounded(series, depth):
    path = last(series)
    ds = pydicom.dcmread(path)
    whole = path.read_bytes()
    at = whole.rfind(b"\xe0\x7f\x10\x00OW")
    # A private sequence of undefined length in an item of undefined length, and so on.
    opened = b"\x09\x00\x01\x10SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * depth
    closed = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0" * depth
    path.write_bytes(whole[:at] + b"\x6f\x00\x01\x10UN" + b"\0\0\0\0\0\0" + whole[at:])
    del ds
    start = whole.find(b"\x08\x00\x16\x00UI")
    path.write_bytes(whole[:start] + b"\x08\x00\x06\x00" + opened[4:] + closed + whole[start:])
    if depth == 50:
        assert np.array_equal(io.read(series).array, NUMBERS)
    else:
        error = refusal(series)
        assert error.reason == "unreadable"
        assert "nested" in error.problem


def test_a_localizer_in_a_series_of_its_own_is_skipped_with_a_notice(series):
    scout = datasets(series)[0]
    scout.SeriesInstanceUID, scout.ImageType = generate_uid(), ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    scout.save_as(series / "scout.dcm")
    with pytest.warns(InputWarning, match="localizer"):
        assert np.array_equal(io.read(series).array, NUMBERS)
    assert refusal(series / "scout.dcm").reason == "localizer"


@pytest.mark.filterwarnings("ignore:.*skipped a localizer or picture:medseg.errors.InputWarning")
def test_an_image_of_the_dose_report_is_skipped_with_a_notice(series):
    report = datasets(series)[0]
    report.SeriesInstanceUID, report.Modality = generate_uid(), "OT"
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    del report.ImagePositionPatient, report.ImageOrientationPatient
    report.save_as(series / "report.dcm")
    with pytest.warns(InputWarning, match="picture"):
        assert np.array_equal(io.read(series).array, NUMBERS)
    assert refusal(series / "report.dcm").reason == "no-geometry"
    # Not so where the same series has slices without a place: one may be missing.
    edit(series, lambda ds, _: setattr(ds, "ImagePositionPatient", None), slice(1, 2))
    assert refusal(series).reason == "no-geometry"


def test_two_patients_with_one_series_uid_are_kept_apart(series):
    for keyword, name in (
        ("PatientID", "patient"),
        ("StudyInstanceUID", "study"),
        ("FrameOfReferenceUID", "frame of reference"),
    ):
        before = datasets(series)[0][keyword].value
        edit(series, put(**{keyword: "1.2.3"}), slice(0, 1))
        error = refusal(series)
        assert error.reason == "mixed-series"
        assert name in error.problem
        assert "PHANTOM" not in str(error)
        edit(series, put(**{keyword: before}), slice(0, 1))


def second(series, change):
    """Adds a copy of each slice, after ``change``."""
    for path in sorted(series.iterdir()):
        ds = pydicom.dcmread(path)
        ds.SOPInstanceUID = generate_uid()
        change(ds)
        ds.save_as(series / f"b{path.name}")


@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("EchoTime", (4.92, 10.1)),
        ("TemporalPositionIdentifier", (2, 10)),
        ("NominalPercentageOfCardiacPhase", (40.0, 75.0)),
        ("AcquisitionNumber", (1, 2)),
        ("ContentTime", ("120000", "120500")),
        ("ImageType", (["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"])),
    ],
)
def test_volumes_at_the_same_positions_need_a_choice(series, keyword, values):
    edit(series, put(**{keyword: values[0]}))

    def change(ds):
        setattr(ds, keyword, values[1])
        ds.PixelData = (ds.pixel_array + 1).tobytes()

    second(series, change)
    error = refusal(series)
    assert error.reason == "several-volumes"
    assert keyword in error.problem
    assert np.array_equal(io.read(series, volume=1).array, NUMBERS)
    assert np.array_equal(io.read(series, volume=2).array, NUMBERS + 1)
    assert refusal(series, volume=3).reason == "no-volume"


def test_a_different_time_for_each_slice_does_not_separate_volumes(series):
    edit(series, lambda ds, n: setattr(ds, "ContentTime", f"12000{n}"))
    assert np.array_equal(io.read(series).array, NUMBERS)
    number = iter(range(5))
    second(series, lambda ds: setattr(ds, "ContentTime", f"12010{next(number)}"))
    assert refusal(series).reason == "duplicate-slices"


def test_volumes_that_interleave_need_a_choice(series):
    # Slices at 0, 2.5, 5, ... and at 1, 3.5, 6, ... mm: together they are not evenly spaced.
    edit(series, put(AcquisitionNumber=1))

    def change(ds):
        ds.AcquisitionNumber = 2
        moved(ds, 1.0)

    second(series, change)
    assert refusal(series).reason == "several-volumes"
    assert np.array_equal(io.read(series, volume=1).array, NUMBERS)


def test_blocks_acquired_one_after_the_other_are_one_volume(series):
    edit(series, lambda ds, n: setattr(ds, "AcquisitionNumber", 1 + n // 3))
    assert np.array_equal(io.read(series).array, NUMBERS)
    edit(series, lambda ds, n: setattr(ds, "AcquisitionNumber", n))
    assert np.array_equal(io.read(series).array, NUMBERS)


class TestFrames:
    @pytest.mark.parametrize("order", [None, [3, 0, 4, 1, 2]])
    def test_frames_lie_at_their_stated_positions(self, series, tmp_path, order):
        enhanced(datasets(series), order).save_as(tmp_path / "e.dcm")
        volume = io.read(tmp_path / "e.dcm")
        assert np.array_equal(volume.array, NUMBERS)
        assert volume.grid.distance_mm(io.read(series).grid) < 1e-6
        assert volume.source.files == (tmp_path / "e.dcm",)

    def test_each_frame_has_its_own_rescale(self, series, tmp_path):
        edit(series, lambda ds, n: setattr(ds, "RescaleIntercept", 10 * n))
        enhanced(datasets(series)).save_as(tmp_path / "e.dcm")
        assert np.array_equal(io.read(tmp_path / "e.dcm").array, NUMBERS + 10 * np.arange(5))

    def test_a_missing_frame_is_refused(self, series, tmp_path):
        enhanced(datasets(series), [0, 1, 3, 4]).save_as(tmp_path / "e.dcm")
        assert refusal(tmp_path / "e.dcm").reason == "missing-slices"

    def test_time_points_need_a_choice(self, series, tmp_path):
        parts = datasets(series) * 2
        enhanced(parts, TemporalPositionIndex=[1] * 5 + [2] * 5).save_as(tmp_path / "e.dcm")
        assert refusal(tmp_path / "e.dcm").reason == "several-volumes"
        assert np.array_equal(io.read(tmp_path / "e.dcm", volume=2).array, NUMBERS)

    def test_frames_without_positions_are_refused(self, series, tmp_path):
        ds = enhanced(datasets(series))
        for frame in ds.PerFrameFunctionalGroupsSequence:
            del frame.PlanePositionSequence
        ds.save_as(tmp_path / "e.dcm")
        assert refusal(tmp_path / "e.dcm").reason == "no-geometry"

    @pytest.mark.parametrize("frames", [4, 6])
    def test_the_number_of_frames_must_fit(self, series, tmp_path, frames):
        ds = enhanced(datasets(series))
        ds.NumberOfFrames = frames
        ds.save_as(tmp_path / "e.dcm")
        assert refusal(tmp_path / "e.dcm").reason == "no-geometry"

    def test_parts_of_one_image_belong_together(self, series, tmp_path):
        parts, folder = datasets(series), tmp_path / "parts"
        folder.mkdir()
        for number, frames in enumerate(([0, 1, 2], [3, 4])):
            ds = enhanced(parts, frames)
            ds.ConcatenationUID, ds.InConcatenationTotalNumber = "1.2.3", 2
            ds.InConcatenationNumber = number + 1
            ds.save_as(folder / f"{number}.dcm")
        assert np.array_equal(io.read(folder / "0.dcm").array, NUMBERS)
        (folder / "1.dcm").unlink()
        error = refusal(folder)
        assert error.reason == "missing-slices"
        assert "of the 2 files" in error.problem

    def test_packed_and_compressed_frames(self, series, tmp_path):
        ds = enhanced(datasets(series), [4, 3, 2, 1, 0])
        ds.compress(pydicom.uid.RLELossless)
        ds.save_as(tmp_path / "e.dcm")
        assert np.array_equal(io.read(tmp_path / "e.dcm").array, NUMBERS)
        (tmp_path / "e.dcm.gz").write_bytes(gzip.compress((tmp_path / "e.dcm").read_bytes()))
        assert np.array_equal(io.read(tmp_path / "e.dcm.gz").array, NUMBERS)
