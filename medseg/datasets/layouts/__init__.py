"""Folder layouts from which manifests are made. To add one, write a module and a row in `REGISTRY`.

Nothing is guessed silently: files without a partner are reported, ambiguous ones are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from medseg.datasets.layouts import bids, dataset_json, dicom, image_label_pairs, lidc, totalsegmentator
from medseg.datasets.layouts.case_naming import Found
from medseg.datasets.layouts.folder_summary import summary
from medseg.datasets.layouts.near_layouts import nearest_layout
from medseg.datasets.manifest import Manifest
from medseg.errors import UsageError
from medseg.system.folder_walk import walk
from medseg.system.notices import notify

__all__ = ["REGISTRY", "Found", "Layout", "manifest_of", "named"]


@dataclass(frozen=True)
class Layout:
    """A row of the table of layouts.

    Attributes:
        title: What the layout is, and what a folder needs to have it.
        matches: Returns whether a folder has this layout.
        find: Returns the cases of a folder; the second path is the folder for created label maps.
    """

    title: str
    matches: Callable[[Path], bool]
    find: Callable[[Path, Path], Found]


def _never(_: Path) -> bool:
    """False: for layouts that have to be named explicitly."""
    return False


_EXAMPLES = 3

# ``pairs`` is tried only if no other layout matches: folders of most layouts contain pairs.
REGISTRY: dict[str, Layout] = {
    "dataset.json": Layout(
        "MSD or nnU-Net: a dataset.json beside imagesTr/ and labelsTr/",
        dataset_json.matches,
        dataset_json.find,
    ),
    "bids": Layout("BIDS: sub-*/, and labels in derivatives/", bids.matches, bids.find),
    "totalsegmentator": Layout(
        "a folder per case with ct and segmentations/<organ>",
        totalsegmentator.matches,
        totalsegmentator.find,
    ),
    "lidc": Layout("LIDC-IDRI: DICOM series with the readers' XML files", lidc.matches, lidc.find),
    "dicom": Layout("DICOM series with SEG or RTSTRUCT", dicom.matches, dicom.find),
    "dicom-seg": Layout("DICOM series with SEG, ignoring RTSTRUCT", _never, dicom.find_seg),
    "dicom-rtstruct": Layout("DICOM series with RTSTRUCT, ignoring SEG", _never, dicom.find_rtstruct),
    "pairs": Layout(
        "images/a.nii.gz with labels/a.nii.gz, a.nii.gz with a_mask.nii.gz, or a folder per case",
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
    """The manifest of a folder of scans and labels, with a warning for every file without a partner.

    Args:
        folder: Folder of the data set.
        layout: Key of `REGISTRY`; None detects the layout.
        name: Name of the manifest; by default that of the folder.
        made: Folder for label maps that have to be created from files per organ or from contours in XML.
        organ_values: For TotalSegmentator, the integer of each organ; by default those of the lungs.

    Raises:
        UsageError: the folder or layout does not exist (``layout``), no layout matches
            (``layout-unknown``), several match or a file could belong to two (``layout-ambiguous``), a
            listed file is missing (``layout-missing``), or there is no case (``manifest-empty``).
    """
    if not folder.is_dir():
        raise UsageError("no such folder", where=folder, remedy="give the data's folder", reason="layout")
    if layout is None:
        layout = "totalsegmentator" if organ_values else _kind(folder)
    if layout not in REGISTRY:
        raise UsageError(
            f"unknown layout {layout!r}",
            where="--layout",
            remedy=f"choose one of: {', '.join(REGISTRY)}",
            reason="layout",
        )
    if organ_values and layout != "totalsegmentator":
        raise UsageError(
            f"organs can be chosen in layout totalsegmentator, not in {layout}",
            where="--organs",
            remedy="remove --organs, or use --layout totalsegmentator",
            reason="organs",
        )
    find = REGISTRY[layout].find
    found = totalsegmentator.find(folder, made, organ_values) if organ_values else find(folder, made)
    skipped = walk(folder).skipped
    if skipped:
        more = f" and {len(skipped) - _EXAMPLES} more" if len(skipped) > _EXAMPLES else ""
        notify("not-searched", f"not searched: {', '.join(skipped[:_EXAMPLES])}{more}", path=folder)
    return _manifest(found, name, folder)


def named(scans: Path, labels: Path, *, name: str | None = None) -> Manifest:
    """The manifest of the images in one folder and the labels of the same names in another.

    Raises:
        UsageError: a folder does not exist (``layout``), two files have the same name
            (``layout-ambiguous``), or there is no case (``manifest-empty``).
    """
    return _manifest(image_label_pairs.named(scans, labels), name, scans)


def _manifest(found: Found, name: str | None, folder: Path) -> Manifest:
    for path in found.alone:
        notify("no-partner", "it has no partner and is left out", path=path)
    return Manifest(name or folder.resolve().name, found.cases, folder, found.description)


def _kind(folder: Path) -> str:
    """The only layout that matches the folder."""
    matching = [kind for kind, row in REGISTRY.items() if kind != "pairs" and row.matches(folder)]
    if not matching and REGISTRY["pairs"].matches(folder):
        matching = ["pairs"]
    if len(matching) != 1:
        problem = (
            f"this folder could be {' or '.join(matching)}"
            if matching
            else f"this folder does not have any known layout; it holds {summary(folder)}"
        )
        near = None if matching else nearest_layout(folder)
        choice = f"choose one with --layout: {', '.join(matching or REGISTRY)}; or write the CSV by hand"
        error = UsageError(
            problem if near is None else f"{problem}; {near.problem}",
            where=folder,
            remedy=choice if near is None else near.remedy,
            reason="layout-ambiguous" if matching else "layout-unknown",
        )
        error.details = tuple(f"{kind:17s}{REGISTRY[kind].title}" for kind in matching or REGISTRY)
        raise error
    return matching[0]
