"""Recognition of DICOM files (PS3.10) by their first bytes; needs no pydicom, which takes long to import."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from medseg.io import formats

GZIP = b"\x1f\x8b"


def is_dicom(path: Path) -> bool:
    """Whether the file is DICOM by its first bytes, gzipped or not.

    Data sets without the preamble of part 10, as older systems store them, begin with group
    0002 or 0008; they are recognised unless the suffix is that of another image format.
    """
    head = beginning(path)
    if head[128:132] == b"DICM":
        return True
    if path.name.lower().endswith(formats.NOT_BARE_DICOM):
        return False
    return _is_bare(head)


def has_preamble(path: Path) -> bool:
    """Whether the file has the preamble of DICOM part 10."""
    return beginning(path)[128:132] == b"DICM"


def beginning(path: Path, size: int = 132) -> bytes:
    """The first bytes of the file, unpacked if it is gzipped; fewer if the file is shorter."""
    with path.open("rb") as file:
        head = file.read(size)
        if head[:2] != GZIP:
            return head
        file.seek(0)
        try:
            return gzip.GzipFile(fileobj=file).read(size)
        except (OSError, EOFError, zlib.error):
            return head


def _is_bare(head: bytes) -> bool:
    if head[:2] not in (b"\x02\x00", b"\x08\x00") or head[3:4] != b"\x00" or len(head) < 16:
        return False
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    return explicit or int.from_bytes(head[4:8], "little") <= 1024
