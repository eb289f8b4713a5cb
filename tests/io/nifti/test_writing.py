import nibabel
import numpy as np
import pytest
from support.nifti_files import AFFINE, NUMBERS, save

from medseg import io
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.volume import Mask, Volume


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
