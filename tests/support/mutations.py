"""Damage by chance: bytes of a file in, other bytes out."""

from __future__ import annotations

import gzip
import io
import re
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

Files = dict[str, bytes]
Rng = np.random.Generator
EXTREME_WORDS = (0, 1, -1, 2, 7, 255, 256, 32767, -32768, 65535, 2**31 - 1, -(2**31), 2**32 - 1)
EXTREME_FLOATS = (0.0, -0.0, -1.0, 1e-38, 1e38, float("nan"), float("inf"), float("-inf"), 1e-6, 1e6)
EXTREME_TEXTS = (
    b"0", b"-1", b"1", b"2", b"99999", b"2147483648", b"-9223372036854775809", b"18446744073709551616",
    b"1e308", b"1e-308", b"nan", b"inf", b"0x10", b"", b"1 1", b"\xff\xfe", b"9" * 400, b"%s%n", b"../../x",
    b"\x1b[2J", b"1\\2\\3\\4",
)  # fmt: skip


def span(rng: Rng, size: int, longest: int) -> tuple[int, int]:
    start = int(rng.integers(max(size, 1)))
    return start, min(size, start + 1 + int(rng.integers(longest)))


def flipped(data: bytes, rng: Rng) -> bytes:
    bent = bytearray(data)
    for _ in range(1 + int(rng.integers(8))):
        # Half of the damage falls into the first kilobyte, where headers are.
        at = int(rng.integers(min(len(bent), 1024) if rng.random() < 0.5 else len(bent)))
        bent[at] ^= 1 << int(rng.integers(8))
    return bytes(bent)


def blanked(data: bytes, rng: Rng) -> bytes:
    start, stop = span(rng, len(data), 64)
    return data[:start] + bytes([0, 0xFF][int(rng.integers(2))] for _ in range(stop - start)) + data[stop:]


def truncated(data: bytes, rng: Rng) -> bytes:
    return data[: int(rng.integers(len(data)))]


def inserted(data: bytes, rng: Rng) -> bytes:
    at = int(rng.integers(len(data)))
    return data[:at] + rng.bytes(1 + int(rng.integers(64))) + data[at:]


def removed(data: bytes, rng: Rng) -> bytes:
    start, stop = span(rng, len(data), 64)
    return data[:start] + data[stop:]


def doubled(data: bytes, rng: Rng) -> bytes:
    start, stop = span(rng, len(data), 512)
    return data[:stop] + data[start:stop] * (1 + int(rng.integers(4))) + data[stop:]


def grown(data: bytes, rng: Rng) -> bytes:
    return data + bytes(int(rng.integers(1 << 20)))


def overwritten(data: bytes, rng: Rng) -> bytes:
    """A number in the header of NIfTI set to an extreme: int16, int32 or float32 at its place."""
    kind = ("<h", "<i", "<f")[int(rng.integers(3))]
    value = np.array(pick(EXTREME_FLOATS if kind == "<f" else EXTREME_WORDS, rng))
    with np.errstate(over="ignore"):
        raw = value.astype({"<h": "<i2", "<i": "<i4", "<f": "<f4"}[kind]).tobytes()
    places = range(40, 124, 2) if rng.random() < 0.6 else range(252, 348, 4)
    at = int(rng.choice(np.array(places)))
    return data[:at] + raw + data[at + len(raw) :]


def reworded(data: bytes, rng: Rng) -> bytes:
    """A number in a text header (first 4 kB) exchanged for an odd one."""
    found = list(re.finditer(rb"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?", data[:4096]))
    if not found:
        return flipped(data, rng)
    match = found[int(rng.integers(len(found)))]
    return data[: match.start()] + pick(EXTREME_TEXTS, rng) + data[match.end() :]


def reline(data: bytes, rng: Rng) -> bytes:
    """A line of a text header removed, doubled or moved."""
    lines = data[:4096].split(b"\n")
    at = int(rng.integers(len(lines)))
    line = lines.pop(at)
    for _ in range(int(rng.integers(3))):
        lines.insert(int(rng.integers(len(lines) + 1)), line)
    return b"\n".join(lines) + data[4096:]


def elements(data: bytes) -> list[tuple[int, int, int, int]]:
    """Explicit VR little endian: (start, where the length stands, its size, length) of each element."""
    found, at = [], 132
    while at + 8 <= len(data):
        vr = data[at + 4 : at + 6]
        if not vr.isalpha():
            break
        long = vr in (b"OB", b"OW", b"SQ", b"UN", b"UT", b"OF", b"OD", b"UC", b"UR")
        place, size = (at + 8, 4) if long else (at + 6, 2)
        length = int.from_bytes(data[place : place + size], "little")
        found.append((at, place, size, length))
        if length == 0xFFFFFFFF:
            break
        at = place + size + length
    return found


def relength(data: bytes, rng: Rng) -> bytes:
    """The length of a DICOM element set to an extreme, or its value to an odd text of that length."""
    found = elements(data)
    if not found:
        return flipped(data, rng)
    start, place, size, length = found[int(rng.integers(len(found)))]
    end = place + size
    if rng.random() < 0.4:
        extremes = (
            0,
            1,
            length + 1,
            max(length - 1, 0),
            length + 256,
            2 ** (8 * size) - 1,
            2 ** (8 * size) - 2,
        )
        new = int(pick(extremes, rng)) % 2 ** (8 * size)
        return data[:place] + new.to_bytes(size, "little") + data[end:]
    if rng.random() < 0.2:  # the element itself goes, or is there twice
        element = data[start : end + length]
        return data[:start] + element * int(rng.choice([0, 2])) + data[end + length :]
    value = pick(EXTREME_TEXTS, rng) if rng.random() < 0.7 else rng.bytes(int(rng.integers(1, 9)))
    value = value + b" " * (len(value) % 2)
    if length == 0xFFFFFFFF or len(value) >= 2 ** (8 * size):
        return blanked(data, rng)
    return data[:place] + len(value).to_bytes(size, "little") + value + data[end + length :]


def reheaded(data: bytes, rng: Rng) -> bytes:
    """A number in the JSON header of safetensors exchanged, the header's own length put right."""
    length = int.from_bytes(data[:8], "little")
    if not 0 < length <= len(data):
        return flipped(data, rng)
    header = data[8 : 8 + length]
    found = list(re.finditer(rb"\d+", header))
    match = pick(found, rng)
    header = header[: match.start()] + pick(EXTREME_TEXTS, rng) + header[match.end() :]
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def repickled(data: bytes, rng: Rng) -> bytes:
    """A checkpoint whose pickle is damaged while the archive around it is whole."""
    out = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
            for name in old.namelist():
                content = old.read(name)
                new.writestr(name, pick(ANY, rng)(content, rng) if name.endswith("data.pkl") else content)
    except Exception:
        return flipped(data, rng)
    return out.getvalue()


def pick(values: Any, rng: Rng) -> Any:
    return values[int(rng.integers(len(values)))]


ANY = (flipped, blanked, truncated, inserted, removed, doubled, grown)
TEXT = (reworded, reworded, reline, flipped, blanked, truncated, inserted, doubled)
DAMAGE: dict[str, tuple[Callable[[bytes, Rng], bytes], ...]] = {
    "nii": (overwritten, overwritten, overwritten, *ANY),
    "nii.gz": (overwritten, overwritten, *ANY),
    "hdr": (overwritten, overwritten, *ANY),
    "nrrd": TEXT,
    "nhdr": TEXT,
    "mha": TEXT,
    "mhd": TEXT,
    "model": (reheaded, reheaded, reheaded, reheaded, *ANY),
    "checkpoint": (repickled, repickled, repickled, *ANY),
    "recipe": TEXT,
    "manifest csv": TEXT,
    "manifest json": TEXT,
    "manifest yaml": TEXT,
}
DICOM = (relength, relength, relength, relength, *ANY)


def mutant(files: Files, kind: str, rng: Rng) -> Files:
    """Some of the files damaged, one to three times each."""
    bent = dict(files)
    names = sorted(files)
    many = len(names) > 1 and rng.random() < 0.2
    for name in names if many else [pick(names, rng)]:
        data = bent[name]
        packed = kind == "nii.gz" and rng.random() < 0.7
        data = gzip.decompress(data) if packed else data
        for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
            if data:
                data = pick(DAMAGE.get(kind, DICOM if kind.startswith("dicom") else ANY), rng)(data, rng)
        bent[name] = gzip.compress(data, mtime=0) if packed else data
    if len(names) > 1 and rng.random() < 0.15:  # parts of two files exchanged
        one, other = (pick(names, rng) for _ in range(2))
        at = int(rng.integers(1 + min(len(bent[one]), len(bent[other]))))
        bent[one], bent[other] = bent[one][:at] + bent[other][at:], bent[other][:at] + bent[one][at:]
    if len(names) > 2 and rng.random() < 0.1:
        del bent[pick(names, rng)]
    return bent
