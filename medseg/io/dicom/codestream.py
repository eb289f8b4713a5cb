"""Checks that the image size inside compressed frames agrees with the header."""

from __future__ import annotations

from typing import Any

from pydicom.encaps import generate_frames
from pydicom.uid import RLELossless

# ISO 15444-1 A.5.1: the SIZ marker follows SOC at once; a JP2 file has boxes before them.
_SIZ = b"\xff\x4f\xff\x51"
_JPEG = b"\xff\xd8"
# ISO 10918-1 table B.1, ISO 14495-1 C.2.2: start of frame; DHT, JPG and DAC lie between them.
_SOF = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC} | {0xF7}


def check(ds: Any, rows: int, columns: int, frames: int) -> None:
    """Raises ValueError unless the compressed data are ``frames`` grey images of this size.

    Decoders follow the size inside the data, and their output would be cut or wrapped to the
    size in the header: a scrambled slice that looks like a scan.

    Args:
        ds: A data set with encapsulated PixelData.
        rows: Rows of the header.
        columns: Columns of the header.
        frames: NumberOfFrames of the header.
    """
    offsets = ds.get("ExtendedOffsetTable"), ds.get("ExtendedOffsetTableLengths")
    extended = None if None in offsets else offsets
    streams = list(generate_frames(ds.PixelData, number_of_frames=frames, extended_offsets=extended))
    if len(streams) != frames:
        raise ValueError(f"{len(streams)} compressed frame(s) where the header promises {frames}: truncated")
    syntax = ds.file_meta.TransferSyntaxUID
    for stream in streams:
        if syntax == RLELossless:
            _check_rle(stream, rows * columns, int(ds.BitsAllocated) // 8)
            continue
        found = size(stream)
        if found is not None and found != (rows, columns, 1):
            raise ValueError(
                f"the compressed data hold {found[1]} x {found[0]} pixels of {found[2]} component(s), "
                f"the header says {columns} x {rows} of one"
            )


def size(stream: bytes) -> tuple[int, int, int] | None:
    """(rows, columns, components) of JPEG, JPEG-LS or JPEG 2000 data; None for anything else.

    Raises:
        ValueError: the data end before their size is given.
    """
    start = stream[: 1 << 16].find(_SIZ)
    if start >= 0:
        siz = stream[start + 4 : start + 42]
        x, y, x0, y0 = (int.from_bytes(siz[4 + 4 * k : 8 + 4 * k], "big") for k in range(4))
        return y - y0, x - x0, int.from_bytes(siz[36:38], "big")
    if stream[:2] != _JPEG:
        return None
    at = 2
    while at + 9 <= len(stream):
        if stream[at] != 0xFF:
            break
        marker = stream[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _SOF:
            rows, columns = (int.from_bytes(stream[at + k : at + k + 2], "big") for k in (5, 7))
            return rows, columns, stream[at + 9] if at + 9 < len(stream) else 0
        elif marker == 0x01 or 0xD0 <= marker <= 0xD7:  # no length follows
            at += 2
        else:
            at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    raise ValueError("the compressed data are damaged: no start of frame")


def _check_rle(stream: bytes, pixels: int, planes: int) -> None:
    """PS3.5 annex G: a header of 16 numbers, then one run-length segment for each byte of a pixel."""
    header = [int.from_bytes(stream[k : k + 4], "little") for k in range(0, 64, 4)]
    if len(stream) < 64 or header[0] != planes:
        raise ValueError(f"{header[0]} run-length segments where {planes} are expected: damaged")
    ends = [*header[2 : planes + 1], len(stream)]
    for start, end in zip(header[1 : planes + 1], ends, strict=True):
        found, at = 0, start
        while at < end and found < pixels:
            control = stream[at]
            if control < 128:
                found, at = found + control + 1, at + control + 2
            elif control > 128:
                found, at = found + 257 - control, at + 2
            else:
                at += 1
        # A segment has even length: one byte may follow, and a run-length "no operation".
        if found != pixels or at > end or any(stream[at + 2 : end]):
            raise ValueError(f"a run-length segment does not hold {pixels} pixels: truncated or damaged")
