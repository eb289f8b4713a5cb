import gzip
import struct

import nibabel
import numpy as np
import pytest

from medseg import io
from medseg.errors import InputRefused, UsageError
from medseg.grid import Grid
from medseg.label import Label
from medseg.volume import Mask, Volume

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
    # 10 = seconds (8) + unit of length: the other bits must not matter.
    volume = io.read(save(tmp_path / "a.nii", xyzt_units=8 + unit))
    assert volume.grid.spacing_mm == pytest.approx((0.9 * mm, 1.2 * mm, 3 * mm))
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
    flat = io.read(save(tmp_path / "flat.nii", NUMBERS[:, :, 0]))
    assert flat.array.shape == (2, 3, 1)
    five = save(tmp_path / "five.nii", np.zeros((2, 2, 2, 1, 3), np.int16))
    assert reason_of(five) == "several-channels"


def test_every_truncation_of_a_gz_is_refused(tmp_path):
    whole = save(tmp_path / "a.nii.gz").read_bytes()
    for length in range(1, len(whole), 7):
        (tmp_path / "b.nii.gz").write_bytes(whole[:length])
        assert reason_of(tmp_path / "b.nii.gz") == "unreadable"


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
    (tmp_path / "plain.nii.gz").write_bytes(save(tmp_path / "a.nii").read_bytes())
    assert reason_of(tmp_path / "plain.nii.gz") == "unreadable"
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
    grid = Grid.from_spacing((32768, 1, 1))
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
