"""NIfTI files for tests: by nibabel, and byte by byte."""

import struct
import warnings

import nibabel
import numpy as np
import pytest

from medseg import io
from medseg.errors import InputRefused

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
