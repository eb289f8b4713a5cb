"""Files below a folder, also through links to folders, and what could not be looked at."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

DANGLING = "a link that leads nowhere"


@dataclass(frozen=True)
class Walk:
    """What :func:`walk` found.

    Attributes:
        files: Files that exist, in order of their paths, without hidden ones.
        skipped: Folders that cannot be read and links that lead nowhere, with the reason.
    """

    files: tuple[Path, ...]
    skipped: tuple[str, ...]


def walk(folder: Path) -> Walk:
    """All visible files below a folder; links to folders are followed, but no folder is entered twice."""
    files: list[Path] = []
    skipped: list[str] = []
    entered = {os.path.realpath(folder)}

    def unreadable(error: OSError) -> None:
        skipped.append(f"{error.filename} ({error.strerror})")

    for top, folders, names in os.walk(folder, followlinks=True, onerror=unreadable):
        kept = []
        for name in sorted(folders):
            place = os.path.realpath(os.path.join(top, name))  # noqa: PTH118 - top is text
            if not name.startswith(".") and place not in entered:
                entered.add(place)
                kept.append(name)
        folders[:] = kept
        for name in names:
            path = Path(top, name)
            if name.startswith("."):
                continue
            if path.is_file():
                files.append(path)
            elif path.is_symlink():
                skipped.append(f"{path} ({DANGLING})")
    return Walk(tuple(sorted(files)), tuple(sorted(skipped)))
