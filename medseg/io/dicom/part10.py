"""Reading DICOM files (PS3.10) with limits on size."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from medseg.errors import InputRefused
from medseg.io.dicom.signature import GZIP
from medseg.system import quiet_libraries

# A header alone: functional groups of 20,000 frames take about 30 MB.
_HEADER_BYTES = 64 << 20
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


def header(path: Path, tags: Sequence[str] | None) -> pydicom.Dataset:
    """The elements ``tags`` of the file (None for all) without pixels. May raise any error of pydicom."""
    with quiet(), path.open("rb") as file:
        return pydicom.dcmread(
            _plain(file, _HEADER_BYTES, path),
            stop_before_pixels=True,
            force=True,
            specific_tags=None if tags is None else list(tags),
        )


def whole(path: Path, limit: int) -> pydicom.Dataset:
    """The file's data set with pixels. May raise any error of pydicom.

    Args:
        path: The file.
        limit: The maximum unpacked size in bytes, if the whole file is compressed.

    Raises:
        InputRefused: the unpacked size exceeds the limit (``too-large``), or the pixels are
            missing (``unreadable``).
    """
    with quiet(), path.open("rb") as file:
        ds = pydicom.dcmread(_plain(file, limit, path, strict=True), force=True)
    if not any(name in ds for name in _PIXELS):
        # If a file ends within its last element, pydicom only warns and leaves it out.
        raise InputRefused(
            "no pixel data: the file is truncated",
            where=path,
            reason="unreadable",
            remedy="export the series again; this file was not copied whole",
        )
    return ds


def is_packed(path: Path) -> bool:
    """Whether the file is gzipped."""
    with path.open("rb") as file:
        return file.read(2) == GZIP


def _plain(file: BinaryIO, limit: int, path: Path, *, strict: bool = False) -> BinaryIO:
    """The part 10 file in ``file`` with gzip and deflate undone, at most ``limit`` bytes."""
    if file.read(2) == GZIP:
        file.seek(0)
        file = io.BytesIO(_bounded(gzip.GzipFile(fileobj=file), limit, path, strict))
    file.seek(0)
    if file.read(132)[128:] != b"DICM":
        file.seek(0)
        return file
    meta = FileMetaDataset(read_dataset(file, False, True, stop_when=lambda tag, *_: tag >> 16 != 2))
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        file.seek(0)
        return file
    # pydicom would inflate without a limit.
    body = _bounded(_Inflating(file), limit, path, strict)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    again = io.BytesIO()
    again.write(b"\0" * 128 + b"DICM")
    write_file_meta_info(again, meta, enforce_standard=False)
    again.write(body)
    again.seek(0)
    return again


class _Inflating:
    """A raw deflate stream, unpacked piece by piece."""

    def __init__(self, packed: BinaryIO) -> None:
        self._packed = packed
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)

    def read(self, size: int) -> bytes:
        while not self._inflater.eof:
            data = self._inflater.unconsumed_tail or self._packed.read(1 << 16)
            if not data:
                raise EOFError("the deflated data end too early")
            out = self._inflater.decompress(data, size)
            if out:
                return out
        return b""


def _bounded(stream: Any, limit: int, path: Path, strict: bool) -> bytes:
    """At most ``limit`` bytes; more are refused if ``strict``, otherwise ignored."""
    pieces: list[bytes] = []
    total = 0
    while total <= limit:
        piece = stream.read(min(1 << 20, limit + 1 - total))
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
        total += len(piece)
    if strict:
        raise InputRefused(
            f"the file unpacks to more than the {limit} bytes its header accounts for",
            where=path,
            reason="too-large",
            remedy="unpack it yourself and check what it is; a scan is not this large",
        )
    return b"".join(pieces)[:limit]


def quiet() -> AbstractContextManager[None]:
    """A block that suppresses pydicom's warnings and log records, which quote values of the file."""
    return quiet_libraries.quiet("pydicom")
