"""NIfTI-1 and NIfTI-2: .nii, .nii.gz and .hdr/.img pairs."""

from __future__ import annotations

import math
from math import prod
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from isal import igzip

from medseg.errors import InputRefused
from medseg.images.grid import Grid
from medseg.images.volume import Mask, Volume, Voxels
from medseg.io.error_context import refusing
from medseg.io.gzip_stream import opened
from medseg.io.nifti.header import Header, header_of, sibling
from medseg.io.nifti.orientation import LENGTH_BITS, geometry
from medseg.io.read_options import DEFAULT_OPTIONS, ReadOptions
from medseg.io.rescaling import rescaled
from medseg.system import memory_budget
from medseg.system.notices import notify

_MM = 2
# NIfTI-1 stores the shape as int16.
_NIFTI1_LONGEST = 32767
# What may follow the last voxel: padding, less than a slice.
_PADDING_BYTES = 4096


def read(path: Path, choices: ReadOptions = DEFAULT_OPTIONS) -> Volume:
    """The scan in a NIfTI file, intensities rescaled, world RAS+ mm.

    Whether gzip has packed the file is told by its content, not by its name.

    Args:
        path: .nii, .nii.gz, or either file of a .hdr/.img pair, packed or not.
        choices: ``volume``, ``trust`` and ``nonfinite``.

    Raises:
        InputRefused: not NIfTI (``format``), damaged or truncated (``unreadable``), much more
            data than the header says (``excess``, ``bomb``), more than fits in memory
            (``too-large``), not 3D (``not-3d``), several volumes and none chosen
            (``several-channels``), no such volume (``no-volume``), no orientation or an
            unknown unit (``no-geometry``), two contradicting ones (``form-conflict``), an
            impossible one (``geometry``, ``sheared``), not one finite number a voxel
            (``pixel-type``, ``scaling``, ``range``, ``not-finite``).
    """
    with refusing(path, "NIfTI file"):
        header = header_of(path)
        return _volumes(path, header, (_chosen(header, choices.volume),), choices)[0]


def read_channels(path: Path, choices: ReadOptions = DEFAULT_OPTIONS, *, channels: int) -> tuple[Volume, ...]:
    """One volume for each step along the 4th dimension, which must have ``channels`` steps."""
    with refusing(path, "NIfTI file"):
        header = header_of(path)
        if len(header.dims) > 4 or header.volumes != channels:
            raise InputRefused(
                f"{_told(header)} where {channels} 3D channel(s) are expected",
                reason="several-channels",
                remedy="choose a model with that many channels, or pass one file for each",
            )
        return _volumes(path, header, tuple(range(channels)), choices)


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
        with igzip.IGzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as stream:
            nifti.to_stream(stream)


def _chosen(header: Header, volume: int | None) -> int:
    """Which volume along the 4th dimension to read, from 0."""
    count = header.volumes
    if len(header.dims) > 4 or (count > 1 and volume is None):
        raise InputRefused(
            f"{_told(header)}, not one 3D volume",
            reason="several-channels",
            remedy=f"choose one with --volume N (1 to {count})"
            if len(header.dims) == 4
            else "export the one 3D volume to segment",
        )
    if volume is not None and not 1 <= volume <= count:
        raise InputRefused(
            f"no volume {volume}: the file has {count}",
            reason="no-volume",
            remedy=f"choose a number from 1 to {count}",
        )
    return 0 if volume is None else volume - 1


def _told(header: Header) -> str:
    dims = " x ".join(map(str, header.dims))
    return f"{len(header.dims)}D data ({dims}) with {header.volumes} volume(s)"


def _volumes(path: Path, header: Header, wanted: tuple[int, ...], choices: ReadOptions) -> tuple[Volume, ...]:
    """The ``wanted`` volumes, in ascending order: what costs least is checked first."""
    voxel_file = sibling(path, ".img") if header.pair else path
    with opened(voxel_file) as content:
        content.check_promise(header.end)
    grid, source = geometry(header, path, choices)
    slope, intercept = _scaling(float(header.fields["scl_slope"]), float(header.fields["scl_inter"]))
    stored = _stored(voxel_file, header, wanted)
    arrays = [rescaled(array, slope, intercept, nonfinite=choices.nonfinite, where=path) for array in stored]
    return tuple(Volume(array, grid, source) for array in arrays)


def _stored(path: Path, header: Header, wanted: tuple[int, ...]) -> list[Voxels]:
    """The stored numbers of each wanted volume; the rest of the file is read for its CRC only."""
    step = header.volume_bytes
    with opened(path) as content:
        # What is stored, and 4 bytes a voxel for what it may become.
        voxels = prod(header.shape) * len(wanted)
        what = f"{' x '.join(map(str, header.dims))} voxels"
        memory_budget.check(voxels * (header.dtype.itemsize + 4), what, where=path)
        arrays = []
        for index in wanted:
            content.skip(header.offset + index * step - content.position)
            arrays.append(np.empty(header.shape, header.dtype, order="F"))
            content.fill(arrays[-1])
        content.skip(header.end - content.position)
        slice_bytes = header.dims[0] * header.dims[1] * header.dtype.itemsize
        excess = content.finish(max(_PADDING_BYTES, slice_bytes - 1))
    if excess:
        notify("trailing-bytes", f"{excess} bytes after the last voxel are passed over", path=path)
    return arrays


def _scaling(slope: float, intercept: float) -> tuple[float, float]:
    """Fields scl_slope and scl_inter; a slope of 0 means unscaled, and so does NaN.

    0 is the standard's (nifti1.h: "if scl_slope is nonzero"), NaN is what nibabel and SPM write
    for the same.
    """
    if slope == 0 or math.isnan(slope):
        return 1.0, 0.0
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise InputRefused(
            f"intensities cannot be computed with scl_slope {slope:g} and scl_inter {intercept:g}",
            reason="scaling",
            remedy="correct the header: 1 and 0 where the numbers are stored as they are",
        )
    return slope, intercept


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
    if not image.grid.same_as(Grid(image.grid.shape, nifti.get_qform())):
        nifti.set_qform(None, 0)
        nifti.set_sform(image.affine, sform_code or qform_code)
    units = _MM if source.xyzt_units is None else source.xyzt_units
    if units & LENGTH_BITS in (1, 3):
        units = (units & ~LENGTH_BITS) | _MM  # the reader has converted to mm
    nifti.header["xyzt_units"] = units
    return nifti
