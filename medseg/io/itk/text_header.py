"""Text headers of NRRD and MetaImage files, and the location of their voxels."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from pathlib import Path, PurePosixPath, PureWindowsPath

from medseg.errors import InputRefused
from medseg.io import path_checks, unsupported_formats

# Diffusion scans list thousands of gradients; no header is longer.
_LONGEST = 4 << 20
_MOST_FILES = 10_000
# http://teem.sourceforge.net/nrrd/format.html, section "Basic Field Specifications".
_NRRD_BYTES = {
    **dict.fromkeys(("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t"), 1),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), 2),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), 2),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32"), 4),
    **dict.fromkeys(("uint32_t", "float"), 4),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long"), 8),
    **dict.fromkeys(("signed long long int", "int64", "int64_t", "ulonglong", "unsigned long long"), 8),
    **dict.fromkeys(("unsigned long long int", "uint64", "uint64_t", "double"), 8),
}
# MetaIO, metaTypes.h: MET_LONG has 4 bytes whatever the machine.
_META_BYTES = {
    **{"MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4},
    **{"MET_LONG": 4, "MET_ULONG": 4, "MET_LONG_LONG": 8, "MET_ULONG_LONG": 8},
    **{"MET_FLOAT": 4, "MET_DOUBLE": 8},
}


@dataclass(frozen=True)
class TextHeader:
    """A parsed header; the numbers of its geometry are not checked yet.

    Attributes:
        fields: The fields by name; NRRD's names in lower case.
        sizes: Voxels along each axis, the fastest first.
        voxel_bytes: Bytes per number.
        channels: Numbers per voxel.
        coding: ``raw``, ``packed`` (zlib or gzip), or ``text``.
        files: The files with the voxels; the header's own file if they follow it.
        offset: Where voxels begin in each file; None if that is counted from the end.
        single_axes: The number of further axes of length 1, which ``sizes`` leaves out.
    """

    fields: dict[str, str]
    sizes: tuple[int, ...]
    voxel_bytes: int
    channels: int
    coding: str
    files: tuple[Path, ...]
    offset: int | None
    single_axes: int = 0

    @property
    def data_bytes(self) -> int:
        """Bytes of all voxels, unpacked."""
        return prod(self.sizes) * self.voxel_bytes * self.channels


def nrrd(path: Path) -> TextHeader:
    """The header of an .nrrd or .nhdr file.

    Raises:
        InputRefused: not NRRD (``format``), incomplete (``unreadable``), voxels that are not
            numbers (``pixel-type``), a data file that is missing (``not-found``, ``empty``) or
            outside of the header's folder (``escapes``).
    """
    raw = _beginning(path)
    if not raw.startswith(b"NRRD0"):
        raise _other(raw, "NRRD")
    text, blank, _ = _split(raw)
    lines = [line for line in text.splitlines()[1:] if line and not line.startswith("#")]
    fields: dict[str, str] = {}
    listed: list[str] = []
    for line in lines:
        key, colon, value = line.partition(":")
        if listed or not colon:
            listed.append(line.strip())
        elif not value.startswith("="):  # key:=value is free text, which may name the patient
            _enter(fields, key.strip().lower(), value.strip())
            if key.strip().lower() in _DATA_FILE and value.split()[:1] == ["LIST"]:
                listed.append("")
    kind = _required(fields, "type").lower()
    if kind not in _NRRD_BYTES:
        raise _no_numbers(kind)
    encoding = _required(fields, "encoding").lower()
    if encoding not in _CODINGS:
        raise InputRefused(
            f"the NRRD encoding {encoding[:40]!r} is not supported",
            reason="format",
            remedy="write the file again with encoding raw or gzip",
        )
    sizes = _whole(fields, "sizes")
    if len(sizes) != _whole(fields, "dimension")[0]:
        raise _damaged(f"dimension is {fields['dimension']}, sizes are {fields['sizes']}")
    name = next((fields[key] for key in _DATA_FILE if key in fields), None)
    if name is None and not blank:
        raise _damaged("the header has no end")
    skip = _whole(fields, "byte skip", "byteskip", default=0)[0]
    lines_to_skip = _whole(fields, "line skip", "lineskip", default=0)[0]
    if skip and _CODINGS[encoding] == "packed":
        raise _damaged("byte skip with compressed data is not supported")
    start = 0 if name is not None else blank
    offset = start + skip if skip >= 0 and lines_to_skip == 0 else None
    files = (path,) if name is None else _files(path, name, [n for n in listed if n])
    return TextHeader(fields, sizes, _NRRD_BYTES[kind], 1, _CODINGS[encoding], files, offset)


_DATA_FILE = ("data file", "datafile")
_CODINGS = {
    **{"raw": "raw", "gz": "packed", "gzip": "packed"},
    **{"txt": "text", "text": "text", "ascii": "text", "hex": "text"},
}


def metaimage(path: Path) -> TextHeader:
    """The header of an .mha or .mhd file. Raises the same errors as :func:`nrrd`."""
    raw = _beginning(path)
    fields: dict[str, str] = {}
    position, end = 0, None
    while position < len(raw) and end is None:
        line, newline, _ = raw[position : position + 65536].partition(b"\n")
        position += len(line) + len(newline)
        key, equals, value = (part.strip() for part in line.decode("latin-1").partition("="))
        if not equals or key == "Comment":
            continue
        _enter(fields, key, value)
        if key == "ElementDataFile":
            end = position
    if "NDims" not in fields and "DimSize" not in fields:
        raise _other(raw, "MetaImage")
    if end is None:
        raise _damaged("the header ends without ElementDataFile")
    kind = fields.get("ElementType", "")
    if kind not in _META_BYTES:
        raise _no_numbers(kind or "unknown")
    sizes = _whole(fields, "DimSize")
    if len(sizes) != _whole(fields, "NDims")[0]:
        raise _damaged(f"NDims is {fields['NDims']}, DimSize is {fields['DimSize']}")
    name = fields["ElementDataFile"]
    skip = _whole(fields, "HeaderSize", default=0)[0]
    local = name.upper() == "LOCAL"
    listed = raw[end:].decode("latin-1").split("\n") if name.upper().startswith("LIST") else []
    offset = None if skip < 0 else skip or (end if local else 0)
    coding = "packed" if _true(fields, "CompressedData") else "raw"
    if not _true(fields, "BinaryData", default="True"):
        coding = "text"
    files = (path,) if local else _files(path, name, [n.strip() for n in listed if n.strip()])
    channels = _whole(fields, "ElementNumberOfChannels", default=1)[0]
    return TextHeader(fields, sizes, _META_BYTES[kind], channels, coding, files, offset)


def numbers(text: str) -> tuple[float, ...]:
    """The numbers in a field's value, whatever separates them; empty if one is not a number."""
    try:
        return tuple(float(part) for part in re.split(r"[\s(),]+", text.strip()) if part)
    except ValueError:
        return ()


def header_bytes(path: Path) -> bytes:
    """The text of an NRRD header, including the lines ``key:=value``; empty for any other file."""
    raw = _beginning(path)
    found = re.search(rb"\r?\n\r?\n", raw)
    return raw[: None if found is None else found.start()] if raw.startswith(b"NRRD0") else b""


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_LONGEST)


def _split(raw: bytes) -> tuple[str, int, bytes]:
    """The header's text, the offset after its blank line (0 if there is none), and the rest."""
    found = re.search(rb"\r?\n\r?\n", raw)
    end = len(raw) if found is None else found.start()
    after = 0 if found is None else found.end()
    return raw[:end].decode("latin-1"), after, raw[after:]


def _enter(fields: dict[str, str], key: str, value: str) -> None:
    if fields.setdefault(key, value) != value:
        raise _damaged(f"the field {key[:40]} occurs twice with different values")


def _required(fields: dict[str, str], key: str) -> str:
    if key not in fields:
        raise _damaged(f"the field {key} is missing")
    return fields[key]


def _whole(fields: dict[str, str], *keys: str, default: int | None = None) -> tuple[int, ...]:
    """The whole numbers in the first of ``keys`` that exists."""
    key = next((k for k in keys if k in fields), None)
    if key is None and default is not None:
        return (default,)
    text = _required(fields, key or keys[0])
    try:
        found = tuple(int(part) for part in text.split())
    except ValueError:
        found = ()
    if not found or (default is None and min(found) < 1):
        raise _damaged(f"the dimensions are invalid: {key} is {text[:60]!r}")
    return found


def _true(fields: dict[str, str], key: str, default: str = "False") -> bool:
    return fields.get(key, default)[:1].upper() in ("T", "1", "Y")


def _files(header: Path, name: str, listed: list[str]) -> tuple[Path, ...]:
    """The data files, each of which must exist in the header's folder or below it."""
    names = listed
    if not name.upper().startswith("LIST"):
        # "slice%03d.raw 1 60 1": a pattern with first, last and step, in both formats.
        pattern, *span = name.rsplit(maxsplit=3) if re.search(r"%0?\d?d", name) else [name]
        names = [pattern]
        if len(span) == 3 and all(s.lstrip("-").isdigit() for s in span) and int(span[2]) > 0:
            steps = range(int(span[0]), min(int(span[1]), int(span[0]) + _MOST_FILES) + 1, int(span[2]))
            names = [pattern % n for n in steps] if pattern.count("%") == 1 else names
    if not names or len(names) > _MOST_FILES:
        raise _damaged(f"it names {len(names)} data files")
    return tuple(_inside(header, n) for n in names)


def _inside(header: Path, name: str) -> Path:
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    if posix.is_absolute() or windows.drive or windows.root or ".." in (*posix.parts, *windows.parts):
        raise InputRefused(
            f"the data file {name[:100]!r} is outside of the header's folder",
            reason="escapes",
            remedy="put both in one folder and write the bare file name into the header",
        )
    try:
        return path_checks.existing(header.parent / name)
    except InputRefused as error:
        error.problem = f"the data file {name[:100]!r}: {error.problem}"
        raise


def _other(raw: bytes, wanted: str) -> InputRefused:
    seems = unsupported_formats.name_of(raw[:540])
    return InputRefused(
        f"not in {wanted} format" + (f": it seems to be {seems}" if seems else ""),
        reason="format",
        remedy=f"check what kind of file it is; the suffix alone does not make it {wanted}",
    )


def _no_numbers(kind: str) -> InputRefused:
    return InputRefused(
        f"the voxels are of type {kind[:40]!r}, not one number each",
        reason="pixel-type",
        remedy="convert the scan to one grey value per voxel",
    )


def _damaged(problem: str) -> InputRefused:
    return InputRefused(
        f"the header is damaged: {problem}",
        reason="unreadable",
        remedy="export or download the file again",
    )
