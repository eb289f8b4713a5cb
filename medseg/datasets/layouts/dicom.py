"""DICOM series with segmentations (SEG) or structure sets (RTSTRUCT) anywhere below one folder.

A mask belongs to the series that it refers to (PS3.3 C.8.20.2 and C.8.8.5). Case ids and patients are
named after folders, as in downloads from TCIA. PatientID only decides which series belong to the same
person; neither it nor a digest of it is written, because a digest can be guessed by trying all values.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from medseg.datasets.layouts.case_naming import Found, ambiguous, distinct, safe
from medseg.datasets.manifest import Case
from medseg.errors import UsageError, listed
from medseg.io.dicom import part10, signature, sop_classes
from medseg.io.dicom.companions import companion_folders
from medseg.io.dicom.mask_listing import referenced_series
from medseg.system.folder_walk import walk
from medseg.system.notices import notify

_TAGS = [
    "SOPClassUID",
    "SeriesInstanceUID",
    "Modality",
    "PatientID",
    "ReferencedSeriesSequence",
    "ReferencedFrameOfReferenceSequence",
]
_SCANS = ("CT", "MR")


class _Header(NamedTuple):
    path: Path
    kind: str
    series: str
    modality: str
    person: str
    masked: frozenset[str]  # UIDs of the series this is a mask of


def matches(folder: Path) -> bool:
    """Whether there is a DICOM mask below the folder."""
    return any(header.kind in sop_classes.MASKS for header in _headers(folder))


def find(folder: Path, _: Path) -> Found:
    """Each series with the one mask (SEG or RTSTRUCT) that refers to it."""
    return _find(folder, sop_classes.MASKS)


def find_seg(folder: Path, _: Path) -> Found:
    """Each series with the one SEG that refers to it; structure sets are ignored."""
    return _find(folder, sop_classes.SEG)


def find_rtstruct(folder: Path, _: Path) -> Found:
    """Each series with the one RTSTRUCT that refers to it; segmentations are ignored."""
    return _find(folder, sop_classes.RTSTRUCT)


def _find(folder: Path, kinds: tuple[str, ...]) -> Found:
    scans: dict[str, list[Path]] = {}
    persons: dict[str, str] = {}
    masks: list[_Header] = []
    alone: list[Path] = []
    for header in _headers(folder):
        if header.kind in kinds:
            masks.append(header)
        elif header.modality in _SCANS:
            scans.setdefault(header.series, []).append(header.path)
            persons.setdefault(header.series, header.person)
        elif not header.kind:
            alone.append(header.path)
    places = {series: _place(files, scans) for series, files in scans.items()}
    labels: dict[str, list[Path]] = {}
    for mask in masks:
        own = sorted(mask.masked & scans.keys())
        if len(own) > 1:
            raise ambiguous(
                f"this mask refers to {len(own)} series, so its scan is not clear",
                mask.path,
                (places[uid] for uid in own),
            )
        if own:
            labels.setdefault(own[0], []).append(mask.path)
        else:
            alone.append(mask.path)
    paired = [series for series in scans if series in labels]
    patient_of = _patients(folder, places, persons)
    patients = [patient_of[series] for series in paired]
    cases = []
    for series, patient, name in zip(paired, patients, distinct(patients), strict=True):
        if len(labels[series]) > 1:
            raise _several(places[series], labels[series])
        cases.append(Case(id=name, patient=patient, images=(places[series],), label=labels[series][0]))
    alone += [places[series] for series in scans if series not in labels]
    return Found(tuple(sorted(cases, key=lambda case: case.id)), tuple(sorted(alone)))


def _headers(folder: Path) -> Iterator[_Header]:
    for path in walk(folder).files:
        if path.name == "DICOMDIR":
            continue
        try:
            if not signature.is_dicom(path):
                continue
            head = part10.header(path, _TAGS)
            kind = str(head.get("SOPClassUID") or "")
            series, modality, person = (
                str(head.get(tag) or "").strip() for tag in ("SeriesInstanceUID", "Modality", "PatientID")
            )
            yield _Header(path, kind, series, modality, person, frozenset(referenced_series(head, kind)))
        except Exception:  # pydicom raises anything; a damaged file is reported as having no partner
            yield _Header(path, "", "", "", "", frozenset())


def _place(files: list[Path], scans: dict[str, list[Path]]) -> Path:
    """The folder of the series if it holds no other series, else its first file, which identifies it."""
    parents = sorted({path.parent for path in files})
    common = Path(os.path.commonpath(parents))
    others = (path for other in scans.values() if other is not files for path in other)
    if len(parents) == 1:
        return files[0] if any(path.parent == common for path in others) else common
    if not any(path.is_relative_to(common) for path in others):
        return common
    near = {files[0].parent.absolute(), *companion_folders(files[0])}
    if not {each.absolute() for each in parents} <= near:
        text = (
            f"a series lies in {len(parents)} folders far apart, among other series: its case is a part of it"
        )
        notify("series-divided", text, path=common)
    return files[0]


def _patients(folder: Path, places: dict[str, Path], persons: dict[str, str]) -> dict[str, str]:
    """The patient of each series, named after the highest folder that holds no other patient's series.

    Series without a PatientID belong to the patient of their folder below the common one. If folders do
    not distinguish patients, these are numbered in order of their folders. One PatientID in several
    folders is one patient, with a warning: a tool may have written the same id for everybody, but
    splitting one person into train and test would be the worse mistake.
    """
    inside = {series: (place if place.is_dir() else place.parent) for series, place in places.items()}
    common = _common(list(inside.values()), folder)
    first = {series: _first(where, common) for series, where in inside.items()}
    groups: dict[str, list[str]] = {}
    for series in sorted(places, key=lambda one: places[one]):
        groups.setdefault(f"id {persons[series]}" if persons[series] else f"in {first[series]}", []).append(
            series
        )
    names: dict[str, str] = {}
    for number, (group, members) in enumerate(groups.items(), start=1):
        tops = {first[series] for series in members}
        others = {first[series] for series in places if series not in members}
        if len(tops) > 1:
            text = f"{listed(sorted(tops))} have the same PatientID and become one patient"
            notify("one-patient-id", text, path=common)
        if len(groups) == 1 and len(tops) > 1:  # one person, whose folder is the common one
            names[group] = safe(common.resolve().name)
        else:
            names[group] = safe(min(tops)) if not tops & others else f"patient_{number}"
    twice = Counter(name.casefold() for name in names.values())
    for number, (group, name) in enumerate(list(names.items()), start=1):
        if twice[name.casefold()] > 1:
            names[group] = f"patient_{number}"
    return {series: names[group] for group, members in groups.items() for series in members}


def _common(places: list[Path], folder: Path) -> Path:
    """The deepest folder that contains all places; the root folder if there is only one place."""
    if len(set(places)) < 2:
        return folder
    shared = folder
    for level in zip(*(place.relative_to(folder).parts[:-1] for place in places), strict=False):
        if len(set(level)) > 1:
            break
        shared = shared / level[0]
    return shared


def _first(place: Path, common: Path) -> str:
    inside = place.relative_to(common).parts
    return inside[0] if inside else common.resolve().name


def _several(place: Path, masks: list[Path]) -> UsageError:
    names = listed(f"{path.parent.name}/{path.name}" for path in sorted(masks))
    return UsageError(
        f"{len(masks)} masks refer to this series: {names}",
        where=place,
        remedy="choose one kind with --layout dicom-seg or dicom-rtstruct, or move the other masks away",
        reason="layout-ambiguous",
    )
