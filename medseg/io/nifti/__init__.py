"""NIfTI-1 and NIfTI-2: single files, and pairs of a header and a file of voxels."""

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
from medseg.io.formats import is_packed
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
# Allowed after the last voxel: padding, less than a slice.
_PADDING_BYTES = 4096


def read(path: Path, choices: ReadOptions = DEFAULT_OPTIONS) -> Volume:
    """The scan in a NIfTI file, intensities rescaled, world RAS+ mm.

    Gzipped files are recognised by content, not by name.

    Args:
        path: A single file, or either file of a pair, gzipped or not.
        choices: ``volume``, ``trust`` and ``nonfinite``.

    Raises:
        InputRefused: not NIfTI (``format``), damaged or truncated (``unreadable``), much more
            data than the header says (``excess``, ``bomb``), more than fits in memory
            (``too-large``), not 3D (``not-3d``), several volumes and none chosen
            (``several-channels``), no such volume (``no-volume``), no orientation or an
            unknown unit (``no-geometry``), two contradicting ones (``form-conflict``), an
            impossible one (``geometry``, ``sheared``), not one finite number per voxel
            (``pixel-type``, ``scaling``, ``range``, ``not-finite``).
    """
    with refusing(path, "NIfTI file"):
        header = header_of(path)
        return _volumes(path, header, (_chosen(header, choices.volume),), choices)[0]


def read_channels(path: Path, choices: ReadOptions = DEFAULT_OPTIONS, *, channels: int) -> tuple[Volume, ...]:
    """One volume per index of the 4th dimension, whose length must be ``channels``."""
    with refusing(path, "NIfTI file"):
        header = header_of(path)
        if len(header.dims) > 4 or header.volumes != channels:
            raise InputRefused(
                f"{_shape_text(header)}, but {channels} 3D channel(s) are expected",
                reason="several-channels",
                remedy="choose a model with that many channels, or pass one file per channel",
            )
        return _volumes(path, header, tuple(range(channels)), choices)


def read_vectors(path: Path) -> tuple[tuple[Voxels, Grid], int] | tuple[None, int]:
    """Three numbers per voxel, (X, Y, Z, 3), their grid, and the intent code; None instead of other contents.

    Vectors lie along the fifth axis, as the standard says, or along the fourth.

    Raises:
        InputRefused: as :func:`read`.
    """
    with refusing(path, "NIfTI file"):
        header = header_of(path)
        intent = int(header.fields["intent_code"])
        if header.dims[3:] not in ((3,), (1, 3)):
            return None, intent
        volumes = _volumes(path, header, (0, 1, 2), DEFAULT_OPTIONS)
        return (np.stack([each.array for each in volumes], axis=-1), volumes[0].grid), intent


def label_rounding(path: Path) -> float:
    """How far the labels in a file may be off whole numbers: see :func:`scale_rounding`."""
    return scale_rounding(float(header_of(path).fields["scl_slope"]))


def scale_rounding(slope: float) -> float:
    """Half of a scale factor: integers that were stored divided by it come back with at most this error.

    0.0 for factors of 1 or more, which merge neighbouring labels, and for unscaled files.
    """
    return abs(slope) / 2 if 0 < abs(slope) < 1 else 0.0


def write(image: Volume | Mask, path: Path) -> None:
    """Writes to ``path``, with the affine in float32 precision and unscaled voxels.

    The form codes and units of a NIfTI source are kept, so that masks overlay their scan in
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
        if not is_packed(path):
            nifti.to_stream(file)
            return
        # No file name and time in the header, so that the bytes depend on the image alone. Level
        # 1, because masks shrink a hundredfold at any level, and CT noise at none.
        with igzip.IGzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as stream:
            nifti.to_stream(stream)


def _chosen(header: Header, volume: int | None) -> int:
    """The index of the volume to read along the 4th dimension."""
    count = header.volumes
    if len(header.dims) > 4 or (count > 1 and volume is None):
        raise InputRefused(
            f"{_shape_text(header)}, not one 3D volume",
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


def _shape_text(header: Header) -> str:
    dims = " x ".join(map(str, header.dims))
    return f"{len(header.dims)}D data ({dims}) with {header.volumes} volume(s)"


def _volumes(path: Path, header: Header, wanted: tuple[int, ...], choices: ReadOptions) -> tuple[Volume, ...]:
    """The ``wanted`` volumes, in ascending order; the cheapest checks come first."""
    voxel_file = sibling(path, ".img") if header.pair else path
    with opened(voxel_file) as content:
        content.check_promise(header.end)
    grid, source = geometry(header, path, choices)
    slope, intercept = _scaling(float(header.fields["scl_slope"]), float(header.fields["scl_inter"]))
    stored = _stored(voxel_file, header, wanted)
    arrays = [rescaled(array, slope, intercept, nonfinite=choices.nonfinite, where=path) for array in stored]
    return tuple(Volume(array, grid, source) for array in arrays)


def _stored(path: Path, header: Header, wanted: tuple[int, ...]) -> list[Voxels]:
    """The stored numbers of each wanted volume; the rest of the file is only read to verify its CRC."""
    step = header.volume_bytes
    with opened(path) as content:
        # The stored numbers, and up to 4 bytes per voxel after rescaling.
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
        notify("trailing-bytes", f"ignored {excess} bytes after the last voxel", path=path)
    return arrays


def _scaling(slope: float, intercept: float) -> tuple[float, float]:
    """Fields scl_slope and scl_inter; a slope of 0 or NaN means unscaled.

    0 is standard (nifti1.h: "if scl_slope is nonzero"); nibabel and SPM write NaN instead.
    """
    if slope == 0 or math.isnan(slope):
        return 1.0, 0.0
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise InputRefused(
            f"intensities cannot be computed with scl_slope {slope:g} and scl_inter {intercept:g}",
            reason="scaling",
            remedy="correct the header: 1 and 0 for unscaled numbers",
        )
    return slope, intercept


def _set_geometry(nifti: Any, image: Volume | Mask) -> Any:
    """``nifti`` with both forms, their codes and the units set; returned for chaining."""
    source = image.source
    sform_code, qform_code = source.sform_code or 0, source.qform_code or 0
    if sform_code == qform_code == 0:
        sform_code = qform_code = 1  # scanner coordinates, as in DICOM and ITK
    nifti.set_sform(image.affine, sform_code)
    nifti.set_qform(image.affine, qform_code)
    # A qform is a quaternion and cannot hold shear; nibabel would store the nearest rotation,
    # which misplaces voxels. Such grids only get an sform.
    if not image.grid.same_as(Grid(image.grid.shape, nifti.get_qform())):
        nifti.set_qform(None, 0)
        nifti.set_sform(image.affine, sform_code or qform_code)
    units = _MM if source.xyzt_units is None else source.xyzt_units
    if units & LENGTH_BITS in (1, 3):
        units = (units & ~LENGTH_BITS) | _MM  # the reader has converted to mm
    nifti.header["xyzt_units"] = units
    return nifti
