"""Pictures as scans. The expected pixels are written out by hand, or come from Pillow or SimpleITK."""

import struct

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image, ImageOps
from support.pictures import png

import medseg
from medseg.errors import InputRefused, UsageError
from medseg.io import ReadOptions, read_channels
from medseg.io.picture import raster
from medseg.io.picture.reader import read_luminance

# 2 rows, 3 columns: no symmetry.
ROWS = np.array([[10, 20, 30], [40, 50, 60]], np.uint8)
RGB = np.stack([ROWS, ROWS + 100, ROWS[::-1]], -1)


def saved(tmp_path, array, name="a.png", **options):
    path = tmp_path / name
    Image.fromarray(array).save(path, **options)
    return path


def quiet(path, **options):
    with medseg.collect_notices() as notices:
        volume = medseg.read(path, **options)
    return volume, [each.reason for each in notices]


def test_columns_are_the_first_axis_and_rows_the_second(tmp_path):
    volume = medseg.read(saved(tmp_path, ROWS))
    assert volume.array.shape == (3, 2, 1)
    assert volume.array.dtype == np.uint8
    # top left, top right, bottom left, bottom right
    corners = [int(volume.array[x, y, 0]) for x, y in ((0, 0), (2, 0), (0, 1), (2, 1))]
    assert corners == [10, 30, 40, 60]
    assert volume.grid.axcodes == "LPS"
    assert volume.grid.spacing_mm == (1, 1, 1)
    assert (volume.source.format, volume.source.modality) == ("picture", "picture")


def test_the_grid_is_that_of_simpleitk(tmp_path):
    path = saved(tmp_path, ROWS)
    image = sitk.ReadImage(str(path))
    assert np.array_equal(sitk.GetArrayFromImage(image), medseg.read(path).array[..., 0].T)
    last = np.array(image.TransformIndexToPhysicalPoint((2, 1)))  # LPS
    assert np.allclose(medseg.read(path).grid.world((2, 1, 0))[:2], -last)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bits_are_kept(tmp_path, name):
    deep = np.array([[0, 1, 256], [257, 4095, 65535]], np.uint16)
    volume = medseg.read(saved(tmp_path, deep, name))
    assert np.array_equal(volume.array[..., 0].T, deep)


def test_the_channels_of_a_colour_picture(tmp_path):
    red, green, blue = read_channels([saved(tmp_path, RGB)], channels=3)
    for channel, volume in enumerate((red, green, blue)):
        assert np.array_equal(volume.array[..., 0].T, RGB[..., channel])
        assert volume.grid.same_as(red.grid)


def test_a_colour_picture_is_not_one_channel(tmp_path):
    with pytest.raises(InputRefused, match=r"has 3 channel\(s\), but 1 is needed") as caught:
        medseg.read(saved(tmp_path, RGB))
    assert caught.value.reason == "several-channels"


def test_grey_in_three_channels_is_grey_and_grey_is_a_colour(tmp_path):
    volume, reasons = quiet(saved(tmp_path, np.stack([ROWS] * 3, -1)))
    assert np.array_equal(volume.array[..., 0].T, ROWS)
    assert reasons == ["colour-is-grey"]
    with medseg.collect_notices() as notices:
        channels = read_channels([saved(tmp_path, ROWS)], channels=3)
    assert [np.array_equal(each.array[..., 0].T, ROWS) for each in channels] == [True] * 3
    assert [each.reason for each in notices] == ["grey-as-colour"]


def test_the_colours_of_a_palette_are_read(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 255, 128, 7, 9, 10, 11])
    image.putdata([1, 2])
    image.save(tmp_path / "a.png")
    found = [volume.array[:, 0, 0].tolist() for volume in read_channels([tmp_path / "a.png"], channels=3)]
    assert found == [[255, 9], [128, 10], [7, 11]]


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_of_few_bits_is_spread_over_0_to_255(tmp_path, bits):
    most = (1 << bits) - 1
    path = tmp_path / "a.png"
    path.write_bytes(png(2, 1, bits, 0, bytes([most << (8 - 2 * bits) & 0xFF])))  # 0, then the largest value
    assert medseg.read(path).array[:, 0, 0].tolist() == [0, 255]


@pytest.mark.parametrize("kind", [2, 4, 6])
def test_16_bit_colours_of_png_are_refused_rather_than_rounded(tmp_path, kind):
    samples = {2: 3, 4: 2, 6: 4}[kind]
    path = tmp_path / "a.png"
    path.write_bytes(png(1, 1, 16, kind, bytes(2 * samples)))
    with pytest.raises(InputRefused, match="round to 8 bits") as caught:
        medseg.read(path)
    assert caught.value.reason == "pixel-type"


def test_an_opaque_alpha_is_dropped_with_a_notice_and_others_are_refused(tmp_path):
    opaque = np.dstack([RGB, np.full(ROWS.shape, 255, np.uint8)])
    with medseg.collect_notices() as notices:
        channels = read_channels([saved(tmp_path, opaque)], channels=3)
    assert [np.array_equal(each.array[..., 0].T, RGB[..., n]) for n, each in enumerate(channels)] == [
        True
    ] * 3
    assert [each.reason for each in notices] == ["alpha-dropped"]
    opaque[0, 0, 3] = 254
    with pytest.raises(InputRefused, match="transparent") as caught:
        read_channels([saved(tmp_path, opaque)], channels=3)
    assert caught.value.reason == "alpha"


def test_a_transparent_colour_is_refused(tmp_path):
    with pytest.raises(InputRefused, match="transparent"):
        medseg.read(saved(tmp_path, ROWS, transparency=50))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "lzw.tif"])
def test_pictures_are_put_upright_as_pillow_does(tmp_path, orientation, name):
    noise = np.random.default_rng(0).integers(0, 255, (5, 7), np.uint8)
    exif = Image.Exif()
    exif[274] = orientation
    packed = {"compression": "tiff_lzw"} if name == "lzw.tif" else {}
    path = saved(tmp_path, noise, name, exif=exif, **packed)
    volume, reasons = quiet(path)
    # Not from an uncompressed TIFF: Pillow 13 scrambles these for orientations 5 to 8.
    oracle = path if name == "a.jpg" else saved(tmp_path, noise, "oracle.png", exif=exif)
    with Image.open(oracle) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(volume.array[..., 0].T, expected)
    assert reasons == ["exif-orientation"] * (orientation > 1)


def test_the_eight_orientations_by_hand():
    # Where the stored first row and first column go: TIFF 6.0, tag Orientation.
    expected = {
        1: [[10, 20, 30], [40, 50, 60]],
        2: [[30, 20, 10], [60, 50, 40]],
        3: [[60, 50, 40], [30, 20, 10]],
        4: [[40, 50, 60], [10, 20, 30]],
        5: [[10, 40], [20, 50], [30, 60]],
        6: [[40, 10], [50, 20], [60, 30]],
        7: [[60, 30], [50, 20], [40, 10]],
        8: [[30, 60], [20, 50], [10, 40]],
    }
    assert {n: raster.upright(ROWS, n).tolist() for n in expected} == expected


def test_a_jpeg_is_read_and_cmyk_is_refused(tmp_path):
    path = saved(tmp_path, np.full((16, 24), 77, np.uint8), "a.jpg")
    assert medseg.read(path).array.shape == (24, 16, 1)
    assert np.abs(medseg.read(path).array.astype(int) - 77).max() <= 1
    Image.new("CMYK", (4, 4)).save(tmp_path / "b.jpg")
    with pytest.raises(InputRefused, match="CMYK") as caught:
        medseg.read(tmp_path / "b.jpg")
    assert caught.value.reason == "pixel-type"


@pytest.mark.parametrize("kind", ["png", "jpg", "tif"])
def test_a_bomb_is_refused_by_its_header(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    if kind == "png":
        path.write_bytes(png(60_000, 60_000, 8, 0, b""))
    elif kind == "jpg":
        data = bytearray(saved(tmp_path, ROWS, "a.jpg").read_bytes())
        at = data.index(b"\xff\xc0")
        data[at + 5 : at + 9] = struct.pack(">HH", 60_000, 60_000)
        path.write_bytes(data)
    else:
        data = bytearray(saved(tmp_path, ROWS, "a.tif").read_bytes())
        for tag, value in ((256, 60_000), (257, 60_000)):
            entry = struct.pack("<HH", tag, 3)
            at = data.find(entry) if entry in data else data.index(struct.pack("<HH", tag, 4))
            data[at + 2 : at + 4] = struct.pack("<H", 4)
            data[at + 8 : at + 12] = struct.pack("<I", value)
        path.write_bytes(data)
    with pytest.raises(InputRefused, match="60000 x 60000 pixels") as caught:
        medseg.read(path)
    assert caught.value.reason == "too-large"


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
@pytest.mark.parametrize("kept", [0.3, 0.7])
def test_a_truncated_picture_is_refused(tmp_path, name, kept):
    noise = np.random.default_rng(0).integers(0, 255, (50, 60), np.uint8)
    path = saved(tmp_path, noise, name)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(InputRefused):
        medseg.read(path)


def test_other_content_is_refused(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"GIF89a" + bytes(20))
    with pytest.raises(InputRefused, match="GIF") as caught:
        medseg.read(path)
    assert caught.value.reason == "format"


def test_the_content_decides_not_the_suffix(tmp_path):
    path = saved(tmp_path, ROWS, "a.png")
    other = path.rename(tmp_path / "a.tif")
    assert np.array_equal(medseg.read(other).array[..., 0].T, ROWS)


def test_pixel_sizes_are_taken_when_asked_only(tmp_path):
    path = saved(tmp_path, ROWS, "a.tif", resolution_unit="cm", x_resolution=40, y_resolution=20)
    assert medseg.read(path).grid.spacing_mm == (1, 1, 1)
    assert medseg.read(path, pixel_mm="file").grid.spacing_mm == pytest.approx((0.25, 0.5, 1))
    assert medseg.read(path, pixel_mm=0.1).grid.spacing_mm == pytest.approx((0.1, 0.1, 1))
    with pytest.raises(InputRefused, match="does not say") as caught:
        medseg.read(saved(tmp_path, ROWS), pixel_mm="file")
    assert caught.value.reason == "no-geometry"
    with pytest.raises(UsageError, match="cannot measure"):
        medseg.read(path, pixel_mm=-1)


def test_the_luminance_of_colours_is_for_display(tmp_path):
    volume = read_luminance(saved(tmp_path, RGB), ReadOptions())
    assert volume.array[0, 0, 0] == pytest.approx(0.299 * 10 + 0.587 * 110 + 0.114 * 40)


def test_the_first_of_several_jpeg_pictures_is_read(tmp_path):
    first, second = (Image.new("L", (16, 8), value) for value in (40, 200))
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[second])
    volume, reasons = quiet(tmp_path / "a.jpg")
    assert abs(int(volume.array[3, 3, 0]) - 40) <= 1
    assert reasons == ["first-picture"]
    assert abs(int(medseg.read(tmp_path / "a.jpg", volume=2).array[3, 3, 0]) - 200) <= 1
