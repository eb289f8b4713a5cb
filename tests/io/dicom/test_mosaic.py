"""A Siemens mosaic: three slices in 2 x 2 tiles, with a CSA header made by hand."""

import struct

import numpy as np
import pydicom
import pytest
from support.series import edit, put, refusal

from medseg import io
from medseg.images.grid import Grid
from medseg.images.volume import Volume

TILES = (np.arange(2 * 3 * 3, dtype=np.int16) * 11).reshape(2, 3, 3)  # (columns, rows, slices)


def csa(**tags: list[str]) -> bytes:
    """The private header: 'SV10', then each tag with its items (nibabel.nicom.csareader)."""
    out = b"SV10\4\3\2\1" + struct.pack("<2I", len(tags), 77)
    for name, values in tags.items():
        out += struct.pack("<64si4s3i", name.encode(), len(values), b"FD", 0, len(values), 77)
        for value in values:
            text = value.encode() + b"\0"
            out += struct.pack("<4i", 0, len(text), 77, 0) + text + b"\0" * (-len(text) % 4)
    return out


@pytest.fixture
def mosaic(tmp_path):
    image = np.zeros((4, 6), np.int16)  # (columns, rows)
    image[:2, :3], image[2:, :3], image[:2, 3:] = (TILES[:, :, k] for k in range(3))
    grid = Grid.from_spacing((4, 6, 1), (1.5, 2.0, 4.0), direction=np.diag([-1.0, -1.0, 1.0]))
    folder = io.write_dicom_series(Volume(image[:, :, None], grid), tmp_path / "mosaic", modality="MR")

    def change(ds, _):
        ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
        block = ds.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
        normal = ["0.0", "0.0", "1.0"]
        header = csa(NumberOfImagesInMosaic=["3"], SliceNormalVector=normal, B_matrix=[])
        block.add_new(0x10, "OB", header)

    edit(folder, change)
    return folder


def test_tiles_become_slices_where_the_scanner_meant_them(mosaic):
    volume = io.read(mosaic)
    assert np.array_equal(volume.array, TILES)
    # ImagePositionPatient (0, 0, 0) is the corner of a mosaic-sized image about the same centre:
    # (4 - 2) / 2 columns of 1.5 mm and (6 - 3) / 2 rows of 2 mm before the tile's own corner.
    assert volume.grid.world((0, 0, 0)) == pytest.approx((-1.5, -3.0, 0.0))
    assert volume.grid.spacing_mm == pytest.approx((1.5, 2.0, 4.0))
    assert volume.grid.axcodes == "LPS"


def test_mosaics_of_several_time_points_need_a_choice(mosaic):
    path = next(mosaic.iterdir())
    edit(mosaic, put(AcquisitionNumber=1))
    ds = pydicom.dcmread(path)
    ds.AcquisitionNumber, ds.PixelData = 2, (ds.pixel_array + 1).tobytes()
    ds.save_as(mosaic / "later.dcm")
    assert refusal(mosaic).reason == "several-volumes"
    assert io.read(mosaic, volume=2).array[0, 0, 0] == 1


@pytest.mark.parametrize("header", [b"", b"SV10\4\3\2\1\1\0\0\0", csa(NumberOfImagesInMosaic=["9"])])
def test_a_mosaic_that_cannot_be_cut_is_refused(mosaic, header):
    def change(ds, _):
        ds[0x0029, 0x1010].value = header

    edit(mosaic, change)
    assert refusal(mosaic).reason == "mosaic"
