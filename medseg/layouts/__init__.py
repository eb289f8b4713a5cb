"""The table of folder layouts from which a manifest can be made. To add one: a file and a row in `KINDS`.

Nothing is guessed silently: what has no partner is told, what could be two things is refused.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from medseg.errors import InputWarning, UsageError
from medseg.layouts import bids, dataset_json, dicom, lidc, organs, pairs
from medseg.layouts.found import Found
from medseg.manifest import Manifest

__all__ = ["KINDS", "Found", "Layout", "manifest_of"]


@dataclass(frozen=True)
class Layout:
    """A row of the table.

    Attributes:
        title: What it is, in a few words.
        matches: Whether a folder looks like it.
        find: Its cases; the second path is where label maps that have to be made are written.
    """

    title: str
    matches: Callable[[Path], bool]
    find: Callable[[Path, Path], Found]


# In the order in which they are tried: the first that matches names itself by a file of its own.
KINDS: dict[str, Layout] = {
    "dataset.json": Layout(
        "Medical Segmentation Decathlon or nnU-Net", dataset_json.matches, dataset_json.find
    ),
    "bids": Layout("BIDS: sub-*/, labels in derivatives/", bids.matches, bids.find),
    "totalsegmentator": Layout("one folder a case with segmentations/<organ>", organs.matches, organs.find),
    "lidc": Layout("LIDC-IDRI: DICOM series with the readers' XML", lidc.matches, lidc.find),
    "dicom": Layout("DICOM series with SEG or RTSTRUCT", dicom.matches, dicom.find),
    "pairs": Layout("images with labels beside them or in a folder beside theirs", pairs.matches, pairs.find),
}


def manifest_of(folder: Path, layout: str | None = None, *, name: str | None = None, made: Path) -> Manifest:
    """The manifest of a folder of scans and labels; warns of every file that has no partner.

    Args:
        folder: Of the data set.
        layout: A row of `KINDS`; None for the first that matches.
        name: Of the manifest; the folder's by default.
        made: Folder for label maps that have to be made: of many organs' files, or of contours in XML.

    Raises:
        UsageError: no such folder or layout (``layout``), none that matches (``layout-unknown``), no
            case in it (``manifest-empty``), or a file that could belong to two (``layout-ambiguous``).
    """
    if not folder.is_dir():
        raise UsageError("no such folder", where=folder, remedy="give the data's folder", reason="layout")
    if layout is None:
        layout = next((kind for kind, row in KINDS.items() if row.matches(folder)), None)
        if layout is None:
            raise UsageError(
                "this folder is of no layout that is known",
                where=folder,
                remedy=f"name one with --layout: {', '.join(KINDS)}; or write the CSV by hand",
                reason="layout-unknown",
            )
    if layout not in KINDS:
        raise UsageError(
            f"no layout is called {layout!r}",
            where="--layout",
            remedy=f"give one of: {', '.join(KINDS)}",
            reason="layout",
        )
    found = KINDS[layout].find(folder, made)
    for path in found.alone:
        warnings.warn(InputWarning(f"{path}: it has no partner, and is left out"), stacklevel=2)
    return Manifest(name=name or folder.resolve().name, cases=found.cases, root=folder)
