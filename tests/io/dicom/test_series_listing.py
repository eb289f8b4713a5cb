"""The table of series, and what selects one."""

import json

import numpy as np
import pytest
from pydicom import dcmread
from support.commands import invoke, output
from support.series import NUMBERS, a_volume, edit, put, refusal

from medseg import io
from medseg.io.dicom.series_listing import Series, chosen, table


def one_of(uid, number):
    return Series(uid, "CT", 5, (3, 4, 5), (), number)


def shuffled(folder, *parts):
    """The files of several series in one folder; no part of it tells them apart but the headers."""
    folder.mkdir()
    for name, made in parts:
        for file in sorted(made.iterdir()):
            file.rename(folder / f"{name}{file.name}")
    return folder


@pytest.fixture
def both(tmp_path):
    big = io.write_dicom_series(a_volume(), tmp_path / "a")
    edit(
        big,
        put(SeriesDescription="Chest Smith LUNG 1.0 19530417", ConvolutionKernel="B70f", SliceThickness=3),
    )
    small = io.write_dicom_series(a_volume(NUMBERS[:, :, :3]), tmp_path / "b")
    edit(small, put(SeriesDescription="Abd_venous 5mm", NominalPercentageOfCardiacPhase=75.0))
    return shuffled(tmp_path / "both", ("a", big), ("b", small))


def test_a_number_is_looked_up_after_a_whole_uid_and_before_an_ending():
    series = [one_of("1.2.9", 1), one_of("1.2.31", 2), one_of("2", 3)]
    assert [one.number for one in chosen(series, "1.2.31")] == [2]
    assert [one.number for one in chosen(series, "2")] == [3]  # the whole UID
    assert [one.number for one in chosen(series, "1")] == [1]  # the number, though a UID ends in 1
    assert [one.number for one in chosen(series, "31")] == [2]
    assert [one.number for one in chosen(series, "")] == [1, 2, 3]
    assert chosen(series, "0") == []


def test_endings_in_the_table_have_four_digits_or_as_many_as_tell_series_apart():
    lines = table([one_of("1.2.771234", 1), one_of("1.2.881234", 2), one_of("1.2.885678", 3), one_of("", 4)])
    assert [line.split()[1] for line in lines[1:]] == ["71234", "81234", "5678", "-"]


def test_the_refusal_has_a_table_and_each_number_reads_its_series(both):
    error = refusal(both)
    assert error.reason == "several-series"
    first, second = error.details[1:]
    # The words that may name a patient, and what may be a date, are left out.
    assert first.split()[2:] == ["CT", "Chest", "LUNG", "1.0", "B70f", "3", "mm", "1.1", "x", "0.8", "5", "-"]
    assert "CT Abd venous 5mm" in second
    assert second.endswith("3       75 %")
    assert not any(word in f"{error}{error.details}" for word in ("Smith", "1953"))
    assert io.read(both, series="1").array.shape == NUMBERS.shape
    assert io.read(both, series="2").array.shape == NUMBERS[:, :, :3].shape
    assert io.read(both, series=2).array.shape == NUMBERS[:, :, :3].shape
    assert [one.number for one in io.list_series(both)] == [1, 2]
    assert refusal(both, series="3").details == error.details


def test_series_without_a_uid_are_selected_by_number(both):
    edit(both, put(SeriesInstanceUID=""))
    error = refusal(both)
    assert error.reason == "several-series"
    assert [line.split()[1] for line in error.details[1:]] == ["-", "-"]
    # World coordinates keep the voxels whatever their order on disk.
    for number, array in (("1", NUMBERS), ("2", NUMBERS[:, :, :3])):
        assert np.array_equal(
            np.sort(io.read(both, series=number).array, axis=None), np.sort(array, axis=None)
        )


def test_localizers_are_the_last_in_the_table_however_many_slices_they_have(both):
    scouts = [path for path in both.iterdir() if path.name.startswith("a")]
    for path in scouts:
        ds = dcmread(path)
        ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        ds.save_as(path)
    assert [one.slices for one in io.list_series(both)] == [3, 5]
    assert io.read(both, series="1").array.shape == NUMBERS[:, :, :3].shape


def test_info_lists_the_series_without_an_error_and_a_refusal_shows_the_table(both, tmp_path):
    text = "".join(invoke("info", both))
    assert "B70f" in text
    assert f"medseg info {both} --series 1" in text
    assert "[3, 4, 3]" in output("info", both, "--series", 2)
    listed = json.loads(output("info", both, "--json"))["series"]
    assert [(one["number"], one["slices"], one["kernel"]) for one in listed] == [(1, 5, "B70f"), (2, 3, None)]
    _, err = invoke("convert", both, "-o", tmp_path / "scan.nii.gz", code=3)
    assert "number  end of UID" in err
    assert "error: " in err
    assert "2 series are in this folder" in err
    # The table has the endings of the UIDs; whole UIDs are not repeated.
    assert not any(one.uid in err for one in io.list_series(both))
    assert "B70f" in err
    failed = json.loads(
        output("convert", both, "-o", tmp_path / "scan.nii.gz", "--series", "x", "--json", code=3)
    )
    assert len(failed["error"]["details"]) == 3
    mask = tmp_path / "mask.nii.gz"
    _, err = invoke("segment", both, "-o", mask, "--series", 2, "--model", "threshold")
    assert f"Next: medseg view {both} {mask} --series 2\n" in err
