"""The slices in a DICOM folder: every file that is one, and none passed over that should be one."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from medseg.errors import InputRefused
from medseg.io import formats
from medseg.io.dicom import part10
from medseg.io.dicom.slice_headers import Slice, slices


def scan(folder: Path, *, deep: bool = True) -> tuple[Slice, ...]:
    """The slices of every DICOM object in ``folder`` and the folders in it, by file name.

    Only regular files are opened; hidden ones and other formats are passed over, and a
    DICOMDIR too: the files themselves are the truth, and its paths may lead anywhere.

    Raises:
        InputRefused: a file is DICOM but damaged, or is named like the slices beside it and
            is none, is empty or cannot be reached (``unreadable``): passing over it could
            pass over a slice.
    """
    found: list[Path] = []
    doubtful: list[tuple[Path, str]] = []
    for path in sorted(p for p in _files(folder, deep) if p.name != "DICOMDIR"):
        problem = _trouble(path)
        if problem is None and part10.is_dicom(path):
            found.append(path)
        elif problem != "special":
            doubtful.append((path, problem or "it is not DICOM"))
    shapes = {_name_shape(path) for path in found}
    for path, problem in doubtful:
        if path.name.lower().endswith(formats.DICOM) or _name_shape(path) in shapes:
            raise InputRefused(
                f"named like a slice, but {problem}: a slice may be missing",
                where=path,
                reason="unreadable",
                remedy="export the series again, or move this file out of the folder",
            )
    return tuple(one for path in found for one in slices(path))


def _files(folder: Path, deep: bool) -> Iterator[Path]:
    def stop(error: OSError) -> None:
        raise InputRefused(
            f"a folder in it cannot be listed: {error.strerror}",
            where=error.filename,
            reason="unreadable",
            remedy="check its permissions",
        )

    for root, folders, names in os.walk(folder, onerror=stop):
        folders[:] = [name for name in folders if deep and not name.startswith(".")]
        yield from (Path(root, name) for name in names if not name.startswith("."))


def _trouble(path: Path) -> str | None:
    """Why the file cannot be opened; ``special`` for what is no file at all."""
    try:
        status = path.stat()
    except OSError:
        return "it is a link to a file that is not there"
    if not stat.S_ISREG(status.st_mode):
        return "special"
    if status.st_size == 0:
        return "it is empty"
    return None if os.access(path, os.R_OK) else "it may not be read"


def _name_shape(path: Path) -> str:
    """The name with its numbers left out; one without numbers is like no other."""
    shape = re.sub(r"\d+", "#", path.name.lower())
    return shape if "#" in shape else f"{path}"
