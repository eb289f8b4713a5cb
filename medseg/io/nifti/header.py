"""NIfTI headers: versions 1 and 2, either byte order, gzipped or not, single files and pairs.

Fields follow the standard's layout (nifti1.h, nifti2.h) as described by nibabel, but without
nibabel's checks, which silently repair some values. Text fields (descrip, aux_file, db_name,
intent_name) are never read: they may name the patient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np

from medseg.errors import InputRefused
from medseg.io import unsupported_formats
from medseg.io.gzip_stream import Content, opened, truncated

# Extensions are text; a larger offset of the voxels is garbage.
_LONGEST_EXTENSION = 256 << 20
_DTYPES = {
    **{2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1"},
    **{512: "u2", 768: "u4", 1024: "i8", 1280: "u8"},
}
_NOT_NUMBERS = {
    **{1: "single bits", 32: "complex", 128: "RGB", 1536: "128-bit floats"},
    **{1792: "complex", 2048: "complex", 2304: "RGBA"},
}


@dataclass(frozen=True)
class Header:
    """A header, validated as far as possible without the voxels.

    Attributes:
        fields: The header's fields in nibabel's layout.
        dims: Lengths of all axes, at least three; trailing axes of length 1 are dropped.
        dtype: dtype of the stored voxels, in the file's byte order.
        offset: Offset of the first voxel in its file.
        size: Size of the header in bytes.
        pair: Whether the voxels are in a separate .img file.
    """

    fields: Any
    dims: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    size: int
    pair: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along the first three axes."""
        return self.dims[0], self.dims[1], self.dims[2]

    @property
    def volumes(self) -> int:
        """Number of 3D volumes."""
        return prod(self.dims[3:])

    @property
    def volume_bytes(self) -> int:
        """Stored size of one volume."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def end(self) -> int:
        """Minimum size of the file with the voxels."""
        return self.offset + self.volumes * self.volume_bytes


def header_of(path: Path) -> Header:
    """The header of the file or pair, NIfTI-1 or -2 of either byte order.

    Raises:
        InputRefused: see :func:`medseg.io.nifti.read`.
    """
    pair = _is_pair(path)
    with opened(sibling(path, ".hdr") if pair else path) as content:
        return _parsed(content.beginning(540), pair, content)


def sibling(path: Path, suffix: str) -> Path:
    """The file of a pair with ``suffix`` (.hdr or .img), gzipped or not, in upper or lower case."""
    packed = path.name.lower().endswith(".gz")
    stem = path.name[:-3] if packed else path.name
    own, stem = stem[-4:], stem[:-4]
    if own.lower() == suffix:
        return path
    gz = path.name[-3:] if packed else ".gz"
    cased = suffix.upper() if own.isupper() else suffix
    other = suffix if own.isupper() else suffix.upper()
    endings = [cased + gz, cased] if packed else [cased, cased + gz]
    for ending in (*endings, other, other + ".GZ", other + ".gz"):
        if (found := path.with_name(stem + ending)).is_file():
            return found
    raise InputRefused(
        f"a .hdr/.img pair without its {cased} file: {stem}{cased} is missing",
        reason="not-found",
        remedy=f"put {stem}{cased} beside it",
    )


def _is_pair(path: Path) -> bool:
    return path.name.lower().removesuffix(".gz").endswith((".hdr", ".img"))


def _parsed(raw: bytes, pair: bool, content: Content) -> Header:
    """The header in ``raw``; its first field, the header's size, determines version and byte order."""
    sizes = {order: int.from_bytes(raw[:4], order) for order in ("little", "big")}
    order = next((o for o, size in sizes.items() if size in (348, 540)), None)
    if order is None or len(raw) < sizes[order]:
        if order is not None or (content.packed and len(raw) < 4):
            raise truncated(f"it ends within its header, after {len(raw)} bytes")
        seems = unsupported_formats.name_of(raw)
        raise InputRefused(
            "not in NIfTI format: the header size is neither 348 nor 540"
            + (f"; it seems to be {seems}" if seems else ""),
            reason="format",
            remedy="check what kind of file it is; the suffix alone does not make it NIfTI",
        )
    size = sizes[order]
    module = nibabel.nifti1 if size == 348 else nibabel.nifti2
    endian: Literal["<", ">"] = "<" if order == "little" else ">"
    fields = np.frombuffer(raw[:size], module.header_dtype.newbyteorder(endian))[0]
    _check_magic(fields["magic"].item(), size, pair)
    if size != 348 and fields["eol_check"].tobytes() != b"\r\n\x1a\n":
        raise InputRefused(
            "the signature of the NIfTI-2 format is damaged, as by a copy in text mode; voxels may be too",
            reason="format",
            remedy="copy or download it again, in binary mode",
        )
    dtype = _dtype(int(fields["datatype"]), int(fields["bitpix"])).newbyteorder(endian)
    offset = _offset(float(fields["vox_offset"]), size, pair)
    return Header(fields, _dims(fields["dim"].tolist()), dtype, offset, size, pair)


def _check_magic(magic: bytes, size: int, pair: bool) -> None:
    """Field magic: whether this is a single file or a pair (nifti1.h, nifti2.h)."""
    single, separate = (b"n+1", b"ni1") if size == 348 else (b"n+2", b"ni2")
    if magic[:3] == (separate if pair else single):
        return
    if magic[:3] in (single, separate):
        raise InputRefused(
            "the header says the voxels are "
            + ("in the same file, but its name in another" if pair else "in an .img file beside it"),
            reason="format",
            remedy=f"rename the file to {'.nii' if pair else '.hdr, beside its .img'}",
        )
    # Analyze 7.5 is NIfTI-1 without the magic (nifti1.h): same size, same suffixes.
    if size == 348 and magic[:1] not in (b"n", b"N"):
        raise InputRefused(
            "an Analyze 7.5 header, or a damaged one, without the signature of the NIfTI format: it does not"
            " define left and right",
            reason="no-geometry",
            remedy="convert the scan to NIfTI with the tool that made it",
        )
    raise InputRefused(
        "the header does not have the signature of the NIfTI format: damaged, or another kind of file",
        reason="format",
        remedy="copy or download it again",
    )


def _dims(dim: list[int]) -> tuple[int, ...]:
    """Field dim: the number of axes, then the length of each."""
    axes = dim[0]
    dims = dim[1 : axes + 1]
    if not 1 <= axes <= 7 or min(dims) < 1:
        raise InputRefused(
            f"the dimensions are invalid: dim = {dim}",
            reason="unreadable",
            remedy="the header is damaged: export or download the file again",
        )
    if axes < 3:
        raise InputRefused(
            f"{axes}D data of size {' x '.join(map(str, dims))}, not a 3D volume: a dimension is missing",
            reason="not-3d",
            remedy="pass the whole scan; a single slice needs dim[0] = 3 and a slice thickness",
        )
    while len(dims) > 3 and dims[-1] == 1:
        dims.pop()
    return tuple(dims)


def _dtype(code: int, bits: int) -> np.dtype[Any]:
    """Fields datatype and bitpix."""
    if code in _NOT_NUMBERS:
        raise InputRefused(
            f"the voxels are {_NOT_NUMBERS[code]} (datatype {code}), not one number each",
            reason="pixel-type",
            remedy="convert the scan to one grey value per voxel",
        )
    if code not in _DTYPES or bits not in (0, 8 * np.dtype(_DTYPES[code]).itemsize):
        raise InputRefused(
            f"the datatype {code} with {bits} bits per voxel is invalid",
            reason="unreadable",
            remedy="the header is damaged: export or download the file again",
        )
    return np.dtype(_DTYPES[code])


def _offset(stored: float, size: int, pair: bool) -> int:
    """Field vox_offset: after header and extension flag in a single file, at least 0 in an .img file.

    Broken writers leave 0 in single files, for which readers start at different offsets
    (nifti1_io.c at 348, nibabel at 0), so it is refused like any other offset in the header.
    """
    least = 0 if pair else size + 4
    if not (math.isfinite(stored) and least <= stored <= _LONGEST_EXTENSION and stored.is_integer()):
        raise InputRefused(
            f"the voxels cannot begin at vox_offset {stored:g}; the minimum is {least}",
            reason="unreadable",
            remedy="the header is damaged: export or download the file again",
        )
    return int(stored)
