import gzip
import struct

import nibabel
import numpy as np
import pytest
from support.nifti_files import AFFINE, NUMBERS, craft, crafted, reason_of, save, silent

from medseg import io
from medseg.errors import InputRefused, InputWarning, UsageError
from medseg.images.grid import Grid
from medseg.images.volume import Volume


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


def test_files_of_another_kind_are_refused(tmp_path):
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


def test_real_scans_read_as_nibabel_reads_them(shared_data):
    for name in ("lung_ct_small/cip-ct64/ct.nii.gz", "mri/prostate/img.nii.gz"):
        found = sorted(shared_data.glob(name)) or sorted(shared_data.rglob(name.rsplit("/", 1)[1]))
        volume, oracle = io.read(found[0]), nibabel.load(found[0])
        assert np.allclose(volume.affine, oracle.affine)
        assert np.array_equal(volume.array, oracle.get_fdata(dtype=np.float32))


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

    def test_a_single_volume_has_number_1(self, tmp_path):
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

    def test_bool_and_float16_are_written_as_wider_types(self, tmp_path):
        for dtype in (bool, np.float16):
            volume = Volume(NUMBERS.astype(dtype), Grid(NUMBERS.shape, AFFINE))
            assert np.array_equal(io.read(io.write(volume, tmp_path / "a.nii")).array, volume.array)

    def test_five_dimensions_leave_nothing_to_choose(self, tmp_path):
        path = save(tmp_path / "a.nii", np.zeros((2, 2, 2, 2, 3), np.int16))
        assert reason_of(path, volume=1) == "several-channels"


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
