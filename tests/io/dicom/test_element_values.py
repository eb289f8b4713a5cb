"""Numbers of DICOM headers that are not written as the standard prescribes, as anonymisers and exports do."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import DataElement
from pydicom.uid import generate_uid
from support.series import NUMBERS, a_volume, datasets, edit, refusal

from medseg import io
from medseg.system.notices import collect_notices


@pytest.fixture
def series(tmp_path):
    return io.write_dicom_series(a_volume(), tmp_path / "series")


def replaced(series, keyword, change, which=slice(None)):
    """Replaces the text of an element in the bytes of the slices, whose header has explicit lengths."""
    for path in sorted(series.iterdir())[which]:
        raw = path.read_bytes()
        ds = pydicom.dcmread(path)
        tag = ds[keyword].tag
        start = raw.index(
            tag.group.to_bytes(2, "little") + tag.element.to_bytes(2, "little") + ds[keyword].VR.encode()
        )
        size = int.from_bytes(raw[start + 6 : start + 8], "little")
        vr, text = change(raw[start + 4 : start + 6], raw[start + 8 : start + 8 + size])
        text += b" " * (len(text) % 2)
        new = raw[start : start + 4] + vr + len(text).to_bytes(2, "little") + text
        path.write_bytes(raw[:start] + new + raw[start + 8 + size :])


def read_with_reasons(series):
    with collect_notices() as notices:
        return io.read(series), [notice.reason for notice in notices]


def comma(vr, text):
    return vr, text.replace(b".", b",")


@pytest.mark.parametrize(
    "keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"]
)
def test_a_decimal_comma_is_read_with_a_notice(series, keyword):
    before = io.read(series)
    replaced(series, keyword, comma)
    after, reasons = read_with_reasons(series)
    assert np.array_equal(after.array, NUMBERS)
    assert after.grid.distance_mm(before.grid) < 1e-9
    assert reasons == ["odd-numbers"]


def test_a_comma_in_the_rescale_of_one_slice_is_read(series):
    edit(series, lambda ds, _: setattr(ds, "RescaleIntercept", "-0.5"))
    before = io.read(series).array
    replaced(series, "RescaleIntercept", comma, slice(1, 2))
    after, reasons = read_with_reasons(series)
    assert np.array_equal(after.array, before)
    assert reasons == ["odd-numbers"]


@pytest.mark.parametrize("vr", [b"LO", b"ST", b"SH", b"LT", b"IS"])
@pytest.mark.parametrize("keyword", ["PixelSpacing", "ImagePositionPatient"])
def test_another_value_representation_is_read_with_a_notice(series, keyword, vr):
    before = io.read(series)
    replaced(series, keyword, lambda _, text: (vr, text))
    after, reasons = read_with_reasons(series)
    assert after.grid.distance_mm(before.grid) < 1e-9
    assert reasons == ["odd-numbers"]


def test_spacing_as_binary_numbers_is_read_with_a_notice(series):
    def binary(ds, _):
        spacing = [float(v) for v in ds.PixelSpacing]
        ds[0x00280030] = DataElement(0x00280030, "FD", spacing)

    before = io.read(series)
    edit(series, binary)
    after, reasons = read_with_reasons(series)
    assert after.grid.distance_mm(before.grid) < 1e-9
    assert reasons == ["odd-numbers"]


@pytest.mark.parametrize("text", [b"A1", b"1/60", b"Jane"])
def test_an_invalid_instance_number_is_ignored(series, text):
    replaced(series, "InstanceNumber", lambda vr, _: (vr, text))
    with collect_notices() as notices:
        assert np.array_equal(io.read(series).array, NUMBERS)
    assert [notice.reason for notice in notices] == ["odd-numbers"]
    assert "InstanceNumber" in notices[0].text
    assert text.decode() not in notices[0].text


@pytest.mark.parametrize("text", [b"0.8\\x", b"0.8 mm\\1.1", b"1,234.5\\1", b"0.8"])
def test_text_that_is_not_a_number_is_refused_as_geometry(series, text):
    replaced(series, "PixelSpacing", lambda vr, _: (vr, text))
    assert refusal(series).reason in ("no-geometry", "unreadable")


def test_a_rescale_that_is_not_a_number_is_refused(series):
    replaced(series, "RescaleIntercept", lambda vr, _: (vr, b"HU"))
    assert refusal(series).reason == "unreadable"


# --- scouts and empty files --------------------------------------------------------------


def scout(series, name, change):
    ds = datasets(series)[0]
    ds.ImageType, ds.SOPInstanceUID = ["ORIGINAL", "PRIMARY", "LOCALIZER"], generate_uid()
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    change(ds)
    ds.save_as(series / name)


def turned(ds):
    ds.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]


def wider(ds):
    ds.PixelSpacing = [2.5, 2.5]


def elsewhere(ds):
    ds.ImagePositionPatient = [0, 0, 300]


@pytest.mark.parametrize("changes", [(turned,), (turned, wider), (elsewhere,), (turned, elsewhere, wider)])
def test_localizers_of_the_scans_own_series_are_skipped_with_a_notice(series, changes):
    for number, change in enumerate(changes):
        scout(series, f"scout{number}.dcm", change)
    for path in (series, sorted(series.iterdir())[0]):
        volume, reasons = read_with_reasons(path)
        assert np.array_equal(volume.array, NUMBERS)
        assert reasons == ["localizer-skipped"]


def test_a_localizer_in_the_place_of_a_slice_leaves_a_gap_that_is_refused(series):
    edit(series, lambda ds, _: setattr(ds, "ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]), slice(2, 3))
    with collect_notices():
        assert refusal(series).reason in ("missing-slices", "uneven-slices", "uneven")


def test_a_series_of_localizers_alone_is_refused(series):
    edit(series, lambda ds, _: setattr(ds, "ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]))
    assert refusal(series).reason == "localizer"


@pytest.mark.parametrize("name", ["empty.dcm", "thumbnail.DCM", "dose report.dcm"])
def test_an_empty_file_of_another_name_is_skipped_with_a_notice(series, name):
    (series / name).touch()
    volume, reasons = read_with_reasons(series)
    assert np.array_equal(volume.array, NUMBERS)
    assert reasons == ["empty-file"]


def test_an_empty_file_named_like_the_slices_is_refused(series):
    path = sorted(series.iterdir())[-1]
    path.write_bytes(b"")  # a copy that ended because the disk was full
    assert refusal(series).reason == "unreadable"


def test_only_an_empty_file_is_refused(tmp_path):
    (tmp_path / "empty.dcm").touch()
    assert refusal(tmp_path).reason == "unreadable"
