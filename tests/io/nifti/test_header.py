import gzip
import struct

import nibabel
import numpy as np
import pytest
from support.nifti_files import AFFINE, NUMBERS, craft, crafted, reason_of, save, silent

from medseg import io
from medseg.errors import InputRefused


@pytest.mark.parametrize(("unit", "mm"), [(0, 1.0), (1, 1000.0), (2, 1.0), (3, 0.001)])
def test_units_of_length_become_mm(tmp_path, unit, mm):
    # The same scan, 0.9 x 1.2 x 3 mm, stated in each unit. 8 is seconds: the other bits must not matter.
    affine = np.diag([1 / mm, 1 / mm, 1 / mm, 1.0]) @ AFFINE
    volume = io.read(save(tmp_path / "a.nii", affine=affine, xyzt_units=8 + unit))
    assert volume.grid.spacing_mm == pytest.approx((0.9, 1.2, 3))
    assert np.allclose(volume.affine, AFFINE, atol=1e-4)
    written = nibabel.load(io.write(volume, tmp_path / "b.nii"))
    assert int(written.header["xyzt_units"]) == 8 + (unit if unit == 0 else 2)
    assert io.read(tmp_path / "b.nii").grid.spacing_mm == pytest.approx(volume.grid.spacing_mm)


def test_unknown_unit_of_length_is_refused(tmp_path):
    assert reason_of(save(tmp_path / "a.nii", xyzt_units=5)) == "no-geometry"


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
        ("fields", "reason", "message"),
        [
            ({"vox_offset": float("nan")}, "unreadable", "vox_offset nan"),
            ({"vox_offset": float("inf")}, "unreadable", "vox_offset inf"),
            ({"vox_offset": -352.0}, "unreadable", "vox_offset -352"),
            ({"vox_offset": 0.0}, "unreadable", "the minimum is 352"),
            ({"vox_offset": 348.0}, "unreadable", "the minimum is 352"),
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
            ({"quatern": (0.8, 0.0, 0.8)}, "geometry", "1.28 > 1"),
            ({"quatern": (float("nan"), 0.0, 0.8)}, "geometry", "not a rotation"),
            ({"qoffset": (float("nan"), 0.0, 0.0)}, "geometry", "affine of the qform"),
            ({"srow": (float("nan"),) + (0.0,) * 11}, "geometry", "affine of the sform"),
            ({"srow": (0.0,) * 12}, "geometry", "sform: the affine is singular"),
            ({"srow": (1.0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0)}, "geometry", "singular"),
            ({"qform_code": 0, "sform_code": 0}, "no-geometry", "orientation is unknown"),
            ({"xyzt_units": 4}, "no-geometry", "unit of length 4"),
            ({"scl_slope": float("inf")}, "scaling", "scl_slope inf"),
            ({"scl_slope": 2.0, "scl_inter": float("nan")}, "scaling", "scl_inter nan"),
            ({"scl_slope": 3e38}, "range", "exceed 3.4e+38"),
        ],
    )
    def test_traps_are_refused(self, tmp_path, capfd, fields, reason, message):
        with pytest.raises(InputRefused) as caught:
            silent(craft(tmp_path / "a.nii", **fields))
        assert caught.value.reason == reason
        assert message in caught.value.problem
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
    def test_a_missing_slope_means_no_scaling(self, tmp_path, slope, inter):
        volume = silent(craft(tmp_path / "a.nii", scl_slope=slope, scl_inter=inter))
        assert np.array_equal(volume.array, NUMBERS)

    def test_a_damaged_mark_is_refused(self, tmp_path):
        raw = bytearray(b"".join(crafted()))
        for mark, reason in ((b"nx1\0", "format"), (b"\0\0\0\0", "no-geometry")):
            raw[344:348] = mark
            (tmp_path / "a.nii").write_bytes(raw)
            assert reason_of(tmp_path / "a.nii") == reason

    def test_pairs_and_single_files_are_distinguished(self, tmp_path):
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


def test_a_nifti_2_file_copied_in_text_mode_is_refused(tmp_path):
    path = craft(tmp_path / "a.nii", version=2)
    path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n\n", 1))
    with pytest.raises(InputRefused, match="text mode") as caught:
        io.read(path)
    assert caught.value.reason == "format"
