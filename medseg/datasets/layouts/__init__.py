"""The table of folder layouts from which a manifest can be made. To add one: a file and a row in `REGISTRY`.

Nothing is guessed silently: what has no partner is told, what could be two things is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from medseg.datasets.layouts import bids, dataset_json, dicom, image_label_pairs, lidc, totalsegmentator
from medseg.datasets.layouts.case_naming import Found
from medseg.datasets.manifest import Manifest
from medseg.errors import UsageError
from medseg.system.notices import notify

__all__ = ["REGISTRY", "Found", "Layout", "manifest_of", "named"]


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


def _never(_: Path) -> bool:
    """Of a layout that has to be named."""
    return False


# ``pairs`` is last and tried only where none of the others matches: folders of most layouts have pairs.
REGISTRY: dict[str, Layout] = {
    "dataset.json": Layout(
        "Medical Segmentation Decathlon or nnU-Net", dataset_json.matches, dataset_json.find
    ),
    "bids": Layout("BIDS: sub-*/, labels in derivatives/", bids.matches, bids.find),
    "totalsegmentator": Layout(
        "one folder a case with segmentations/<organ>", totalsegmentator.matches, totalsegmentator.find
    ),
    "lidc": Layout("LIDC-IDRI: DICOM series with the readers' XML", lidc.matches, lidc.find),
    "dicom": Layout("DICOM series with SEG or RTSTRUCT", dicom.matches, dicom.find),
    "dicom-seg": Layout("DICOM series with SEG; RTSTRUCT is passed over", _never, dicom.find_seg),
    "dicom-rtstruct": Layout("DICOM series with RTSTRUCT; SEG is passed over", _never, dicom.find_rtstruct),
    "pairs": Layout(
        "images with labels beside them or in a folder beside theirs",
        image_label_pairs.matches,
        image_label_pairs.find,
    ),
}


def manifest_of(
    folder: Path,
    layout: str | None = None,
    *,
    name: str | None = None,
    made: Path,
    organ_values: Mapping[str, int] | None = None,
) -> Manifest:
    """The manifest of a folder of scans and labels; warns of every file that has no partner.

    Args:
        folder: Of the data set.
        layout: A row of `REGISTRY`; None for the one that matches.
        name: Of the manifest; the folder's by default.
        made: Folder for label maps that have to be made: of many organs' files, or of contours in XML.
        organ_values: For TotalSegmentator, the integer of each organ; the lungs by default.

    Raises:
        UsageError: no such folder or layout (``layout``), none that matches (``layout-unknown``),
            several that match or a file that could belong to two (``layout-ambiguous``), a file that
            is listed and missing (``layout-missing``), or no case in it (``manifest-empty``).
    """
    if not folder.is_dir():
        raise UsageError("no such folder", where=folder, remedy="give the data's folder", reason="layout")
    if layout is None:
        layout = "totalsegmentator" if organ_values else _kind(folder)
    if layout not in REGISTRY:
        raise UsageError(
            f"no layout is called {layout!r}",
            where="--layout",
            remedy=f"give one of: {', '.join(REGISTRY)}",
            reason="layout",
        )
    if organ_values and layout != "totalsegmentator":
        raise UsageError(
            f"organs are chosen in layout totalsegmentator, not in {layout}",
            where="--organs",
            remedy="leave it out",
            reason="organs",
        )
    find = REGISTRY[layout].find
    found = totalsegmentator.find(folder, made, organ_values) if organ_values else find(folder, made)
    return _manifest(found, name, folder)


def named(scans: Path, labels: Path, *, name: str | None = None) -> Manifest:
    """The manifest of the images of one folder with the labels of another that have their names.

    Raises:
        UsageError: no such folder (``layout``), two files of one name (``layout-ambiguous``), or no
            case (``manifest-empty``).
    """
    return _manifest(image_label_pairs.named(scans, labels), name, scans)


def _manifest(found: Found, name: str | None, folder: Path) -> Manifest:
    for path in found.alone:
        notify("no-partner", "it has no partner, and is left out", path=path)
    return Manifest(name or folder.resolve().name, found.cases, folder, found.description)


def _kind(folder: Path) -> str:
    """The one layout that the folder looks like."""
    like = [kind for kind, row in REGISTRY.items() if kind != "pairs" and row.matches(folder)]
    if not like and REGISTRY["pairs"].matches(folder):
        like = ["pairs"]
    if len(like) != 1:
        told = (
            f"this folder could be {' or '.join(like)}"
            if like
            else "this folder is of no layout that is known"
        )
        raise UsageError(
            told,
            where=folder,
            remedy=f"name one with --layout: {', '.join(like or REGISTRY)}; or write the CSV by hand",
            reason="layout-ambiguous" if like else "layout-unknown",
        )
    return like[0]
