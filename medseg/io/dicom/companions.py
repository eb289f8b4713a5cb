"""Series in several folders: media often begin a new folder (DIR000, DIR001 ...) after so many files.

Further files of a series are distinguished from copies and other phases of it by their instances and
positions, which must all be new.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from medseg.io import formats
from medseg.io.dicom import part10, signature, sop_classes
from medseg.io.dicom.discovery import scan
from medseg.io.dicom.element_values import value
from medseg.io.dicom.slice import Slice

_UNKNOWN = "unknown"


@dataclass(frozen=True)
class Identity:
    """What identifies a file of a DICOM scan. Kept in memory only, because it identifies the patient.

    Attributes:
        patient: PatientID.
        study: StudyInstanceUID.
        series: SeriesInstanceUID; ``unknown`` if it is missing.
        instance: SOPInstanceUID; the path if it is missing.
        position: ImagePositionPatient as text; empty if it is missing.
    """

    patient: str
    study: str
    series: str
    instance: str
    position: str

    @property
    def scan(self) -> tuple[str, str, str]:
        """Patient, study and series."""
        return self.patient, self.study, self.series


@dataclass(frozen=True)
class SeriesFolder:
    """The files of one series in one folder.

    Attributes:
        first: The first of them by name.
        identities: One for each file.
    """

    first: Path
    identities: frozenset[Identity]

    @property
    def series(self) -> str:
        """SeriesInstanceUID."""
        return next(iter(self.identities)).series

    def continues(self, others: Sequence[SeriesFolder]) -> bool:
        """Whether these are further files of the series in other folders, and not a copy or another phase."""
        here, there = self.identities, [each for other in others for each in other.identities]
        one_scan = len({each.scan for each in (*here, *there)}) == 1 and self.series != _UNKNOWN
        instances, positions = {each.instance for each in there}, {each.position for each in there} - {""}
        return one_scan and not any(each.instance in instances or each.position in positions for each in here)


def identity(path: Path) -> Identity | None:
    """What the file belongs to; None for a mask, a dose, a scout, a picture or any file of another format.

    Raises:
        Exception: the file is damaged; pydicom raises all kinds of errors.
    """
    if not signature.is_dicom(path):
        return None
    tags = ["PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "ImagePositionPatient"]
    head = part10.header(path, ["SOPClassUID", "Rows", "ImageType", *tags])
    if not head.get("SOPClassUID") and "Rows" not in head:
        raise ValueError("neither a SOP class nor an image")
    is_scout = "LOCALIZER" in str(head.get("ImageType") or "").upper()
    if "Rows" not in head or str(head.get("SOPClassUID")) in sop_classes.NOT_VOLUMES or is_scout:
        return None
    patient, study, series, instance, position = (str(value(head, tag) or "") for tag in tags)
    return Identity(patient, study, series or _UNKNOWN, instance or path.as_posix(), position)


def grouped(folders: Sequence[SeriesFolder]) -> list[list[SeriesFolder]]:
    """The folders of each series together, in their order; copies and phases of a series stay apart."""
    groups: dict[str, list[list[SeriesFolder]]] = {}
    for folder in folders:
        same = groups.setdefault(folder.series, [])
        home = next((group for group in same if folder.continues(group)), None)
        if home is None:
            same.append([folder])
        else:
            home.append(folder)
    return [group for same in groups.values() for group in same]


def companion_folders(path: Path) -> tuple[Path, ...]:
    """Folders with slices of the study and series of a DICOM file: beside its own, around it and in it.

    The paths are absolute.
    """
    try:
        own = identity(path)
    except Exception:  # the reader reports what is wrong with the file
        return ()
    if own is None:
        return ()
    return tuple(
        folder
        for folder in _near(path.parent)
        if own.study in _studies(str(folder), _changed(folder))
        and own.scan in _scans(str(folder), _changed(folder))
    )


def continued(path: Path, found: Sequence[Slice]) -> tuple[Slice, ...]:
    """The slices ``found`` beside a file, and those of the same series in companion folders."""
    known = {(one.series, one.subject) for one in found}
    everything = list(found)
    for folder in companion_folders(path):
        more = [one for one in scan(folder, deep=False) if (one.series, one.subject) in known]
        instances = {one.instance for one in everything}
        places = {(one.series, one.position_mm) for one in everything if one.position_mm is not None}
        if not any(one.instance in instances or (one.series, one.position_mm) in places for one in more):
            everything += more
    return tuple(everything)


def _near(folder: Path) -> Iterator[Path]:
    """The folders beside this one, the one that holds them, and those in it."""
    own = folder.absolute()
    yield from (path for path in _folders(own.parent) if path != own)
    yield own.parent
    yield from _folders(own)


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return sorted(folder / e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    except OSError:
        return []


def _changed(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=4096)
def _studies(folder: str, changed: int) -> frozenset[str]:
    """The studies of the first and the last image of a folder: enough to tell patients' folders apart."""
    files = list(_images(Path(folder)))
    ends = (next(_identities(files), None), next(_identities(files[::-1]), None))
    return frozenset(each.study for each in ends if each is not None)


@lru_cache(maxsize=4096)
def _scans(folder: str, changed: int) -> frozenset[tuple[str, str, str]]:
    return frozenset(each.scan for each in _identities(list(_images(Path(folder)))))


def _images(folder: Path) -> Iterator[Path]:
    """Files that may be DICOM, by name."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(e.name for e in entries if e.is_file() and not e.name.startswith("."))
    except OSError:
        return
    paths = (folder / name for name in names if name != "DICOMDIR")
    yield from (path for path in paths if formats.ending(path) is None)


def _identities(files: Sequence[Path]) -> Iterator[Identity]:
    for path in files:
        try:
            found = identity(path)
        except Exception:  # a damaged file is reported by whoever reads its folder
            continue
        if found is not None:
            yield found
