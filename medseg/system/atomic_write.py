"""Writing whole files or none."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from medseg.errors import ResourceError, UsageError, first_line

_MARK = ".medseg-"
_STALE_SECONDS = 24 * 3600.0
_swept: set[Path] = set()


@contextmanager
def replacing(path: Path, *, flush: bool = True) -> Iterator[Path]:
    """A path to write to, of the same name; what was written replaces ``path`` at the end.

    The writer works in a hidden folder beside ``path``, so that a format of two files, whose
    header names its data file, finds the final names. If the block fails, nothing is left
    and an older file at ``path`` is untouched. Only a process that is killed leaves its hidden
    folder behind; the next to write there, a day later, removes it.

    Args:
        path: What is written.
        flush: Wait until the disk has it before it replaces ``path``.

    Raises:
        UsageError: the folder is missing (``no-folder``) or ``path`` is a folder
            (``is-folder``).
        ResourceError: the disk refuses (``disk``).
    """
    check_folder(path)
    folder: Path | None = None
    try:
        _sweep(path.parent)
        # Not named for the file, whose name may be as long as the disk allows.
        folder = Path(tempfile.mkdtemp(prefix=_MARK, dir=path.parent))
        yield folder / path.name
        # The named file last: a header never points to data that is not there yet.
        for file in sorted(folder.iterdir(), key=lambda f: f.name == path.name):
            if flush:
                _flush(file)
            file.replace(path.parent / file.name)
    except (OSError, RuntimeError) as error:  # RuntimeError is what SimpleITK raises
        raise ResourceError(
            f"cannot be written: {first_line(error)}",
            where=path,
            remedy="check permissions and free space there",
            reason="disk",
        ) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _sweep(parent: Path) -> None:
    """Removes what killed processes have left in ``parent``; looked for once a process."""
    if parent in _swept:
        return
    _swept.add(parent)
    for left in parent.glob(f"{_MARK}*"):
        with suppress(OSError):
            if left.is_dir() and time.time() - left.lstat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)


def _flush(file: Path) -> None:
    with file.open("rb") as handle:
        os.fsync(handle.fileno())


def check_folder(path: Path) -> None:
    """Raises UsageError when ``path`` is a folder or its own folder is missing."""
    if not path.parent.is_dir():
        raise UsageError(
            f"the folder {path.parent} does not exist",
            where=path,
            remedy="create it, or choose another place for the output",
            reason="no-folder",
        )
    if path.is_dir():
        raise UsageError("this is a folder", where=path, remedy="add a file name", reason="is-folder")
