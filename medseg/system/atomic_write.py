"""Atomic writes: a file or a folder appears complete or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from medseg.errors import MedsegError, ResourceError, UsageError, first_line

_MARK = ".medseg-"
_STALE_SECONDS = 24 * 3600.0
_swept: set[Path] = set()


@contextmanager
def replacing(path: Path, *, flush: bool = True) -> Iterator[Path]:
    """A temporary path with the same name to write to; the result replaces ``path`` at the end.

    The file is written in a hidden folder beside ``path``, so that formats of two files, whose
    header names the data file, get their final names. If the block fails, nothing remains and
    an older file at ``path`` is untouched. Only a killed process leaves its hidden folder
    behind; a later write to the same folder removes it once it is a day old.

    Args:
        path: The file to write.
        flush: Flush the data to disk before they replace ``path``.

    Raises:
        UsageError: the folder is missing (``no-folder``) or ``path`` is a folder
            (``is-folder``).
        ResourceError: writing fails (``disk``).
    """
    check_folder(path)
    folder: Path | None = None
    try:
        _sweep(path.parent)
        # The folder's name does not contain the file's, which may already have the maximum length.
        folder = Path(tempfile.mkdtemp(prefix=_MARK, dir=path.parent))
        yield folder / path.name
        # The named file comes last, so that a header never points to missing data.
        for file in sorted(folder.iterdir(), key=lambda f: f.name == path.name):
            if flush:
                _flush(file)
            file.replace(path.parent / file.name)
    except MedsegError as error:
        if folder is not None and error.where == str(folder / path.name):
            error.where = str(path)
        raise
    except (OSError, RuntimeError) as error:  # RuntimeError is what SimpleITK raises
        raise _not_written(path, error) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def replacing_folder(path: Path, *, remove: bool = False) -> Iterator[Path]:
    """A temporary folder to fill; at the end it takes the place of ``path``, complete or not at all.

    If the block fails, nothing remains and an older folder at ``path`` is untouched.

    Args:
        path: The folder to write, in an existing one.
        remove: Whether a folder at ``path`` is removed with all it holds; otherwise it must be empty.

    Raises:
        ResourceError: writing fails (``disk``).
    """
    part: Path | None = None
    try:
        part = Path(tempfile.mkdtemp(prefix=_MARK, dir=path.parent))
        yield part
        if path.is_dir():
            shutil.rmtree(path) if remove else path.rmdir()
        part.chmod(0o755)
        part.rename(path)
    except OSError as error:
        raise _not_written(path, error) from error
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)


def _not_written(path: Path, error: Exception) -> ResourceError:
    return ResourceError(
        f"cannot be written: {first_line(error)}",
        where=path,
        remedy="check permissions and free space there",
        reason="disk",
    )


def _sweep(parent: Path) -> None:
    """Removes the leftovers of killed processes from ``parent``, once per process."""
    if parent in _swept:
        return
    _swept.add(parent)
    for left in parent.glob(f"{_MARK}*"):
        with suppress(OSError):
            if left.is_dir() and time.time() - left.lstat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)


def _flush(file: Path) -> None:
    with file.open("rb+") as handle:  # Windows flushes files only through a handle that can write
        os.fsync(handle.fileno())


def check_folder(path: Path) -> None:
    """Refuses, before any work, a file that cannot be written.

    Raises:
        UsageError: the folder is missing (``no-folder``) or ``path`` is a folder (``is-folder``).
        ResourceError: there is no permission to write in the folder (``disk``).
    """
    if not path.parent.is_dir():
        raise UsageError(
            f"the folder {path.parent} does not exist",
            where=path,
            remedy="create it, or choose another place for the output",
            reason="no-folder",
        )
    if path.is_dir():
        raise UsageError("the output is a folder", where=path, remedy="add a file name", reason="is-folder")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ResourceError(
            f"there is no permission to write in {path.parent}",
            where=path,
            remedy="choose another place for the output",
            reason="disk",
        )
