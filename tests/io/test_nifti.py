import gzip
import struct
import warnings
import zlib

import nibabel
import numpy as np
import pytest

from medseg import io
from medseg.errors import InputRefused, InputWarning, UsageError
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.volume import Mask, Volume
from medseg.io.nifti import orientation
from medseg.system import memory_budget

# 0.9 mm to the left, 1.2 mm to the back, 3 mm up: an LPS scan as scanners make them.
AFFINE = np.array([[-0.9, 0, 0, 80], [0, -1.2, 0, 60], [0, 0, 3, -40], [0, 0, 0, 1.0]])
NUMBERS = np.arange(24, dtype=np.int16).reshape(2, 3, 4) - 5


def save(path, array=NUMBERS, *, sform=1, qform=1, affine=AFFINE, kind=nibabel.Nifti1Image, **fields):
    """A NIfTI file written by nibabel alone."""
    image = kind(array, affine, dtype=fields.pop("dtype", array.dtype))
    image.set_sform(affine, sform)
    image.set_qform(affine, qform)
    for name, value in fields.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path


def reason_of(path, **options):
    with pytest.raises(InputRefused) as caught:
        io.read(path, **options)
    assert caught.value.where
    assert len(str(caught.value).splitlines()) <= 3
    return caught.value.reason


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_reads_what_nibabel_reads(tmp_path, kind, name):
    volume = io.read(save(tmp_path / name, kind=kind, sform=2, qform=1))
    assert volume.array.dtype == np.int16
    assert np.array_equal(volume.array, NUMBERS)
    assert np.allclose(volume.affine, AFFINE, atol=1e-5)
    assert volume.source.format == "nifti"
    assert (volume.source.sform_code, volume.source.qform_code) == (2, 1)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Pair, nibabel.Nifti2Pair])
@pytest.mark.parametrize("named", ["a.hdr", "a.img"])
def test_either_file_of_a_pair_will_do(tmp_path, kind, named):
    save(tmp_path / "a.hdr", kind=kind)
    assert np.array_equal(io.read(tmp_path / named).array, NUMBERS)


def test_big_endian_files_become_native(tmp_path):
    image = nibabel.Nifti1Image(NUMBERS, AFFINE, nibabel.Nifti1Header(endianness=">"), dtype=np.int16)
    image.set_sform(AFFINE, 1)
    nibabel.save(image, tmp_path / "a.nii")
    assert (tmp_path / "a.nii").read_bytes()[:4] == b"\x00\x00\x01\x5c"
    volume = io.read(tmp_path / "a.nii")
    assert np.array_equal(volume.array, NUMBERS)
    assert volume.array.dtype.isnative


def test_the_form_whose_code_is_set_counts(tmp_path):
    wrong = np.diag([1.0, 1, 1, 1])
    image = nibabel.Nifti1Image(NUMBERS, AFFINE, dtype=np.int16)
    for sform, qform in ((0, 1), (1, 0)):
        image.set_sform(AFFINE if sform else wrong, sform)
        image.set_qform(AFFINE if qform else wrong, qform)
        image.header["pixdim"][1:4] = (0.9, 1.2, 3)
        image.to_filename(tmp_path / "a.nii")
        assert np.allclose(io.read(tmp_path / "a.nii").affine, AFFINE, atol=1e-5)


def test_no_form_is_refused(tmp_path):
    assert reason_of(save(tmp_path / "a.nii", sform=0, qform=0)) == "no-geometry"


def test_contradicting_forms_are_refused_and_both_are_told(tmp_path):
    image = nibabel.Nifti1Image(NUMBERS, AFFINE, dtype=np.int16)
    image.set_sform(AFFINE, 1)
    shifted = AFFINE.copy()
    for shift, refused in ((0.05, False), (0.2, True)):
        shifted[0, 3] = 80 + shift
        image.set_qform(shifted, 1)
        image.to_filename(tmp_path / "a.nii")
        if refused:
            with pytest.raises(InputRefused, match=r"0\.2 mm apart") as caught:
                io.read(tmp_path / "a.nii")
            assert caught.value.reason == "form-conflict"
            assert "sform" in caught.value.problem
            assert "qform" in caught.value.problem
        else:
            io.read(tmp_path / "a.nii")


@pytest.mark.parametrize(("unit", "mm"), [(0, 1.0), (1, 1000.0), (2, 1.0), (3, 0.001)])
def test_units_of_length_become_mm(tmp_path, unit, mm):
    # The same scan, 0.9 x 1.2 x 3 mm, told in each unit. 8 is seconds: the other bits must not matter.
    affine = np.diag([1 / mm, 1 / mm, 1 / mm, 1.0]) @ AFFINE
    volume = io.read(save(tmp_path / "a.nii", affine=affine, xyzt_units=8 + unit))
    assert volume.grid.spacing_mm == pytest.approx((0.9, 1.2, 3))
    assert np.allclose(volume.affine, AFFINE, atol=1e-4)
    written = nibabel.load(io.write(volume, tmp_path / "b.nii"))
    assert int(written.header["xyzt_units"]) == 8 + (unit if unit == 0 else 2)
    assert io.read(tmp_path / "b.nii").grid.spacing_mm == pytest.approx(volume.grid.spacing_mm)


def test_unknown_unit_of_length_is_refused(tmp_path):
    assert reason_of(save(tmp_path / "a.nii", xyzt_units=5)) == "no-geometry"


@pytest.mark.parametrize(
    ("slope", "inter", "expected", "dtype"),
    [
        (1.0, 0.0, NUMBERS, "int16"),
        (0.0, 7.0, NUMBERS, "int16"),  # slope 0: no scaling, says the standard
        (1.0, -1024.0, NUMBERS - 1024, "int16"),
        (2000.0, 0.0, NUMBERS.astype(int) * 2000, "uint16"),
        (-100000.0, 3.0, NUMBERS.astype(int) * -100000 + 3, "int32"),
        (0.5, 0.25, NUMBERS * 0.5 + 0.25, "float32"),
        (1e9, 0.0, NUMBERS * np.float32(1e9), "float32"),
    ],
)
def test_intensities_are_rescaled_in_the_smallest_lossless_dtype(tmp_path, slope, inter, expected, dtype):
    array = NUMBERS + 5 if dtype == "uint16" else NUMBERS
    expected = expected + 5 * 2000 if dtype == "uint16" else expected
    path = save(tmp_path / "a.nii", array)
    raw = bytearray(path.read_bytes())
    struct.pack_into("<ff", raw, 112, slope, inter)  # scl_slope, scl_inter (nifti1.h)
    path.write_bytes(raw)
    volume = io.read(path)
    assert np.array_equal(volume.array, expected)
    assert volume.array.dtype == dtype


def test_scaled_floats_stay_float32(tmp_path):
    path = save(tmp_path / "a.nii", NUMBERS.astype(np.float64))
    raw = bytearray(path.read_bytes())
    struct.pack_into("<ff", raw, 112, 2.0, 1.0)
    path.write_bytes(raw)
    volume = io.read(path)
    assert np.array_equal(volume.array, NUMBERS * 2 + 1)
    assert volume.array.dtype == np.float32


def test_wide_integers_that_need_it_stay_wide(tmp_path):
    array = np.full((1, 1, 2), 2**40, np.int64)
    assert io.read(save(tmp_path / "a.nii", array)).array.tolist() == array.tolist()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_values_that_are_not_finite_are_refused_and_counted(tmp_path, value):
    array = NUMBERS.astype(np.float64)
    array[0, 0, :3] = value
    with pytest.raises(InputRefused, match="3 of 24 voxels"):
        io.read(save(tmp_path / "a.nii", array))


def test_colour_and_complex_are_refused(tmp_path):
    colour = np.zeros((2, 3, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    assert reason_of(save(tmp_path / "a.nii", colour)) == "pixel-type"
    assert reason_of(save(tmp_path / "b.nii", NUMBERS.astype(np.complex64))) == "pixel-type"


def test_dimensions(tmp_path):
    many = np.stack([NUMBERS, NUMBERS * 2], axis=-1)
    four = save(tmp_path / "four.nii.gz", many)
    assert reason_of(four) == "several-channels"
    one, two = io.read_channels([four], channels=2)
    assert np.array_equal(one.array, NUMBERS)
    assert np.array_equal(two.array, NUMBERS * 2)
    with pytest.raises(InputRefused, match="3 3D channel"):
        io.read_channels([four], channels=3)
    assert io.read(save(tmp_path / "tail.nii", NUMBERS[..., None, None])).array.shape == (2, 3, 4)
    flat = io.read(save(tmp_path / "flat.nii", NUMBERS[:, :, :1]))
    assert flat.array.shape == (2, 3, 1)
    five = save(tmp_path / "five.nii", np.zeros((2, 2, 2, 1, 3), np.int16))
    assert reason_of(five) == "several-channels"


def test_every_truncation_of_a_gz_is_refused(tmp_path):
    whole = save(tmp_path / "a.nii.gz").read_bytes()
    for length in range(1, len(whole), 7):
        (tmp_path / "b.nii.gz").write_bytes(whole[:length])
        # One byte is not enough to tell gzip.
        assert reason_of(tmp_path / "b.nii.gz") == ("unreadable" if length > 1 else "format")


def test_a_flipped_bit_in_a_gz_is_refused_by_its_crc(tmp_path):
    # Stored, not compressed: the flip changes a voxel and nothing else notices.
    plain = save(tmp_path / "a.nii").read_bytes()
    packed = bytearray(gzip.compress(plain, compresslevel=0))
    packed[-20] ^= 1
    (tmp_path / "b.nii.gz").write_bytes(packed)
    with pytest.raises(InputRefused, match="CRC"):
        io.read(tmp_path / "b.nii.gz")


def test_several_gzip_members_are_one_file(tmp_path):
    # As bgzip and parallel compressors write them.
    plain = save(tmp_path / "a.nii").read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(plain[:360]) + gzip.compress(plain[360:]))
    assert np.array_equal(io.read(tmp_path / "b.nii.gz").array, NUMBERS)


def test_every_truncation_of_a_plain_file_is_refused(tmp_path):
    whole = save(tmp_path / "a.nii").read_bytes()
    for length in range(1, len(whole), 5):
        (tmp_path / "b.nii").write_bytes(whole[:length])
        assert reason_of(tmp_path / "b.nii") in ("unreadable", "format", "no-geometry")


def test_files_that_are_something_else_are_refused(tmp_path):
    (tmp_path / "text.nii").write_text("hello, this is not a scan" * 40)
    assert reason_of(tmp_path / "text.nii") == "format"
    nibabel.AnalyzeImage(NUMBERS, AFFINE).to_filename(tmp_path / "old.hdr")
    assert reason_of(tmp_path / "old.hdr") == "no-geometry"
    (tmp_path / "a.txt").write_text("x")
    assert reason_of(tmp_path / "a.txt") == "format"
    (tmp_path / "empty.nii").touch()
    assert reason_of(tmp_path / "empty.nii") == "empty"
    assert reason_of(tmp_path / "missing.nii") == "not-found"


def test_a_pair_needs_both_files(tmp_path):
    save(tmp_path / "a.hdr", kind=nibabel.Nifti1Pair)
    (tmp_path / "a.img").unlink()
    assert reason_of(tmp_path / "a.hdr") == "not-found"


def test_impossible_headers_are_refused(tmp_path):
    path = save(tmp_path / "a.nii")
    for at, fmt, value in ((42, "<h", 0), (42, "<h", -3), (42, "<h", 30000), (70, "<h", 77)):
        raw = bytearray(path.read_bytes())
        struct.pack_into(fmt, raw, at, value)  # dim[1] at 42, datatype at 70 (nifti1.h)
        (tmp_path / "b.nii").write_bytes(raw)
        assert reason_of(tmp_path / "b.nii") == "unreadable"
    singular = np.diag([0.0, 1, 1, 1])
    image = nibabel.Nifti1Image(NUMBERS, None, dtype=np.int16)
    image.header.set_sform(singular, 1)
    image.to_filename(tmp_path / "c.nii")
    assert reason_of(tmp_path / "c.nii") == "geometry"


@pytest.mark.parametrize("codes", [(1, 1), (2, 1), (0, 1), (4, 0), (3, 3)])
def test_masks_keep_the_form_codes_of_their_scan(tmp_path, codes):
    source = io.read(save(tmp_path / "a.nii.gz", sform=codes[0], qform=codes[1], xyzt_units=10))
    mask = Mask(source.array > 0, source.grid, (Label(name="x", values=(1,)),), source.source)
    written = nibabel.load(io.write(mask, tmp_path / "m.nii.gz"))
    assert (int(written.header["sform_code"]), int(written.header["qform_code"])) == codes
    assert int(written.header["xyzt_units"]) == 10
    assert np.array_equal(written.header.get_sform(), source.affine.astype(np.float32))
    assert np.allclose(written.header.get_qform(), source.affine, atol=1e-4)
    assert np.array_equal(written.affine, nibabel.load(tmp_path / "a.nii.gz").affine)


def test_masks_of_other_sources_are_in_scanner_space_and_mm(tmp_path):
    volume = Volume(NUMBERS, Grid(NUMBERS.shape, AFFINE))
    header = nibabel.load(io.write(volume, tmp_path / "m.nii")).header
    assert (int(header["sform_code"]), int(header["qform_code"]), int(header["xyzt_units"])) == (1, 1, 2)
    assert (float(header["scl_slope"]), float(header["scl_inter"])) in ((1.0, 0.0),) or np.isnan(
        header["scl_slope"]
    )


@pytest.mark.parametrize("codes", [(0, 1), (2, 1), (0, 0)])
def test_a_sheared_grid_gets_no_qform(tmp_path, codes):
    sheared = AFFINE.copy()
    sheared[0, 2] = 0.4
    source = io.read(save(tmp_path / "a.nii", sform=1)).source
    source = type(source)(format="nifti", sform_code=codes[0], qform_code=codes[1])
    header = nibabel.load(
        io.write(Volume(NUMBERS, Grid(NUMBERS.shape, sheared), source), tmp_path / "b.nii")
    ).header
    assert int(header["qform_code"]) == 0
    assert int(header["sform_code"]) == (codes[0] or codes[1] or 1)
    assert np.array_equal(header.get_sform(), sheared.astype(np.float32))


def test_volumes_too_long_for_nifti1_are_written_as_nifti2(tmp_path):
    grid = Grid.from_spacing((32768, 1, 1), (0.5, 1, 1))
    volume = Volume(np.zeros(grid.shape, np.uint8), grid)
    for name in ("a.nii.gz", "a.hdr"):
        assert io.read(io.write(volume, tmp_path / name)).grid == grid
    assert isinstance(nibabel.load(tmp_path / "a.nii.gz"), nibabel.Nifti2Image)


def test_the_gzip_header_has_no_name_and_no_time(tmp_path):
    raw = io.write(Volume(NUMBERS, Grid(NUMBERS.shape, AFFINE)), tmp_path / "a.nii.gz").read_bytes()
    assert raw[3] == 0  # FLG, RFC 1952
    assert raw[4:8] == b"\0\0\0\0"  # MTIME


def test_real_scans_read_as_nibabel_reads_them(shared_data):
    for name in ("lung_ct_small/cip-ct64/ct.nii.gz", "mri/prostate/img.nii.gz"):
        found = sorted(shared_data.glob(name)) or sorted(shared_data.rglob(name.rsplit("/", 1)[1]))
        volume, oracle = io.read(found[0]), nibabel.load(found[0])
        assert np.allclose(volume.affine, oracle.affine)
        assert np.array_equal(volume.array, oracle.get_fdata(dtype=np.float32))


# Offsets and types of the fields as nifti1.h lays them out; (offset in NIfTI-2, its type) by nifti2.h.
FIELDS = {
    "dim": (40, "8h", 16, "8q"),
    "datatype": (70, "h", 12, "h"),
    "bitpix": (72, "h", 14, "h"),
    "pixdim": (76, "8f", 104, "8d"),
    "vox_offset": (108, "f", 168, "q"),
    "scl_slope": (112, "f", 176, "d"),
    "scl_inter": (116, "f", 184, "d"),
    "xyzt_units": (123, "b", 500, "i"),
    "descrip": (148, "80s", 240, "80s"),
    "aux_file": (228, "24s", 320, "24s"),
    "qform_code": (252, "h", 344, "i"),
    "sform_code": (254, "h", 348, "i"),
    "quatern": (256, "3f", 352, "3d"),
    "qoffset": (268, "3f", 376, "3d"),
    "srow": (280, "12f", 400, "12d"),
}
GOOD = {
    "dim": (3, 2, 3, 4, 1, 1, 1, 1),
    "datatype": 4,
    "bitpix": 16,
    # qfac -1: with the half turn about the posterior axis below, x goes left, y back, z up.
    "pixdim": (1.0, 0.9, 1.2, 3.0, 1.0, 1.0, 1.0, 1.0),
    "scl_slope": 1.0,
    "scl_inter": 0.0,
    "xyzt_units": 2,
    "qform_code": 1,
    "sform_code": 1,
    # A half turn about z: diag(-1, -1, 1).
    "quatern": (0.0, 0.0, 1.0),
    "qoffset": (80.0, 60.0, -40.0),
    "srow": (-0.9, 0, 0, 80, 0, -1.2, 0, 60, 0, 0, 3, -40),
}


def crafted(*, version=1, order="<", pair=False, data=None, extension=b"", **fields):
    """The bytes of a NIfTI header written by struct alone, and of the voxels."""
    size = {1: 348, 2: 540}[version]
    magic = {(1, 0): b"n+1\0", (1, 1): b"ni1\0", (2, 0): b"n+2\0\r\n\x1a\n", (2, 1): b"ni2\0\r\n\x1a\n"}
    raw = bytearray(size)
    struct.pack_into(order + "i", raw, 0, size)
    raw[344:348] = magic[1, int(pair)] if version == 1 else raw[344:348]
    if version == 2:
        raw[4:12] = magic[2, int(pair)]
    offset = 0 if pair else size + 4 + len(extension)
    for name, value in {**GOOD, "vox_offset": offset, **fields}.items():
        at, code = FIELDS[name][2 * version - 2 : 2 * version]
        values = value if isinstance(value, tuple) else (value,)
        struct.pack_into(order + code, raw, at, *values)
    voxels = NUMBERS.astype(f"{order}i2").tobytes(order="F") if data is None else data
    flag = b"\1\0\0\0" if extension else bytes(4)
    return bytes(raw) + (b"" if pair else flag + extension), voxels


def craft(path, **options):
    path.write_bytes(b"".join(crafted(**options)))
    return path


def silent(path, **options):
    """Reads; any warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return io.read(path, **options)


class TestCrafted:
    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("version", [1, 2])
    def test_every_layout_reads(self, tmp_path, capfd, version, order):
        header, voxels = crafted(version=version, order=order)
        (tmp_path / "plain.nii").write_bytes(header + voxels)
        (tmp_path / "plain.nii.gz").write_bytes(header + voxels)
        (tmp_path / "packed.nii").write_bytes(gzip.compress(header + voxels))
        (tmp_path / "PACKED.NII.GZ").write_bytes(gzip.compress(header + voxels))
        craft(
            tmp_path / "extension.nii", version=version, order=order, extension=b"\x10\0\0\0\6\0\0\0text    "
        )
        header, voxels = crafted(version=version, order=order, pair=True)
        for stem, hdr, img in (
            ("a", ".hdr", ".img"),
            ("b", ".HDR", ".IMG"),
            ("c", ".hdr.gz", ".img.gz"),
            ("d", ".hdr", ".img.gz"),
            ("e", ".hdr.gz", ".img"),
            ("f", ".hdr", ".IMG"),
        ):
            (tmp_path / (stem + hdr)).write_bytes(gzip.compress(header) if hdr.endswith("gz") else header)
            (tmp_path / (stem + img)).write_bytes(gzip.compress(voxels) if img.endswith("gz") else voxels)
        for path in sorted(tmp_path.iterdir()):
            volume = silent(path)
            assert np.array_equal(volume.array, NUMBERS), path
            assert volume.array.dtype.isnative
            assert np.allclose(volume.affine, AFFINE, atol=1e-6), path
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize(
        ("fields", "reason", "told"),
        [
            ({"vox_offset": float("nan")}, "unreadable", "vox_offset nan"),
            ({"vox_offset": float("inf")}, "unreadable", "vox_offset inf"),
            ({"vox_offset": -352.0}, "unreadable", "vox_offset -352"),
            ({"vox_offset": 0.0}, "unreadable", "352 is the least"),
            ({"vox_offset": 348.0}, "unreadable", "352 is the least"),
            ({"vox_offset": 352.5}, "unreadable", "352.5"),
            ({"vox_offset": 400.0}, "unreadable", "48 bytes are missing"),
            ({"vox_offset": 1e30}, "unreadable", "vox_offset 1e+30"),
            ({"dim": (3, 0, 3, 4, 1, 1, 1, 1)}, "unreadable", "dimensions"),
            ({"dim": (3, 2, -3, 4, 1, 1, 1, 1)}, "unreadable", "dimensions"),
            ({"dim": (3, 32767, 32767, 32767, 1, 1, 1, 1)}, "unreadable", "truncated: its header promises"),
            ({"dim": (0, 2, 3, 4, 1, 1, 1, 1)}, "unreadable", "dimensions"),
            ({"dim": (8, 2, 3, 4, 1, 1, 1, 1)}, "unreadable", "dimensions"),
            ({"dim": (1, 24, 1, 1, 1, 1, 1, 1)}, "not-3d", "1D data"),
            ({"dim": (2, 2, 12, 1, 1, 1, 1, 1)}, "not-3d", "2D data of size 2 x 12, not a 3D volume"),
            ({"dim": (4, 2, 3, 2, 2, 1, 1, 1)}, "several-channels", "4D data"),
            ({"dim": (5, 2, 2, 2, 1, 3, 1, 1)}, "several-channels", "5D data"),
            ({"datatype": 77}, "unreadable", "datatype 77"),
            ({"bitpix": 8}, "unreadable", "8 bits"),
            ({"datatype": 1, "bitpix": 1}, "pixel-type", "single bits"),
            ({"datatype": 32, "bitpix": 64}, "pixel-type", "complex"),
            ({"datatype": 128, "bitpix": 24}, "pixel-type", "RGB"),
            ({"datatype": 1536, "bitpix": 128}, "pixel-type", "128-bit"),
            ({"datatype": 2304, "bitpix": 32}, "pixel-type", "RGBA"),
            ({"pixdim": (1, float("nan"), 1, 1, 1, 1, 1, 1)}, "geometry", "spacing is not finite"),
            ({"pixdim": (1, 1, float("inf"), 1, 1, 1, 1, 1)}, "geometry", "spacing is not finite"),
            ({"pixdim": (1, 0.9, 0, 3, 1, 1, 1, 1)}, "geometry", "positive voxel sizes"),
            ({"pixdim": (1, 0.9, -1.2, 3, 1, 1, 1, 1)}, "geometry", "positive voxel sizes"),
            ({"pixdim": (7, 0.9, 1.2, 3, 1, 1, 1, 1)}, "geometry", "qfac"),
            ({"quatern": (0.8, 0.0, 0.8)}, "geometry", "1.28, not 1"),
            ({"quatern": (float("nan"), 0.0, 0.8)}, "geometry", "no rotation"),
            ({"qoffset": (float("nan"), 0.0, 0.0)}, "geometry", "affine of its qform"),
            ({"srow": (float("nan"),) + (0.0,) * 11}, "geometry", "affine of its sform"),
            ({"srow": (0.0,) * 12}, "geometry", "sform: the affine is singular"),
            ({"srow": (1.0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0)}, "geometry", "singular"),
            ({"qform_code": 0, "sform_code": 0}, "no-geometry", "orientation is unknown"),
            ({"xyzt_units": 4}, "no-geometry", "unit of length 4"),
            ({"scl_slope": float("inf")}, "scaling", "scl_slope inf"),
            ({"scl_slope": 2.0, "scl_inter": float("nan")}, "scaling", "scl_inter nan"),
            ({"scl_slope": 3e38}, "range", "exceed 3.4e+38"),
        ],
    )
    def test_traps_are_refused(self, tmp_path, capfd, fields, reason, told):
        with pytest.raises(InputRefused) as caught:
            silent(craft(tmp_path / "a.nii", **fields))
        assert caught.value.reason == reason
        assert told in caught.value.problem
        assert caught.value.where == str(tmp_path / "a.nii")
        assert caught.value.remedy
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            ({"dim": (3, 100000, 100000, 100000, 1, 1, 1, 1)}, "unreadable"),
            ({"dim": (3, 2**62, 2**62, 2**62, 1, 1, 1, 1)}, "unreadable"),
            ({"dim": (2**40, 2, 3, 4, 1, 1, 1, 1)}, "unreadable"),
            ({"vox_offset": 2**60}, "unreadable"),
            ({"vox_offset": 540}, "unreadable"),
        ],
    )
    def test_traps_of_nifti2_are_refused(self, tmp_path, fields, reason):
        for name in ("a.nii", "a.nii.gz"):
            header, voxels = crafted(version=2, **fields)
            raw = header + voxels
            (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
            assert reason_of(tmp_path / name) == reason

    @pytest.mark.parametrize(
        ("slope", "inter"), [(0.0, 7.0), (float("nan"), 7.0), (float("nan"), float("nan"))]
    )
    def test_no_slope_is_no_scaling(self, tmp_path, slope, inter):
        volume = silent(craft(tmp_path / "a.nii", scl_slope=slope, scl_inter=inter))
        assert np.array_equal(volume.array, NUMBERS)

    def test_a_damaged_mark_is_refused(self, tmp_path):
        raw = bytearray(b"".join(crafted()))
        for mark, reason in ((b"nx1\0", "format"), (b"\0\0\0\0", "no-geometry")):
            raw[344:348] = mark
            (tmp_path / "a.nii").write_bytes(raw)
            assert reason_of(tmp_path / "a.nii") == reason

    def test_pair_and_single_are_told_apart(self, tmp_path):
        header, voxels = crafted(pair=True)
        (tmp_path / "a.nii").write_bytes(header + bytes(4) + voxels)
        assert reason_of(tmp_path / "a.nii") == "format"
        craft(tmp_path / "b.hdr")
        craft(tmp_path / "b.img")
        assert reason_of(tmp_path / "b.img") == "format"

    def test_a_missing_image_file_is_named(self, tmp_path):
        (tmp_path / "a.hdr").write_bytes(crafted(pair=True)[0])
        with pytest.raises(InputRefused, match=r"a\.img is missing"):
            io.read(tmp_path / "a.hdr")


class TestSize:
    def test_little_after_the_voxels_is_passed_over_with_a_warning(self, tmp_path):
        raw = b"".join(crafted()) + b"padding"
        for name, content in (("a.nii", raw), ("b.nii.gz", gzip.compress(raw))):
            (tmp_path / name).write_bytes(content)
            with pytest.warns(InputWarning, match=f"{name}: 7 bytes after"):
                assert np.array_equal(io.read(tmp_path / name).array, NUMBERS)

    def test_much_after_the_voxels_is_refused(self, tmp_path):
        raw = b"".join(crafted())
        for name, content in (
            ("a.nii", raw + bytes(4097)),
            ("b.nii.gz", gzip.compress(raw + bytes(4097))),
            ("bomb.nii.gz", gzip.compress(raw + bytes(100 << 20), 9)),
        ):
            (tmp_path / name).write_bytes(content)
            assert reason_of(tmp_path / name) == "excess"

    def test_garbage_after_the_gzip_stream_is_refused(self, tmp_path):
        (tmp_path / "a.nii.gz").write_bytes(gzip.compress(b"".join(crafted())) + b"garbage")
        assert reason_of(tmp_path / "a.nii.gz") == "unreadable"

    def test_a_promise_that_gzip_cannot_keep_is_refused_before_it_is_allocated(self, tmp_path):
        # 2 GB promised by a file of about 100 bytes: deflate shrinks 1032 to 1 at most.
        raw = gzip.compress(b"".join(crafted(dim=(3, 1024, 1024, 1024, 1, 1, 1, 1))))
        (tmp_path / "a.nii.gz").write_bytes(raw)
        with pytest.raises(InputRefused, match="truncated"):
            io.read(tmp_path / "a.nii.gz")

    def test_gigabytes_of_one_value_are_a_bomb(self, tmp_path):
        # 4 GiB of zeros promised, and nearly as many there: 128 members of 32 MiB each.
        header, _ = crafted(
            dim=(3, 2048, 1024, 1024, 1, 1, 1, 1), srow=(0.1, 0, 0, 0, 0, 0.1, 0, 0, 0, 0, 0.1, 0)
        )
        zeros = gzip.compress(bytes(32 << 20), 9)
        (tmp_path / "a.nii.gz").write_bytes(gzip.compress(header) + zeros * 128)
        with pytest.raises(InputRefused, match="bomb") as caught:
            io.read(tmp_path / "a.nii.gz")
        assert caught.value.reason == "bomb"

    def test_more_than_memory_holds_is_refused(self, tmp_path, monkeypatch):
        monkeypatch.setattr(memory_budget, "available_bytes", lambda: 24 * 6 - 1)
        with pytest.raises(InputRefused, match="memory") as caught:
            io.read(craft(tmp_path / "a.nii"))
        assert caught.value.reason == "too-large"
        monkeypatch.setattr(memory_budget, "available_bytes", lambda: 24 * 6)
        io.read(tmp_path / "a.nii")

    def test_data_that_are_corrupt_are_told_so(self, tmp_path):
        raw = b"".join(crafted())
        packed = gzip.compress(raw)[:10] + b"\xff" * 50
        (tmp_path / "a.nii.gz").write_bytes(packed)
        with pytest.raises(InputRefused, match="damaged"):
            io.read(tmp_path / "a.nii.gz")
        with pytest.raises(zlib.error):
            gzip.decompress(packed)


class TestVolumes:
    def test_one_of_several_is_chosen(self, tmp_path):
        many = np.stack([NUMBERS, NUMBERS * 2, NUMBERS * 3], axis=-1)
        for name in ("a.nii", "a.nii.gz"):
            path = save(tmp_path / name, many)
            with pytest.raises(InputRefused, match=r"4D data \(2 x 3 x 4 x 3\) with 3 volume") as caught:
                io.read(path)
            assert "--volume N (1 to 3)" in caught.value.remedy
            for n in (1, 2, 3):
                assert np.array_equal(io.read(path, volume=n).array, NUMBERS * n)
            for n in (0, 4, -1):
                assert reason_of(path, volume=n) == "no-volume"

    def test_the_only_one_is_the_first(self, tmp_path):
        path = save(tmp_path / "a.nii")
        assert np.array_equal(io.read(path, volume=1).array, NUMBERS)
        assert reason_of(path, volume=2) == "no-volume"

    def test_damage_behind_the_chosen_volume_is_found(self, tmp_path):
        # Stored, not compressed: only the CRC knows.
        many = np.stack([NUMBERS, NUMBERS * 2], axis=-1)
        packed = bytearray(gzip.compress(save(tmp_path / "a.nii", many).read_bytes(), 0))
        packed[-20] ^= 1
        (tmp_path / "b.nii.gz").write_bytes(packed)
        assert reason_of(tmp_path / "b.nii.gz", volume=1) == "unreadable"

    def test_the_second_volume_of_a_cut_file_is_missed(self, tmp_path):
        header, voxels = crafted(dim=(4, 2, 3, 4, 3, 1, 1, 1))
        # 348 + 4 bytes and one volume of three; 2000 to 1 would be needed, so a gz gets that far.
        (tmp_path / "a.nii.gz").write_bytes(gzip.compress(header + voxels))
        with pytest.raises(InputRefused, match="truncated: the file ends 48 bytes before"):
            io.read(tmp_path / "a.nii.gz", volume=3)

    def test_narrow_types_are_written_as_their_next(self, tmp_path):
        for dtype in (bool, np.float16):
            volume = Volume(NUMBERS.astype(dtype), Grid(NUMBERS.shape, AFFINE))
            assert np.array_equal(io.read(io.write(volume, tmp_path / "a.nii")).array, volume.array)

    def test_five_dimensions_leave_nothing_to_choose(self, tmp_path):
        path = save(tmp_path / "a.nii", np.zeros((2, 2, 2, 2, 3), np.int16))
        assert reason_of(path, volume=1) == "several-channels"


class TestForms:
    SHIFTED = (-0.9, 0, 0, 90, 0, -1.2, 0, 60, 0, 0, 3, -40)

    def test_trust_resolves_a_conflict(self, tmp_path):
        path = craft(tmp_path / "a.nii", srow=self.SHIFTED)
        with pytest.raises(InputRefused, match=r"sform .* and qform .* place voxels 10 mm apart") as caught:
            io.read(path)
        assert caught.value.reason == "form-conflict"
        assert "--trust" in caught.value.remedy
        assert silent(path, trust="sform").affine[0, 3] == 90
        assert silent(path, trust="qform").affine[0, 3] == 80
        assert reason_of(path, trust="pixdim") == "form-conflict"

    def test_trust_passes_over_the_broken_form(self, tmp_path):
        path = craft(tmp_path / "a.nii", srow=(0.0,) * 12)
        assert np.allclose(silent(path, trust="qform").affine, AFFINE, atol=1e-6)
        path = craft(tmp_path / "b.nii", quatern=(9.0, 9.0, 9.0))
        assert np.allclose(silent(path, trust="sform").affine, AFFINE, atol=1e-6)

    def test_pixdim_is_trusted_only_on_request(self, tmp_path):
        path = craft(tmp_path / "a.nii", sform_code=0, qform_code=0)
        assert reason_of(path) == "no-geometry"
        assert reason_of(path, trust="sform") == "no-geometry"
        with pytest.warns(InputWarning, match="taken as R, A and S"):
            volume = io.read(path, trust="pixdim")
        assert np.allclose(volume.affine, np.diag([0.9, 1.2, 3, 1]))
        flat = craft(tmp_path / "b.nii", sform_code=0, qform_code=0, pixdim=(1, 0.9, 0, 3, 1, 1, 1, 1))
        assert reason_of(flat, trust="pixdim") == "geometry"

    @pytest.mark.parametrize("qfac", [-1.0, 0.0, 1.0])
    def test_the_qform_is_nibabels(self, tmp_path, qfac):
        path = craft(
            tmp_path / "a.nii",
            sform_code=0,
            quatern=(0.1, -0.3, 0.7),
            pixdim=(qfac, 0.9, 1.2, 3.0, 1, 1, 1, 1),
        )
        # nibabel takes only 1 and -1; 0 is 1 by nifti1.h.
        oracle = nibabel.Nifti1Header.from_fileobj(path.open("rb"), check=False)
        oracle["pixdim"][0] = qfac or 1.0
        assert np.allclose(silent(path).affine, oracle.get_qform(), atol=1e-6)

    def test_a_quaternion_a_little_too_long_is_rounding(self, tmp_path):
        path = craft(tmp_path / "a.nii", quatern=(0.0, 0.0, 1.000001), sform_code=0)
        assert np.allclose(silent(path).affine, AFFINE, atol=1e-6)

    def test_half_turns_do_not_conflict_for_lack_of_digits(self, tmp_path):
        # A scan stored from left to right and back to front is half a turn from RAS. A hair beside
        # it, the quaternion's first part is the root of a rounding error, and the forms that
        # nibabel writes are tenths of a millimetre apart.
        random = np.random.default_rng(0)
        apart = []
        for size in np.repeat((1e-4, 3e-4, 1e-3), 60):
            turn = np.eye(3)
            for axis, angle in enumerate((0.3, *(random.normal(size=2) * size))):
                i, j = (axis + 1) % 3, (axis + 2) % 3
                about = np.eye(3)
                about[[i, i, j, j], [i, j, i, j]] = (
                    np.cos(angle),
                    -np.sin(angle),
                    np.sin(angle),
                    np.cos(angle),
                )
                turn = about @ turn
            affine = np.eye(4)
            affine[:3, :3] = turn @ np.diag([-0.7, -0.7, 1.0])
            affine[:3, 3] = (180, 170, -300)
            header = nibabel.Nifti1Header()
            header.set_data_shape((512, 512, 300))
            header.set_sform(affine, 1)
            header.set_qform(affine, 1)
            forms = [Grid((512, 512, 300), form) for form in (affine, orientation._qform(header))]
            apart.append(forms[0].distance_mm(forms[1]))
            orientation._check_agreement({"sform": forms[0], "qform": forms[1]}, header)
        assert max(apart) > 0.11  # else this test would show nothing

    def test_an_sform_that_disagrees_with_pixdim_counts_with_a_warning(self, tmp_path):
        path = craft(tmp_path / "a.nii", qform_code=0, pixdim=(1.0, 1, 1, 1, 1, 1, 1, 1))
        with pytest.warns(InputWarning, match="the sform counts"):
            assert np.allclose(io.read(path).affine, AFFINE, atol=1e-6)

    def sheared(self, path, shear):
        """101 x 101 voxels of 1 mm, whose y axis leans towards x by ``shear`` mm a voxel.

        To first order, the polar decomposition turns either axis by half of it: a corner 50
        voxels from the centre along x and y moves by 50 x shear / 2 along both, which is
        sqrt(2) x 25 x shear mm.
        """
        return craft(
            path,
            dim=(3, 101, 101, 1, 1, 1, 1, 1),
            pixdim=(1.0,) * 8,
            data=bytes(101 * 101 * 2),
            qform_code=0,
            srow=(1, shear, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0),
        )

    def test_shear_within_rounding_stays(self, tmp_path):
        # sqrt(2) x 25 x 0.0002 = 0.007 mm
        path = self.sheared(tmp_path / "a.nii", 0.0002)
        assert silent(path).affine[0, 1] == pytest.approx(0.0002)

    def test_a_small_shear_is_squared_about_the_centre(self, tmp_path):
        # sqrt(2) x 25 x 0.002 = 0.071 mm
        path = self.sheared(tmp_path / "a.nii", 0.002)
        with pytest.warns(InputWarning, match=r"a.nii: .*squared, which moves voxels by up to 0\.071 mm"):
            grid = io.read(path).grid
        assert np.allclose(grid.direction.T @ grid.direction, np.eye(3), atol=1e-12)
        # The middle voxel is at x = 50 + 50 x 0.002, y = 50.
        assert np.allclose(grid.world((50, 50, 0)), (50.1, 50, 0), atol=1e-5)

    def test_more_shear_is_refused(self, tmp_path):
        # sqrt(2) x 25 x 0.01 = 0.354 mm
        path = self.sheared(tmp_path / "a.nii", 0.01)
        with pytest.raises(InputRefused, match=r"shear: its axes are not orthogonal, by 0\.35") as caught:
            io.read(path)
        assert caught.value.reason == "sheared"

    @pytest.mark.parametrize(
        ("scale", "told"),
        [(1e-4, "voxel spacing of 9e-05"), (5000.0, "voxel spacing of 4500")],
    )
    def test_sizes_no_scanner_makes_are_refused(self, tmp_path, scale, told):
        rows = tuple(scale * n for n in GOOD["srow"])
        sizes = (1.0, *(scale * n for n in GOOD["pixdim"][1:4]), 1, 1, 1, 1)
        with pytest.raises(InputRefused, match=told) as caught:
            io.read(craft(tmp_path / "a.nii", qform_code=0, srow=rows, pixdim=sizes))
        assert caught.value.reason == "geometry"

    def test_places_no_patient_is_at_are_refused(self, tmp_path):
        rows = (-0.9, 0, 0, 1e30, *GOOD["srow"][4:])
        with pytest.raises(InputRefused, match="from the origin") as caught:
            io.read(craft(tmp_path / "a.nii", qform_code=0, srow=rows))
        assert caught.value.reason == "geometry"


class TestNotFinite:
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_replaced_on_request_with_their_count(self, tmp_path, dtype):
        array = NUMBERS.astype(dtype)
        array[0, 0] = (np.nan, np.inf, -np.inf, 1)
        path = save(tmp_path / "a.nii", array)
        with pytest.warns(
            InputWarning, match="a.nii: 3 of 24 voxels are NaN or infinite .* replaced by -1024"
        ):
            found = io.read(path, nonfinite=-1024).array
        array[0, 0, :3] = -1024
        assert np.array_equal(found, array)
        assert np.array_equal(silent(save(tmp_path / "b.nii", array), nonfinite=-1024).array, array)

    def test_replaced_after_scaling(self, tmp_path):
        values = np.array([[[1.0, np.nan]]], np.float32)
        path = craft(
            tmp_path / "a.nii",
            dim=(3, 1, 1, 2, 1, 1, 1, 1),
            datatype=16,
            bitpix=32,
            data=values.tobytes(),
            scl_slope=2.0,
            scl_inter=10.0,
        )
        with pytest.warns(InputWarning, match="1 of 2"):
            assert io.read(path, nonfinite=-5).array.ravel().tolist() == [12, -5]

    def test_too_large_for_float32_is_never_replaced(self, tmp_path):
        array = NUMBERS.astype(np.float64)
        array[0, 0, 0] = 1e300
        assert reason_of(save(tmp_path / "a.nii", array), nonfinite=0.0) == "range"

    def test_a_replacement_must_be_a_number(self, tmp_path):
        with pytest.raises(UsageError) as caught:
            io.read(save(tmp_path / "a.nii"), nonfinite=float("nan"))
        assert caught.value.reason == "nonfinite"


def test_no_text_of_the_source_is_kept(tmp_path):
    path = craft(tmp_path / "a.nii", descrip=b"Jane Doe 1970", aux_file=b"doe.txt")
    volume = io.read(path)
    assert "Jane" not in repr(volume.source)
    assert b"doe" not in gzip.decompress(io.write(volume, tmp_path / "b.nii.gz").read_bytes()).lower()
    header = nibabel.load(tmp_path / "b.nii.gz").header
    for field in ("descrip", "aux_file", "db_name", "intent_name"):
        assert not header[field].item()


class TestChannels:
    def test_one_path_a_channel_on_one_grid(self, tmp_path):
        paths = [save(tmp_path / "a.nii"), save(tmp_path / "b.nii", NUMBERS * 3)]
        one, two = io.read_channels(paths, channels=2)
        assert np.array_equal(two.array, one.array * 3)
        assert len(io.read_channels(paths[:1])) == 1

    def test_another_grid_is_refused_naming_both(self, tmp_path):
        moved = AFFINE.copy()
        moved[2, 3] += 0.02
        paths = [save(tmp_path / "a.nii"), save(tmp_path / "b.nii", affine=moved)]
        with pytest.raises(InputRefused, match=r"a\.nii") as caught:
            io.read_channels(paths, channels=2)
        assert caught.value.reason == "grid-mismatch"
        assert caught.value.where.endswith("b.nii")
        assert "0.02 mm apart" in caught.value.problem

    def test_channels_of_two_shapes_have_no_distance(self, tmp_path):
        paths = [save(tmp_path / "a.nii"), save(tmp_path / "b.nii", NUMBERS[:-1])]
        with pytest.raises(InputRefused, match="the shapes differ") as caught:
            io.read_channels(paths, channels=2)
        assert "mm apart" not in caught.value.problem

    def test_a_hundredth_of_a_millimetre_is_the_same_grid(self, tmp_path):
        moved = AFFINE.copy()
        moved[2, 3] += 0.005
        paths = [save(tmp_path / "a.nii"), save(tmp_path / "b.nii", affine=moved)]
        assert len(io.read_channels(paths, channels=2)) == 2

    def test_the_number_of_paths_must_fit(self, tmp_path):
        path = save(tmp_path / "a.nii")
        for paths, channels in (([path, path], 1), ([path, path], 3), ([], 1)):
            with pytest.raises(UsageError) as caught:
                io.read_channels(paths, channels=channels)
            assert caught.value.reason == "channel-count"

    def test_a_single_scan_is_not_several_channels(self, tmp_path):
        path = io.write(Volume(NUMBERS, Grid(NUMBERS.shape, AFFINE)), tmp_path / "a.mha")
        with pytest.raises(UsageError, match="1 path"):
            io.read_channels([path], channels=2)


class TestMasks:
    LABELS = (Label(name="x", values=(1,)), Label(name="y", values=(2,)))

    @pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.float32, np.float64])
    def test_whole_numbers_in_any_dtype_are_a_mask(self, tmp_path, dtype):
        array = (NUMBERS % 3).astype(dtype)
        mask = io.read_mask(save(tmp_path / "m.nii.gz", array), self.LABELS)
        assert np.array_equal(mask.array, array)
        assert mask.array.dtype == np.uint8
        assert mask.labels == self.LABELS
        assert mask.source.format == "nifti"

    @pytest.mark.parametrize(
        ("value", "dtype", "reason"),
        [
            (0.5, np.float32, "mask-dtype"),
            (-1, np.int16, "mask-range"),
            (-1.0, np.float32, "mask-range"),
            (70000, np.int32, "mask-range"),
            (1e30, np.float32, "mask-range"),
        ],
    )
    def test_other_values_are_refused_with_the_file_named(self, tmp_path, value, dtype, reason):
        array = np.zeros((2, 3, 4), dtype)
        array[1, 1, 1] = value
        path = save(tmp_path / "m.nii", array)
        with pytest.raises(InputRefused) as caught:
            io.read_mask(path, self.LABELS)
        assert caught.value.reason == reason
        assert caught.value.where == str(path)


def test_a_nifti_2_file_copied_in_text_mode_is_refused(tmp_path):
    path = craft(tmp_path / "a.nii", version=2)
    path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n\n", 1))
    with pytest.raises(InputRefused, match="text mode") as caught:
        io.read(path)
    assert caught.value.reason == "format"
