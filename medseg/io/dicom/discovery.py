"""Discovery of the slices in a DICOM folder, without silently skipping any."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from medseg.errors import InputRefused
from medseg.io import formats
from medseg.io.dicom import signature
from medseg.io.dicom.slice import Slice
from medseg.io.dicom.slice_headers import slices
from medseg.system.notices import notify

_EMPTY = "it is empty"


def scan(folder: Path, *, deep: bool = True) -> tuple[Slice, ...]:
    """The slices of every DICOM object in ``folder`` and its subfolders, in order of file names.

    Only regular files are opened. Hidden files and other formats are skipped, and so is a
    DICOMDIR: the files themselves count, and its paths may lead anywhere. An empty .dcm file with another
    name than the slices is skipped with a notice.

    Raises:
        InputRefused: a DICOM file is damaged, or a file named like the slices beside it is not
            DICOM, is empty or cannot be opened (``unreadable``): it may be a missing slice.
    """
    found: list[Path] = []
    doubtful: list[tuple[Path, str]] = []
    for path in sorted(p for p in _files(folder, deep) if p.name != "DICOMDIR"):
        problem = _trouble(path)
        if problem is None and signature.is_dicom(path):
            found.append(path)
        elif problem != "special":
            doubtful.append((path, problem or "it is not DICOM"))
    shapes = {_name_shape(path) for path in found}
    for path, problem in doubtful:
        if problem == _EMPTY and found and _name_shape(path) not in shapes:
            notify(
                "empty-file", "skipped a file without content, which is not named like the slices", path=path
            )
            continue
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
    """Why the file cannot be opened; ``special`` for pipes, sockets and devices; None if it can."""
    try:
        status = path.stat()
    except OSError:
        return "it is a broken link"
    if not stat.S_ISREG(status.st_mode):
        return "special"
    if status.st_size == 0:
        return _EMPTY
    return None if os.access(path, os.R_OK) else "there is no permission to read it"


def _name_shape(path: Path) -> str:
    """The name without its numbers; names without numbers stay unique."""
    shape = re.sub(r"\d+", "#", path.name.lower())
    return shape if "#" in shape else f"{path}"
