"""A file's bytes, unpacked when gzip has packed them, in order and never more than asked for."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from isal import igzip, igzip_lib

from medseg.errors import InputRefused
from medseg.images.volume import Voxels

GZIP = b"\x1f\x8b"
# zlib's own bound on how much deflate can shrink data (zlib.net/zlib_tech.html).
_LARGEST_RATIO = 1032
# Air and noise of real scans pack at most 50 to 1, an empty mask 1000 to 1; nobody keeps an
# empty mask of this size.
_BOMB_RATIO = 900
_BOMB_BYTES = 1 << 30
_AT_ONCE = 1 << 20
# isal's stubs do not say that it is an exception.
_ISAL_ERROR = cast(type[Exception], igzip_lib.IsalError)
# zlib.decompressobj: 32 for a zlib or a gzip header, whichever there is.
_EITHER = 32 + zlib.MAX_WBITS


class Content:
    """An opened file to be read once from beginning to end, unpacked on the way.

    Attributes:
        packed: Whether gzip has packed the file; told by its first bytes, not by its name.
        file_bytes: The file's own size.
        position: How many bytes, unpacked, have been read.
    """

    def __init__(self, file: BinaryIO, file_bytes: int) -> None:
        self.packed = file.read(2) == GZIP
        file.seek(0)
        self._stream = cast(BinaryIO, igzip.IGzipFile(fileobj=file)) if self.packed else file
        self.file_bytes = file_bytes
        self.position = 0

    def check_promise(self, size: int) -> None:
        """:func:`check_promise` for this file."""
        check_promise(size, self.file_bytes, packed=self.packed)

    def beginning(self, size: int) -> bytes:
        """The next ``size`` bytes, fewer where the file ends."""
        out = bytearray()
        while len(out) < size and (piece := self._read(size - len(out))):
            out += piece
        return bytes(out)

    def skip(self, size: int) -> None:
        """Passes over ``size`` bytes."""
        if not self.packed:
            self._stream.seek(size, 1)
            self.position += size
            return
        while size > 0:
            piece = self._read(min(size, _AT_ONCE))
            if not piece:
                raise truncated(f"the file ends {size} bytes before its voxels")
            size -= len(piece)

    def fill(self, array: Voxels) -> None:
        """Reads as many bytes as ``array`` has into it; its axes in Fortran order."""
        view = memoryview(array.reshape(-1, order="F").view(np.uint8).data)
        while view:
            with _told():
                count: int = self._stream.readinto(view[: _AT_ONCE << 4])  # type: ignore[attr-defined]  # not in BinaryIO
            if not count:
                raise truncated(f"{len(view)} of {array.nbytes} bytes of voxels are missing")
            self.position += count
            view = view[count:]

    def finish(self, limit: int) -> int:
        """How many bytes follow, at most ``limit``; reading them checks the CRC of a gzip stream.

        Raises:
            InputRefused: more follow (``excess``), or the stream is damaged (``unreadable``).
        """
        excess = 0
        if not self.packed:
            excess = max(0, self.file_bytes - self.position)
        while self.packed and excess <= limit and (piece := self._read(_AT_ONCE)):
            excess += len(piece)
        if excess > limit:
            raise InputRefused(
                f"{'more than ' if self.packed else ''}{min(excess, limit + 1) if self.packed else excess}"
                " bytes follow the last voxel that the header accounts for",
                reason="excess",
                remedy="the header's dimensions are wrong, or something was appended: write the file anew",
            )
        return excess

    def _read(self, size: int) -> bytes:
        with _told():
            piece = self._stream.read(size)
        self.position += len(piece)
        return piece


@contextmanager
def opened(path: Path) -> Iterator[Content]:
    """The content of ``path``, to be read within the block."""
    with path.open("rb") as file:
        yield Content(file, path.stat().st_size)


def check_promise(size: int, file_bytes: int, *, packed: bool) -> None:
    """Refuses a file that cannot hold ``size`` bytes, before they are allocated or read.

    Raises:
        InputRefused: it is too short (``unreadable``), or holds so much emptiness that it can
            only be meant to exhaust memory (``bomb``).
    """
    most = file_bytes * (_LARGEST_RATIO if packed else 1)
    if size > most:
        raise truncated(
            f"its header promises {size} bytes, but its size is {file_bytes} bytes"
            + (" packed" if packed else f": {size - most} bytes are missing")
        )
    if packed and size > max(_BOMB_BYTES, file_bytes * _BOMB_RATIO):
        raise InputRefused(
            f"{file_bytes} bytes unpack to {size / (1 << 30):.3g} GiB: that large a scan of"
            " nothing but one value is a decompression bomb",
            reason="bomb",
            remedy="if you trust the file, unpack it with gunzip first",
        )


def unpacked_size(path: Path, offset: int, most: int) -> int:
    """How many bytes the zlib or gzip stream at ``offset`` unpacks to, its checksum verified.

    Args:
        path: The file.
        offset: Where the stream begins.
        most: Counting ends beyond this number.

    Raises:
        InputRefused: the stream is damaged or ends too early (``unreadable``).
    """
    size = 0
    with path.open("rb") as file, _told():
        file.seek(offset)
        data, inflater = b"", zlib.decompressobj(_EITHER)
        while size <= most:
            data = data or file.read(_AT_ONCE)
            if not data:
                raise EOFError
            size += len(inflater.decompress(data, _AT_ONCE << 4))
            data = inflater.unconsumed_tail
            if inflater.eof:
                data = inflater.unused_data or file.read(_AT_ONCE)
                if data[:2] != GZIP:  # else another member of the same stream
                    return size
                inflater = zlib.decompressobj(_EITHER)
    return size


def truncated(problem: str) -> InputRefused:
    """The refusal of a file that ends too early (``unreadable``)."""
    return InputRefused(
        f"the file is truncated: {problem}",
        reason="unreadable",
        remedy="copy or download it again; if its dimensions are wrong, correct its header",
    )


@contextmanager
def _told() -> Iterator[None]:
    """Says what is wrong with a gzip stream in terms of the file."""
    try:
        yield
    except EOFError as error:
        raise truncated("its compressed data end too early") from error
    except (gzip.BadGzipFile, zlib.error, _ISAL_ERROR) as error:
        told = str(error).removeprefix("Error -3 while decompressing data: ")  # zlib's Z_DATA_ERROR
        checksum = "CRC" in told or told == "incorrect data check"
        raise InputRefused(
            "the file is damaged: the checksum (CRC) of its compressed data does not fit them"
            if checksum
            else f"the file is damaged: its compressed data are corrupt ({told})",
            reason="unreadable",
            remedy="copy or download it again",
        ) from error
