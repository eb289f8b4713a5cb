"""Checks of paths before anything opens them: reading a pipe would block, a device may never end."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

from medseg.errors import InputRefused

_SPECIAL: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
)

_ADDRESS = re.compile(r"^([a-z][a-z0-9+]{1,13}):/{1,2}(?=[^/])", re.IGNORECASE)
_SECRET = re.compile(r"(?<=://).*@|[?#].*")


def existing(path: str | Path) -> Path:
    """``path``, if it is a readable folder or a readable file with content.

    Raises:
        InputRefused: nothing there or a broken link (``not-found``), no permission
            (``permission``), neither file nor folder (``not-a-file``), or an empty file (``empty``).
    """
    path = Path(path)
    try:
        info = path.stat()
    except PermissionError as error:
        raise _forbidden(path) from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise _missing(path, error) from error
    if stat.S_ISDIR(info.st_mode):
        if not os.access(path, os.R_OK | os.X_OK):
            raise _forbidden(path)
        return path
    if not stat.S_ISREG(info.st_mode):
        kind = next((name for is_kind, name in _SPECIAL if is_kind(info.st_mode)), "a special file")
        raise InputRefused(
            f"this is {kind}, not a file or folder",
            where=path,
            remedy="write the scan to a file first",
            reason="not-a-file",
        )
    if info.st_size == 0:
        raise InputRefused(
            "the file is empty", where=path, remedy="copy or download it again", reason="empty"
        )
    if not os.access(path, os.R_OK):
        raise _forbidden(path)
    return path


def head(path: Path) -> bytes:
    """The first 540 bytes of a file, or all of a shorter one."""
    with path.open("rb") as file:
        return file.read(540)


def _missing(path: Path, error: OSError | ValueError) -> InputRefused:
    problem = "no such file or folder"
    address = _ADDRESS.sub(r"\1://", str(path))  # a Path has lost one slash
    if "://" in address:
        return InputRefused(
            "this is an address, and only segment and batch take addresses, of DICOMweb servers",
            where=_SECRET.sub("…", address),
            remedy="download it first, and give the path of the file",
            reason="not-found",
        )
    try:
        target = path.readlink() if path.is_symlink() else None
    except (OSError, ValueError):  # for example a name that is too long
        target = None
    if target is not None:
        problem = f"a link to {target}, which does not exist"
    elif not isinstance(error, FileNotFoundError | NotADirectoryError):
        cause = error.strerror if isinstance(error, OSError) else str(error)
        problem = f"{problem}: {cause or type(error).__name__}"
    shown = str(path).replace("\0", "\\0")
    return InputRefused(problem, where=shown, remedy="check the path", reason="not-found")


def _forbidden(path: Path) -> InputRefused:
    return InputRefused(
        "no permission to read this",
        where=path,
        remedy="ask its owner for read permission, or copy it as a user who has it",
        reason="permission",
    )
