"""From bytes to intensities: every number means what the header says, or the scan is refused."""

import io as bytesio
import struct

import gdcm
import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, generate_frames
from support.series import NUMBERS, a_volume, edit, put, refusal

from medseg import io
from medseg.errors import InputWarning
from medseg.io.dicom import codestream

SYNTAXES = {
    "rle": gdcm.TransferSyntax.RLELossless,
    "jpeg lossless": gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    "jpeg-ls": gdcm.TransferSyntax.JPEGLSLossless,
    "jpeg 2000": gdcm.TransferSyntax.JPEG2000Lossless,
}
# Large enough for every codec, and not square.
LARGE = (np.arange(40 * 32 * 2, dtype=np.int32) * 7919 % 3000 - 1000).astype(np.int16).reshape(40, 32, 2)


@pytest.fixture
def series(tmp_path):
    return io.write_dicom_series(a_volume(), tmp_path / "series")


@pytest.fixture
def large(tmp_path):
    return io.write_dicom_series(a_volume(LARGE), tmp_path / "large")


def compress(path, syntax):
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(SYNTAXES[syntax]))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(path))
    assert writer.Write()


def compressed(folder, syntax):
    for path in folder.iterdir():
        compress(path, syntax)
    return folder


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_lossless_compression_loses_nothing(large, syntax):
    assert np.array_equal(io.read(compressed(large, syntax)).array, LARGE)


def test_a_series_may_mix_transfer_syntaxes(large):
    compress(min(large.iterdir()), "jpeg 2000")
    assert np.array_equal(io.read(large).array, LARGE)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_the_size_within_the_data_is_the_size_of_the_image(large, syntax):
    compressed(large, syntax)

    def swap(ds, _):
        ds.Rows, ds.Columns = (ds.Columns, ds.Rows) if syntax != "rle" else (ds.Rows, ds.Columns - 8)

    edit(large, swap)
    assert refusal(large).reason == "unreadable"


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_compressed_data_that_end_early_are_refused(large, syntax):
    compressed(large, syntax)

    def cut(ds, _):
        (stream,) = generate_frames(ds.PixelData, number_of_frames=1)
        ds.PixelData = encapsulate([stream[: len(stream) // 2 * 2 - 200]])

    edit(large, cut, slice(0, 1))
    assert refusal(large).reason == "unreadable"


def test_more_frames_than_there_are_data_for_are_refused(large):
    compressed(large, "rle")
    ds = pydicom.dcmread(min(large.iterdir()))
    with pytest.raises(ValueError, match="truncated"):
        codestream.check(ds, 32, 40, 2)


@pytest.mark.parametrize(
    ("stream", "size"),
    [
        # SOC, SIZ: Lsiz 41, Rsiz 0, 300 x 200 with offsets 44 and 8, tiles, 1 component.
        (
            struct.pack(">4sHH8IH", b"\xff\x4f\xff\x51", 41, 0, 344, 208, 44, 8, 344, 208, 0, 0, 1),
            (200, 300, 1),
        ),
        # SOI, APP0 of 4 bytes, SOF3: 12 bits, 200 lines, 300 columns, 1 component.
        (
            struct.pack(">4sHH4sBHHB", b"\xff\xd8\xff\xe0", 4, 0, b"\xff\xc3\0\x0b", 12, 200, 300, 1),
            (200, 300, 1),
        ),
        # A fill byte and DHT before the JPEG-LS frame.
        (b"\xff\xd8\xff\xff\xc4\0\2" + struct.pack(">4sBHHB", b"\xff\xf7\0\x0b", 8, 7, 5, 3), (7, 5, 3)),
        (b"something else", None),
    ],
)
def test_sizes_on_paper(stream, size):
    assert codestream.size(stream) == size


def test_a_jpeg_without_a_frame_is_damaged():
    with pytest.raises(ValueError, match="no start of frame"):
        codestream.size(b"\xff\xd8\xff\xe0\0\x04\0\0\0\0\0\0\0\0")


def test_bits_above_the_stored_ones_are_dropped_with_a_notice(series):
    def overlay(ds, _):
        pixels = ds.pixel_array.astype(np.int32) + 1000
        ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 12, 11, 0
        ds.RescaleIntercept = -1000
        ds.PixelData = (pixels | 0x8000).astype("<u2").tobytes()

    edit(series, overlay)
    with pytest.warns(InputWarning, match="above BitsStored"):
        assert np.array_equal(io.read(series).array, NUMBERS)


def test_the_sign_is_the_highest_stored_bit(series):
    def narrow(ds, _):
        pixels = ds.pixel_array.astype(np.int32)
        ds.BitsStored, ds.HighBit = 12, 11
        ds.PixelData = (pixels & 0x0FFF).astype("<u2").tobytes()  # no sign extension

    edit(series, narrow)
    with pytest.warns(InputWarning, match="above BitsStored"):
        assert np.array_equal(io.read(series).array, NUMBERS)


def test_pixels_at_the_top_of_their_container(series):
    def left(ds, _):
        ds.PixelData = (ds.pixel_array.astype(np.int32) * 16).astype("<i2").tobytes()
        ds.BitsStored, ds.HighBit = 12, 15

    edit(series, left)
    assert np.array_equal(io.read(series).array, NUMBERS)


@pytest.mark.parametrize(
    "values",
    [
        {"BitsStored": 17},
        {"BitsStored": 0},
        {"BitsStored": 12, "HighBit": 5},
        {"HighBit": 16},
        {"BitsAllocated": 12},
        {"BitsAllocated": 1},
    ],
)
def test_bits_that_do_not_fit_are_refused(series, values):
    edit(series, put(**values))
    assert refusal(series).reason in ("pixel-type", "unreadable")


def test_big_endian_and_32_bits(series):
    def change(ds, _):
        pixels = ds.pixel_array.astype(np.int32)
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 32, 32, 31
        ds.PixelData = pixels.astype("<i4").tobytes()

    edit(series, change, slice(0, 2))
    path = max(series.iterdir())
    little, big = pydicom.dcmread(path), pydicom.Dataset()
    big.update(little)
    big.PixelData = little.pixel_array.astype(">i2").tobytes()
    big.file_meta = little.file_meta
    big.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRBigEndian
    big.save_as(path)
    assert np.array_equal(io.read(series).array, NUMBERS)


def test_monochrome1_inverts_the_display_and_not_the_numbers(series):
    edit(series, put(PhotometricInterpretation="MONOCHROME1"))
    assert np.array_equal(io.read(series).array, NUMBERS)


def test_padding_keeps_its_number(series):
    edit(series, lambda ds, _: ds.add_new("PixelPaddingValue", "SS", -1000))
    assert io.read(series).array[0, 0, 0] == -1000


@pytest.mark.parametrize(
    "change",
    [
        put(RescaleSlope="0"),
        put(RescaleIntercept=None),
        put(RescaleSlope=None, RescaleIntercept=None),
    ],
)
def test_an_invalid_or_partial_rescale_is_refused(series, change):
    edit(series, change, slice(0, 1))
    assert refusal(series).reason == "rescale"


def test_ct_without_an_intercept_gives_a_notice(series):
    edit(series, put(RescaleSlope=None, RescaleIntercept=None))
    with pytest.warns(InputWarning, match="assumed to be HU"):
        assert np.array_equal(io.read(series).array, NUMBERS)


def test_views_with_graphics_are_not_scans(series):
    def overlay(ds, _):
        ds.ImageType = ["DERIVED", "SECONDARY", "MPR"]
        ds.add_new(0x60003000, "OW", bytes(4))

    edit(series, overlay)
    assert refusal(series).reason == "overlay"
    edit(series, put(ImageType=["ORIGINAL", "PRIMARY", "AXIAL"]))
    assert np.array_equal(io.read(series).array, NUMBERS)


def test_bytes_after_the_last_pixel(series):
    def longer(count):
        def change(ds, _):
            ds.PixelData += bytes(count)

        return change

    edit(series, longer(2), slice(0, 1))
    with pytest.warns(InputWarning, match="after the last pixel"):
        assert np.array_equal(io.read(series).array, NUMBERS)
    edit(series, longer(24), slice(0, 1))  # 3 x 4 pixels of 2 bytes: another frame
    assert refusal(series).reason == "unreadable"


def test_a_private_transfer_syntax_is_refused(series):
    path = min(series.iterdir())
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.9.9.9\0"))
    assert refusal(series).reason == "unreadable"


def test_whole_files_only(series):
    path = min(series.iterdir())
    ds = pydicom.dcmread(path)
    del ds.PixelData
    buffer = bytesio.BytesIO()
    ds.save_as(buffer)
    path.write_bytes(buffer.getvalue())
    assert refusal(series).reason == "unreadable"
