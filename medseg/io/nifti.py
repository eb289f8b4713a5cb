"""NIfTI-1 and NIfTI-2: .nii, .nii.gz and .hdr/.img pairs, through nibabel.

The header is nibabel's; the voxels are taken from the bytes directly, because nibabel never
checks the CRC of a gzip stream and would return a damaged scan without a word.
"""

from __future__ import annotations

import gzip
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from medseg.errors import InputRefused
from medseg.grid import Grid
from medseg.io.choices import NO_CHOICES, Choices
from medseg.io.intensity import rescaled
from medseg.io.refusal import refusing
from medseg.volume import Mask, Source, Volume, Voxels

# NIfTI-1 standard, field xyzt_units: the lower three bits are the unit of length.
_LENGTH_BITS = 0x07
_MM = 2
_TO_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
# A tenth of a millimetre is below any voxel we segment and above float32 rounding.
_FORM_TOLERANCE_MM = 0.1
# NIfTI-1 stores the shape as int16.
_NIFTI1_LONGEST = 32767


def read(path: Path, choices: Choices = NO_CHOICES) -> Volume:
    """The scan in a NIfTI file, intensities rescaled, world RAS+ mm.

    Args:
        path: .nii, .nii.gz, or either file of a .hdr/.img pair.
        choices: ``volume``, ``trust`` and ``nonfinite``.

    Raises:
        InputRefused: damaged (``unreadable``), more than one channel (``several-channels``),
            no orientation (``no-geometry``), two contradicting ones (``form-conflict``),
            not one finite number a voxel (``pixel-type``, ``not-finite``).
    """
    return read_channels(path, choices, channels=1)[0]


def read_channels(path: Path, choices: Choices = NO_CHOICES, *, channels: int) -> tuple[Volume, ...]:
    """One volume for each step along the 4th dimension, which must have ``channels`` steps."""
    with refusing(path, "NIfTI file"):
        header, voxels = _load(path)
        stored = _four_dimensional(voxels, channels)
        grid, source = _geometry(header, stored.shape[:3], path)
        slope, intercept = header.get_slope_inter()  # None where the standard says "no scaling"
        scale = (1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept))
        return tuple(Volume(rescaled(stored[..., c], *scale), grid, source) for c in range(channels))


def write(image: Volume | Mask, path: Path) -> None:
    """Writes to ``path``; the affine is exact to float32, the voxels are stored unscaled.

    The form codes and units of a NIfTI source are kept, so that a mask overlays its scan in
    viewers that compare codes. Equal images give equal bytes.
    """
    array = image.array
    if array.dtype in (np.dtype(bool), np.dtype(np.float16)):  # not in the standard
        array = array.astype(np.uint8 if array.dtype == np.dtype(bool) else np.float32)
    name = path.name.lower()
    long = max(array.shape) > _NIFTI1_LONGEST
    if name.endswith((".hdr", ".img")):
        kind = nibabel.Nifti2Pair if long else nibabel.Nifti1Pair
        _set_geometry(kind(array, image.affine, dtype=array.dtype), image).to_filename(path)
        return
    kind = nibabel.Nifti2Image if long else nibabel.Nifti1Image
    nifti = _set_geometry(kind(array, image.affine, dtype=array.dtype), image)
    with path.open("wb") as file:
        if not name.endswith(".gz"):
            nifti.to_stream(file)
            return
        # No file name and no time in the header: the bytes depend on the image alone. Level 1,
        # because masks shrink a hundredfold at any level and CT noise at none.
        with gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as stream:
            nifti.to_stream(stream)


def _load(path: Path) -> tuple[Any, Voxels]:
    """The header, and the voxels as stored: a read-only view of the file's bytes."""
    pair = path.name.lower().endswith((".hdr", ".img"))
    raw = _content(_sibling(path, ".hdr") if pair else path)
    header = _header(raw, pair)
    data = _content(_sibling(path, ".img")) if pair else raw
    shape, dtype = header.get_data_shape(), header.get_data_dtype()
    offset, count = int(header.get_data_offset()), prod(int(n) for n in shape)
    missing = offset + count * dtype.itemsize - len(data)
    if not shape or min(shape) < 1 or missing > 0:
        short = f", {missing} bytes are missing" if missing > 0 else ""
        raise InputRefused(
            f"the header promises {' x '.join(map(str, shape)) or 'no'} voxels{short}",
            reason="unreadable",
            remedy="the file is truncated: copy or download it again",
        )
    voxels = np.frombuffer(data, dtype, count, offset).reshape(shape, order="F")
    return header, np.require(voxels, requirements="A")


def _header(raw: bytes, pair: bool) -> Any:
    """The header, NIfTI-1 or -2 of either byte order, told apart by its size field."""
    sizes = {int.from_bytes(raw[:4], "little"), int.from_bytes(raw[:4], "big")}
    # Analyze 7.5 is NIfTI-1 without the magic (nifti1.h): same size, same suffixes.
    if 348 in sizes and raw[344:347] not in (b"n+1", b"ni1"):
        raise InputRefused(
            "an Analyze 7.5 header, which does not say where left and right are",
            reason="no-geometry",
            remedy="convert the scan to NIfTI with the tool that made it",
        )
    kind: Any
    if 348 in sizes:
        kind = nibabel.nifti1.Nifti1PairHeader if pair else nibabel.Nifti1Header
    elif 540 in sizes:
        kind = nibabel.nifti2.Nifti2PairHeader if pair else nibabel.Nifti2Header
    else:
        raise InputRefused(
            "not a NIfTI file: its header size is neither 348 nor 540",
            reason="format",
            remedy="check what the file is; a suffix alone does not make it NIfTI",
        )
    return kind.from_fileobj(BytesIO(raw))


def _content(path: Path) -> bytes:
    """All bytes of the file, unpacked when its name ends in .gz. The CRC is checked."""
    raw = path.read_bytes()
    return gzip.decompress(raw) if path.name.lower().endswith(".gz") else raw


def _sibling(path: Path, suffix: str) -> Path:
    """The other file of a pair, whose suffix has the same case."""
    wanted = suffix.upper() if path.suffix.isupper() else suffix
    sibling = path.with_suffix(wanted)
    if not sibling.is_file():
        raise InputRefused(
            f"a .hdr/.img pair without its {wanted} file",
            reason="not-found",
            remedy=f"put {sibling.name} beside it",
        )
    return sibling


def _four_dimensional(voxels: Voxels, channels: int) -> Voxels:
    """(X, Y, Z, ``channels``): trailing axes of length 1 dropped, missing ones added."""
    shape = list(voxels.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    shape += [1] * (4 - len(shape))
    if len(shape) > 4 or shape[3] != channels:
        raise InputRefused(
            f"{voxels.ndim}D data of shape {voxels.shape} where {channels} 3D channel(s) are expected",
            reason="several-channels",
            remedy="choose one volume of it, or a model with that many channels",
        )
    return voxels.reshape(shape, order="F")


def _geometry(header: Any, shape: tuple[int, ...], path: Path) -> tuple[Grid, Source]:
    """The grid from sform or qform, whichever is set; both must agree when both are set."""
    units = int(header["xyzt_units"])
    sform_code, qform_code = int(header["sform_code"]), int(header["qform_code"])
    length = _TO_MM.get(units & _LENGTH_BITS)
    if length is None:
        raise InputRefused(f"unknown unit of length {units & _LENGTH_BITS}", reason="no-geometry")
    x, y, z = shape
    scale = np.diag([length, length, length, 1.0])
    forms = []
    if sform_code > 0:
        forms.append(Grid((x, y, z), scale @ header.get_sform()))
    if qform_code > 0:
        forms.append(Grid((x, y, z), scale @ header.get_qform()))
    if not forms:
        raise InputRefused(
            "neither sform nor qform is set, so left and right are unknown",
            reason="no-geometry",
            remedy="set the orientation with the tool that made the file",
        )
    apart = forms[0].distance_mm(forms[-1])
    if apart > _FORM_TOLERANCE_MM:
        told = " and ".join(
            f"{name} {form} from {np.round(form.affine[:3, 3], 2).tolist()}"
            for name, form in zip(("sform", "qform"), forms, strict=True)
        )
        raise InputRefused(
            f"{told} place voxels {apart:.4g} mm apart",
            reason="form-conflict",
            remedy="keep the right one: set the other to it, or its code to 0",
        )
    source = Source(path, "nifti", None, sform_code, qform_code, units)
    return forms[0], source


def _set_geometry(nifti: Any, image: Volume | Mask) -> Any:
    """``nifti`` with both forms, their codes and the units set; returned for chaining."""
    source = image.source
    sform_code, qform_code = source.sform_code or 0, source.qform_code or 0
    if sform_code == qform_code == 0:
        sform_code = qform_code = 1  # scanner: what DICOM and ITK coordinates are
    nifti.set_sform(image.affine, sform_code)
    nifti.set_qform(image.affine, qform_code)
    # A qform is a quaternion and cannot hold shear; nibabel then stores the nearest rotation,
    # which is a wrong position. Such a grid gets an sform alone.
    if image.grid.distance_mm(Grid(image.grid.shape, nifti.get_qform())) > 0.01:
        nifti.set_qform(None, 0)
        nifti.set_sform(image.affine, sform_code or qform_code)
    units = _MM if source.xyzt_units is None else source.xyzt_units
    if units & _LENGTH_BITS in (1, 3):
        units = (units & ~_LENGTH_BITS) | _MM  # the reader has converted to mm
    nifti.header["xyzt_units"] = units
    return nifti
