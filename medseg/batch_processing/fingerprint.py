"""Whether files have changed: quickly by name, size and time, or surely by their digest."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from medseg.io.dicom import signature
from medseg.io.dicom.companions import companion_folders
from medseg.io.dicomweb.address import DicomwebAddress, is_address
from medseg.io.formats import partner
from medseg.io.image_files import data_files

Listings: TypeAlias = dict[Path, list[tuple[str, os.stat_result]]]

_CHUNK_BYTES = 1 << 20
# Collisions are never made on purpose here: 64 bits tell a changed file from an unchanged one.
_DIGITS = 16


def stamp(images: Sequence[Path], listings: Listings) -> str | None:
    """Digest of the names, sizes and times of a case's files; None if one is missing.

    It covers all files below a folder, and all files beside a DICOM file, as they may belong to its series.
    The location does not count, so that a data set may be moved. A series of a DICOMweb server is known by
    its UIDs, which stand for its content.

    Args:
        images: The files and folders of the case.
        listings: A cache that the caller keeps from case to case: the content of folders with many cases.
    """
    known = hashlib.sha256()
    try:
        for number, image in enumerate(images):
            if is_address(image):
                address = DicomwebAddress.parse(image)
                known.update(f"{number}\0{address.study}\0{address.series}\n".encode())
                continue
            for name, info in sorted(_files(image, listings)):
                known.update(f"{number}\0{name}\0{info.st_size}\0{info.st_mtime_ns}\n".encode())
    except (OSError, ValueError):
        return None
    return known.hexdigest()[:_DIGITS]


def inodes(images: Sequence[Path], listings: Listings) -> str:
    """Digest of the inodes and change times of a case's files; empty if one is missing.

    Files that were exchanged for others of the same names, sizes and times differ in it. It also changes if
    files are copied or their permissions are changed: then only their content can tell.

    Args:
        images: The files and folders of the case.
        listings: A cache, see :func:`stamp`.
    """
    known = hashlib.sha256()
    try:
        for image in images:
            if is_address(image):
                continue
            for name, info in sorted(_files(image, listings)):
                known.update(f"{name}\0{info.st_ino}\0{info.st_ctime_ns}\n".encode())
    except (OSError, ValueError):
        return ""
    return known.hexdigest()[:_DIGITS]


def digest(paths: Sequence[Path]) -> str:
    """Hexadecimal SHA-256 of the contents of some files, one after the other."""
    known = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while part := file.read(_CHUNK_BYTES):
                known.update(part)
    return known.hexdigest()


def digest_of(facts: Mapping[str, Any]) -> str:
    """Digest of a JSON object."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:_DIGITS]


def _files(image: Path, listings: Listings) -> Iterator[tuple[str, os.stat_result]]:
    if image.is_dir():
        for root, folders, names in os.walk(image):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in names:
                if not name.startswith("."):
                    path = Path(root, name)
                    yield path.relative_to(image).as_posix(), path.stat()
        return
    info = image.stat()
    yield image.name, info
    if not stat.S_ISREG(info.st_mode):  # opening a pipe would block
        return
    other = partner(image)
    for path in (*data_files(image), *([] if other is None else [other])):
        yield path.name, path.stat()
    for folder in companion_folders(image) if signature.is_dicom(image) else ():
        yield from (
            (f"{folder.name}/{path.name}", path.stat()) for path in folder.iterdir() if path.is_file()
        )
    if signature.is_dicom(image):
        if image.parent not in listings:
            with os.scandir(image.parent) as entries:
                listings[image.parent] = [
                    (entry.name, entry.stat())
                    for entry in entries
                    if entry.is_file() and not entry.name.startswith(".")
                ]
        yield from listings[image.parent]
