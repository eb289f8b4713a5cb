"""TIFF: exact samples by tifffile, and by Pillow where only that knows the compression."""

import numpy as np
import pytest
import tifffile
from PIL import Image

import medseg
from medseg.errors import InputRefused, ResourceError
from medseg.io import read_channels

ROWS = np.array([[10, 20, 30], [40, 50, 60]], np.uint16) * 1000
NOISE = np.random.default_rng(1).integers(0, 65535, (20, 30, 3), np.uint16)


def rows(volume):
    return volume.array[..., 0].T


@pytest.mark.parametrize("options", [{}, {"bigtiff": True}, {"byteorder": ">"}, {"compression": "zlib"},
                                     {"tile": (16, 16)},
                                     {"compression": "zlib", "predictor": True}], ids=str)  # fmt: skip
def test_16_bits_of_every_form(tmp_path, options):
    tifffile.imwrite(tmp_path / "a.tif", ROWS, **options)
    assert np.array_equal(rows(medseg.read(tmp_path / "a.tif")), ROWS)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "lzma"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_compressed_files_of_pillow(tmp_path, compression, dtype):
    array = (NOISE[..., 0] >> (8 if dtype == np.uint8 else 0)).astype(dtype)
    Image.fromarray(array).save(tmp_path / "a.tif", compression=compression)
    assert np.array_equal(rows(medseg.read(tmp_path / "a.tif")), array)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_16_bit_colours_are_exact(tmp_path, planar):
    array = NOISE if planar == "contig" else np.moveaxis(NOISE, -1, 0)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb", planarconfig=planar)
    found = read_channels([tmp_path / "a.tif"], channels=3)
    assert [np.array_equal(rows(each), NOISE[..., n]) for n, each in enumerate(found)] == [True] * 3


def test_16_bit_colours_that_only_imagecodecs_decodes_are_refused(tmp_path):
    pytest.importorskip("PIL")
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, NOISE, photometric="rgb")
    data = bytearray(path.read_bytes())
    at = data.index(b"\x03\x01\x03\x00")  # tag 259, compression
    data[at + 8] = 5  # LZW
    path.write_bytes(data)
    with pytest.raises((ResourceError, InputRefused)) as caught:
        read_channels([path], channels=3)
    assert caught.value.reason in ("missing-extra", "unreadable")  # the latter if imagecodecs is installed


def test_float_pixels_are_kept(tmp_path):
    array = np.array([[0.25, -1.5], [3e5, 0]], np.float32)
    tifffile.imwrite(tmp_path / "a.tif", array)
    assert np.array_equal(rows(medseg.read(tmp_path / "a.tif")), array)


def test_white_as_zero_is_inverted_with_a_notice(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.array([[0, 200]], np.uint8), photometric="miniswhite")
    with medseg.collect_notices() as notices:
        assert rows(medseg.read(tmp_path / "a.tif")).tolist() == [[255, 55]]
    assert [each.reason for each in notices] == ["white-is-zero"]


def test_several_pages_are_refused_unless_one_is_chosen(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.stack([ROWS, ROWS + 1]), photometric="minisblack")
    with pytest.raises(InputRefused, match="2 pages") as caught:
        medseg.read(path)
    assert caught.value.reason == "several-pages"
    assert np.array_equal(rows(medseg.read(path, volume=2)), ROWS + 1)
    with pytest.raises(InputRefused, match="no page 3"):
        medseg.read(path, volume=3)


def test_a_stack_of_imagej_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.stack([ROWS, ROWS + 1, ROWS]), imagej=True, metadata={"axes": "ZYX"})
    with pytest.raises(InputRefused, match="3 pages"):
        medseg.read(path)


def test_a_palette_of_16_bits_is_read(tmp_path):
    table = np.zeros((3, 256), np.uint16)
    table[:, 1] = (0xFFFF, 0x8080, 0x0707)
    numbers = np.array([[1, 0]], np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", numbers, photometric="palette", colormap=table)
    found = [rows(each)[0].tolist() for each in read_channels([tmp_path / "a.tif"], channels=3)]
    assert found == [[255, 0], [128, 0], [7, 0]]


def test_alpha_of_16_bits(tmp_path):
    alpha = np.full((*NOISE.shape[:2], 1), 65535, np.uint16)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.concatenate([NOISE, alpha], -1), photometric="rgb", extrasamples=["unassalpha"])
    with medseg.collect_notices() as notices:
        found = read_channels([path], channels=3)
    assert np.array_equal(rows(found[2]), NOISE[..., 2])
    assert [each.reason for each in notices] == ["alpha-dropped"]


def test_cmyk_is_refused(tmp_path):
    Image.new("CMYK", (4, 4)).save(tmp_path / "a.tif")
    with pytest.raises(InputRefused, match="SEPARATED") as caught:
        medseg.read(tmp_path / "a.tif")
    assert caught.value.reason == "pixel-type"
