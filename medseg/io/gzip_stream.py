"""Sequential reading of plain or gzipped files within limits."""

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
# Real scans pack at most 50 to 1, an empty mask 1000 to 1; nobody keeps an empty mask of this size.
_BOMB_RATIO = 900
_BOMB_BYTES = 1 << 30
_AT_ONCE = 1 << 20
# isal's stubs do not say that it is an exception.
_ISAL_ERROR = cast(type[Exception], igzip_lib.IsalError)
# zlib.decompressobj: 32 for a zlib or a gzip header, whichever there is.
_EITHER = 32 + zlib.MAX_WBITS


class Content:
    """An open file that is read once from beginning to end and unpacked on the way.

    Attributes:
        packed: Whether the file is gzipped, by its first bytes rather than its name.
        file_bytes: Size of the file on disk.
        position: Number of unpacked bytes read so far.
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
        """The next ``size`` bytes, or fewer at the end of the file."""
        out = bytearray()
        while len(out) < size and (piece := self._read(size - len(out))):
            out += piece
        return bytes(out)

    def skip(self, size: int) -> None:
        """Skips ``size`` bytes."""
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
        """Fills ``array``, which must be in Fortran order, with the next bytes."""
        view = memoryview(array.reshape(-1, order="F").view(np.uint8).data)
        while view:
            with _stream_errors():
                count: int = self._stream.readinto(view[: _AT_ONCE << 4])  # type: ignore[attr-defined]  # not in BinaryIO
            if not count:
                raise truncated(f"{len(view)} of {array.nbytes} bytes of voxels are missing")
            self.position += count
            view = view[count:]

    def finish(self, limit: int) -> int:
        """The number of bytes left, at most ``limit``; reading them verifies the CRC of a gzip stream.

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
                remedy="the header's dimensions are wrong, or data were appended: write the file again",
            )
        return excess

    def _read(self, size: int) -> bytes:
        with _stream_errors():
            piece = self._stream.read(size)
        self.position += len(piece)
        return piece


@contextmanager
def opened(path: Path) -> Iterator[Content]:
    """The open content of ``path``, for use within the block."""
    with path.open("rb") as file:
        yield Content(file, path.stat().st_size)


def check_promise(size: int, file_bytes: int, *, packed: bool) -> None:
    """Refuses a file that cannot hold ``size`` bytes, before anything is allocated or read.

    Raises:
        InputRefused: too short (``unreadable``), or packed so tightly that it can only be meant
            to exhaust memory (``bomb``).
    """
    most = file_bytes * (_LARGEST_RATIO if packed else 1)
    if size > most:
        raise truncated(
            f"its header promises {size} bytes, but its size is {file_bytes} bytes"
            + (" packed" if packed else f": {size - most} bytes are missing")
        )
    if packed and size > max(_BOMB_BYTES, file_bytes * _BOMB_RATIO):
        raise InputRefused(
            f"{file_bytes} bytes unpack to {size / (1 << 30):.3g} GiB: so large a file of"
            " a single value is a decompression bomb",
            reason="bomb",
            remedy="if you trust the file, unpack it with gunzip first",
        )


def unpacked_size(path: Path, offset: int, most: int) -> int:
    """The unpacked size of the zlib or gzip stream at ``offset``, whose checksum is verified.

    Args:
        path: The file.
        offset: Where the stream begins.
        most: Counting stops beyond this number of bytes.

    Raises:
        InputRefused: the stream is damaged or truncated (``unreadable``).
    """
    size = 0
    with path.open("rb") as file, _stream_errors():
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
                if data[:2] != GZIP:  # otherwise another member of the same stream
                    return size
                inflater = zlib.decompressobj(_EITHER)
    return size


def truncated(problem: str) -> InputRefused:
    """The refusal of a truncated file (``unreadable``)."""
    return InputRefused(
        f"the file is truncated: {problem}",
        reason="unreadable",
        remedy="copy or download it again; if its dimensions are wrong, correct its header",
    )


@contextmanager
def _stream_errors() -> Iterator[None]:
    """A block in which errors of gzip streams become refusals of the file."""
    try:
        yield
    except EOFError as error:
        raise truncated("its compressed data end too early") from error
    except (gzip.BadGzipFile, zlib.error, _ISAL_ERROR) as error:
        cause = str(error).removeprefix("Error -3 while decompressing data: ")  # zlib's Z_DATA_ERROR
        checksum = "CRC" in cause or cause == "incorrect data check"
        raise InputRefused(
            "the file is damaged: the checksum (CRC) of its compressed data does not fit them"
            if checksum
            else f"the file is damaged: its compressed data are corrupt ({cause})",
            reason="unreadable",
            remedy="copy or download it again",
        ) from error
