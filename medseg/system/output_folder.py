"""Folders for results: refused before any work if they cannot be made or written to."""

from __future__ import annotations

import os
from pathlib import Path

from medseg.errors import ResourceError, UsageError


def check_output_folder(folder: Path) -> None:
    """Refuses a folder that cannot be made or written to, without making it.

    Raises:
        UsageError: there is a file in its place, or in that of a folder above it (``no-folder``).
        ResourceError: there is no permission to write in it, or to make it (``disk``).
    """
    folder = folder.absolute()
    existing = next(each for each in (folder, *folder.parents) if os.path.lexists(each))
    if not existing.is_dir():
        raise UsageError(
            f"{existing} is not a folder",
            where=folder,
            remedy="choose another folder for the output",
            reason="no-folder",
        )
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ResourceError(
            f"there is no permission to write in {existing}",
            where=folder,
            remedy="correct the permissions, or choose another folder for the output",
            reason="disk",
        )


def make_output_folder(folder: Path) -> None:
    """Makes a folder, with those above it, unless it is there.

    Raises:
        UsageError: there is a file in its place, or in that of a folder above it (``no-folder``).
        ResourceError: it cannot be made or written to (``disk``).
    """
    check_output_folder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(
            f"the folder cannot be made: {error.strerror or error}",
            where=folder,
            remedy="correct the permissions, or choose another folder for the output",
            reason="disk",
        ) from error
