"""DICOM series with segmentations (SEG) or structure sets (RTSTRUCT) anywhere below one folder.

A mask belongs to the series that it refers to (PS3.3 C.8.20.2 and C.8.8.5). Ids and patients are
names of folders, as TCIA's downloads have them; nothing is taken from the headers but UIDs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pydicom

from medseg.io import part10
from medseg.layouts.found import Found, ambiguous, distinct, safe
from medseg.manifest import Case

_SEG, _RTSTRUCT = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.481.3"
_TAGS = [
    "SOPClassUID",
    "SeriesInstanceUID",
    "Modality",
    "ReferencedSeriesSequence",
    "ReferencedFrameOfReferenceSequence",
]
_SCANS = ("CT", "MR")


class _Header(NamedTuple):
    path: Path
    series: str
    modality: str
    masked: str | None  # UID of the series this is a mask of; None for a scan


def matches(folder: Path) -> bool:
    """Whether there is a mask in DICOM below it."""
    return any(header.masked is not None for header in _headers(folder))


def find(folder: Path, _: Path) -> Found:
    """Each series with the one mask that refers to it."""
    scans: dict[str, list[Path]] = {}
    masks: dict[str, list[Path]] = {}
    for header in _headers(folder):
        if header.masked is not None:
            masks.setdefault(header.masked, []).append(header.path)
        elif header.modality in _SCANS:
            scans.setdefault(header.series, []).append(header.path)
    places = {series: _place(files, scans) for series, files in scans.items()}
    common = _common([path if path.is_dir() else path.parent for path in places.values()], folder)
    paired = [series for series in scans if series in masks]
    patients = [safe(_first(places[series], common)) for series in paired]
    cases = []
    for series, patient, name in zip(paired, patients, distinct(patients), strict=True):
        if len(masks[series]) > 1:
            raise ambiguous(f"{len(masks[series])} masks refer to this series", places[series], masks[series])
        cases.append(Case(id=name, patient=patient, images=(places[series],), label=masks[series][0]))
    alone = [places[series] for series in scans if series not in masks]
    alone += [path for series, files in masks.items() if series not in scans for path in files]
    return Found(tuple(sorted(cases, key=lambda case: case.id)), tuple(sorted(alone)))


def _headers(folder: Path) -> Iterator[_Header]:
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name == "DICOMDIR" or path.name.startswith("."):
            continue
        try:
            if not part10.is_dicom(path):
                continue
            head = part10.header(path, _TAGS)
            kind = str(head.get("SOPClassUID") or "")
            series, modality = (str(head.get(tag) or "") for tag in ("SeriesInstanceUID", "Modality"))
            masked = {_SEG: _of_seg, _RTSTRUCT: _of_rtstruct}.get(kind)
            yield _Header(path, series, modality, masked(head) if masked else None)
        except Exception:  # pydicom raises anything; a damaged file is no partner of any other
            continue


def _of_seg(head: pydicom.Dataset) -> str:
    return str(head.ReferencedSeriesSequence[0].SeriesInstanceUID)


def _of_rtstruct(head: pydicom.Dataset) -> str:
    study = head.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    return str(study.RTReferencedSeriesSequence[0].SeriesInstanceUID)


def _place(files: list[Path], scans: dict[str, list[Path]]) -> Path:
    """The series' folder if it is alone in it, else its first file, which names the whole series."""
    parent = files[0].parent
    shared = any(path.parent == parent for other in scans.values() if other is not files for path in other)
    return files[0] if shared or any(path.parent != parent for path in files) else parent


def _common(places: list[Path], folder: Path) -> Path:
    """The deepest folder that holds all of them, or ``folder`` for a single one."""
    if len(places) < 2:
        return folder
    parts = zip(*(place.relative_to(folder).parts for place in places), strict=False)
    same = [names[0] for names in parts if len(set(names)) == 1]
    shared = folder
    for name in same:
        deeper = shared / name
        if not all(place == deeper or deeper in place.parents for place in places):
            break
        shared = deeper
    return shared


def _first(place: Path, common: Path) -> str:
    inside = place.relative_to(common).parts
    return inside[0] if inside else common.name
