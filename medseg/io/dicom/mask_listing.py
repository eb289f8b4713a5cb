"""The DICOM masks (SEG and RTSTRUCT) below a folder, as a table without patient data or free text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom

from medseg.errors import InputRefused
from medseg.io.dicom import part10, signature, sop_classes
from medseg.io.dicom.series_listing import Series
from medseg.system.folder_walk import walk

_TAGS = ["SOPClassUID", "ReferencedSeriesSequence", "ReferencedFrameOfReferenceSequence"]


@dataclass(frozen=True)
class DicomMask:
    """A DICOM object that holds masks of a series.

    Attributes:
        path: The file.
        kind: ``SEG`` or ``RTSTRUCT``.
        segments: Number of its segments or regions; None if they cannot be listed.
        series: UIDs of the series that it refers to.
    """

    path: Path
    kind: str
    segments: int | None
    series: tuple[str, ...]


def list_masks(path: Path) -> tuple[DicomMask, ...]:
    """The SEG and RTSTRUCT objects below a folder, in order of their paths; or the file, if it is one."""
    files = walk(path).files if path.is_dir() else (path,)
    return tuple(mask for file in files for mask in _mask(file))


def referenced_series(head: pydicom.Dataset, kind: str) -> Iterator[str]:
    """UIDs of the series that a mask of this SOP class refers to, if it names any."""
    if kind in sop_classes.SEG:
        yield from (str(item.SeriesInstanceUID) for item in head.get("ReferencedSeriesSequence") or ())
    elif kind in sop_classes.RTSTRUCT:
        for frame in head.get("ReferencedFrameOfReferenceSequence") or ():
            for study in frame.get("RTReferencedStudySequence") or ():
                for item in study.get("RTReferencedSeriesSequence") or ():
                    yield str(item.SeriesInstanceUID)


def table(masks: Sequence[DicomMask], series: Sequence[Series], folder: Path) -> tuple[str, ...]:
    """The masks as lines of a table, with the numbers of their series in the list of series."""
    rows = [("mask", "segments", "of series", "file")]
    for one in masks:
        numbers = dict.fromkeys(str(each.number) for each in series if each.uid in one.series)
        count = "unknown" if one.segments is None else str(one.segments)
        name = str(one.path.relative_to(folder) if one.path.is_relative_to(folder) else one.path)
        rows.append((one.kind, count, ", ".join(numbers) or "not here", name))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return tuple("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _mask(path: Path) -> Iterator[DicomMask]:
    try:
        if not signature.is_dicom(path):
            return
        head = part10.header(path, _TAGS)
        kind = str(head.get("SOPClassUID") or "")
        if kind not in sop_classes.MASKS:
            return
        series = tuple(dict.fromkeys(referenced_series(head, kind)))
    except Exception:  # a damaged file is reported by the reader of its folder
        return
    from medseg.io.dicom import rtstruct, seg

    is_seg = kind in sop_classes.SEG
    try:
        segments = len((seg if is_seg else rtstruct).list_segments(path))
    except InputRefused:
        segments = None
    yield DicomMask(path, "SEG" if is_seg else "RTSTRUCT", segments, series)
