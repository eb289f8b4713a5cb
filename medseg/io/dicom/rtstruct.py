"""DICOM RT Structure Set (PS3.3 A.19): writing masks as contours, and reading contours as label maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian

from medseg.errors import InputRefused, MedsegError, UsageError
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.volume import Mask, Source, Volume
from medseg.io.dicom import part10, series_reader, sop_classes
from medseg.io.dicom.regions import Region, damaged, voxels_inside
from medseg.io.dicom.roi_items import contoured_images, contours, observation, roi
from medseg.io.dicom.segments import Painting, Segment, numbered, written_labels
from medseg.io.dicom.source_series import (
    Identifiers,
    aligned,
    frame_of_reference,
    other_frame,
    scanned,
)
from medseg.io.error_context import refusing
from medseg.io.read_options import ReadOptions
from medseg.system import memory_budget
from medseg.system.notices import notify

# Type 1 sequences in file order; if one is missing, the file may be truncated.
_OBSERVATIONS = "RTROIObservationsSequence"
_PARTS = ("StructureSetROISequence", "ROIContourSequence", _OBSERVATIONS)
# Reasons to leave out a region that was not asked for by name.
_UNSOUND = ("open-contour", "contour-off-grid", "crossing-contours", "frame-of-reference", "unreadable")


def write(mask: Mask, path: Path) -> None:
    """Writes ``mask`` as contours on the slices of its DICOM series, one ROI per label.

    Contours run halfway between inside and outside voxels, and filling them reproduces the
    mask. Holes are connected by keyholes (PS3.3 C.8.8.6.3), which every reader of
    CLOSED_PLANAR contours understands. ROINumber is the label's value; a label without
    voxels is an ROI without contours. The dates are the scan's, not the current ones.

    Raises:
        UsageError: the mask's scan is not DICOM (``no-dicom-source``), or a label name does
            not fit (``label-name``).
        InputRefused: the scan's files are gone, lack identifiers (``source-incomplete``), or
            lie on another grid than the mask (``grid-mismatch``).
    """
    scan = scanned(mask.source)
    array = aligned(mask, scan)
    labels = written_labels(mask)
    uids = Identifiers("RTSTRUCT", array, labels, scan)
    ds = scan.about()
    ds.SOPClassUID, ds.SOPInstanceUID = sop_classes.RT_STRUCTURE_SET, uids["instance"]
    ds.SeriesInstanceUID, ds.Modality = uids["series"], "RTSTRUCT"
    ds.SeriesDescription = "Segmentation (medseg)"
    ds.OperatorsName = ""
    ds.StructureSetLabel = "SEGMENTATION"
    ds.StructureSetDescription = "Automatic segmentation. Research use only."
    ds.StructureSetDate, ds.StructureSetTime = scan.date_time
    ds.ApprovalStatus = "UNAPPROVED"
    ds.ReferencedFrameOfReferenceSequence = [contoured_images(scan)]
    ds.StructureSetROISequence = [roi(label, scan) for label in labels]
    ds.ROIContourSequence = [contours(label, array, scan) for label in labels]
    ds.RTROIObservationsSequence = [observation(label, n) for n, label in enumerate(labels, 1)]
    ds.file_meta = FileMetaDataset()
    # Implicit VR: with explicit 16-bit lengths a contour could hold at most 65,534 characters.
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    ds.save_as(path, enforce_file_format=True)


def list_segments(path: Path) -> tuple[Segment, ...]:
    """The regions (ROIs) named in an RTSTRUCT file.

    Raises:
        InputRefused: it cannot be read (``unreadable``).
    """
    with _refusing(path):
        return _segments(_opened(path))


def read(path: Path, labels: Sequence[Label], reference: Volume | Mask | Grid | None = None) -> Mask:
    """The contours of an RTSTRUCT file as a label map of the voxels whose centre is inside.

    Contours of one ROI on one slice are combined by the even-odd rule: one inside another is
    a hole. Slices without contours are not interpolated. Contours that enclose no area, such as points, and
    parts outside of the scan are left out with a notice.

    Args:
        path: The file.
        labels: The ROIs to read, by name. If empty, all ROIs; those that cannot be read are left out with a
            notice, unless none remains.
        reference: The scan or grid that the contours were drawn on. Without it, the series
            they refer to is searched for in the file's folder.

    Raises:
        UsageError: no reference is given or found (``no-reference``).
        InputRefused: an ROI with contours between the reference's slices or outside of it alone
            (``contour-off-grid``), without closed planar areas (``open-contour``) or with contours that cross
            one another (``crossing-contours``), or of another frame of reference (``frame-of-reference``);
            ROIs that overlap in a way the labels do not allow (``overlapping-segments``), a label
            without an ROI (``no-such-segment``), or damage of the file or of an ROI (``unreadable``).
    """
    with _refusing(path):
        ds = _opened(path)
        segments = _segments(ds)
        items = _items(ds, segments, path)
        frames = _frames(ds)
        series = _series(ds, set(frames.values()))
    if reference is None:
        reference = _own_scan(series, path)
    grid = reference if isinstance(reference, Grid) else reference.grid
    source = Source(path, "dicom", "RTSTRUCT") if isinstance(reference, Grid) else reference.source
    memory_budget.check(4 * int(np.prod(grid.shape)), f"{grid}", where=path)
    painting = Painting(grid.shape, segments, labels, path)
    wanted = [segment.number for segment in segments if painting.wants(segment.number)]
    frame = frame_of_reference(reference) or _only_frame([frames[n] for n in wanted if n in items], path)
    unsound: dict[int, InputRefused] = {}
    empty = []
    with refusing(path, "RTSTRUCT"):  # outside of the loop: an unexpected error is no fault of one region
        for number in wanted:
            try:
                if not _paint(painting, number, items.get(number), (frames[number], frame), grid):
                    empty.append(number)
            except InputRefused as error:
                if labels or error.reason not in _UNSOUND:
                    raise
                unsound[number] = error
    if unsound and len(unsound) + len(empty) == len(wanted):
        raise next(iter(unsound.values()))
    _notify(empty, unsound, path)
    painting.leave_out(unsound)
    with refusing(path, "RTSTRUCT"):
        mask = painting.mask(grid)
        return Mask(mask.array, grid, mask.labels, source)


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Like `refusing`, but only the type of an error is kept, because pydicom quotes values of the file."""
    try:
        with part10.quiet():
            yield
    except (MedsegError, MemoryError):
        raise
    except OSError:
        with refusing(path, "RTSTRUCT"):
            raise
    except Exception as error:
        raise damaged(path, type(error).__name__) from error


def _opened(path: Path) -> Any:
    """The data set, checked for completeness, because pydicom only warns if a file is truncated."""
    ds: Any = part10.header(path, None)
    missing = [name for name in _PARTS if name not in ds]
    if missing == [_OBSERVATIONS] and _is_whole(ds.get_item("ROIContourSequence")):
        notify(
            "no-observations",
            f"it has no {_OBSERVATIONS}, which the standard requires; its contours are complete",
            path=path,
        )
    elif missing:
        raise damaged(path, f"it has no {', '.join(missing)}: another kind of object, or a truncated file")
    return ds


def _is_whole(sequence: Any) -> bool:
    """Whether a sequence has not been cut off: pydicom has all of the bytes that its length announces."""
    if isinstance(sequence, RawDataElement):
        return bool(len(sequence.value or b"") == sequence.length)
    return bool(len(sequence.value))  # of undefined length: read up to its delimiter


def _segments(ds: Any) -> tuple[Segment, ...]:
    return numbered(
        [
            (int(item.ROINumber), str(item.get("ROIName") or ""), str(item.get("ROIDescription") or ""))
            for item in ds.StructureSetROISequence
        ]
    )


def _items(ds: Any, segments: Sequence[Segment], path: Path) -> dict[int, Any]:
    """The item of ROIContourSequence of each ROI that has one.

    Raises:
        InputRefused: contours without an ROI or numbers that occur twice: both may be damaged numbers.
    """
    numbers = [segment.number for segment in segments]
    found = [(int(item.ReferencedROINumber), item) for item in ds.ROIContourSequence]
    items = dict(found)
    if not items.keys() <= set(numbers):
        raise damaged(path, "contours belong to an undescribed ROI")
    if len(set(numbers)) < len(numbers) or len(items) < len(found):
        raise damaged(path, "two ROIs have the same number")
    return items


def _frames(ds: Any) -> dict[int, str]:
    """The frame of reference of each ROI; empty if unknown."""
    listed = [str(item.get("FrameOfReferenceUID") or "") for item in _listed(ds)]
    only = listed[0] if len(set(listed)) == 1 else ""
    return {
        int(item.ROINumber): str(item.get("ReferencedFrameOfReferenceUID") or only)
        for item in ds.StructureSetROISequence
    }


def _listed(ds: Any) -> Sequence[Any]:
    return ds.get("ReferencedFrameOfReferenceSequence") or ()


def _series(ds: Any, frames: set[str]) -> list[str]:
    """The series that the ROIs refer to: those of their frames of reference."""
    found = [
        str(series.SeriesInstanceUID)
        for item in _listed(ds)
        if "" in frames or str(item.get("FrameOfReferenceUID") or "") in {"", *frames}
        for study in item.get("RTReferencedStudySequence") or ()
        for series in study.get("RTReferencedSeriesSequence") or ()
    ]
    return list(dict.fromkeys(found))


def _own_scan(series: Sequence[str], path: Path) -> Volume:
    """The series that the structure set refers to, from its own folder."""
    found = []
    for uid in series:
        try:
            found.append(series_reader.read(path.parent, ReadOptions(series=uid)))
        except InputRefused as error:
            if error.reason not in ("no-scan", "no-series"):
                raise
    if len(found) == 1:
        return found[0]
    problem = "its series is not in this folder" if not found else "several of its series are in this folder"
    raise UsageError(
        f"contours need the scan they were drawn on, and {problem}",
        where=path,
        reason="no-reference",
        remedy="name its scan: --reference FOLDER, or read_mask(..., grid=scan)",
    )


def _only_frame(frames: Sequence[str], path: Path) -> str:
    """The frame of reference of all regions, for a scan without one.

    Raises:
        InputRefused: there are several, so that some belong to another scan (``frame-of-reference``).
    """
    known = set(frames) - {""}
    if len(known) > 1:
        raise InputRefused(
            f"the ROIs have {len(known)} frames of reference, and it is unknown which of them is the scan's",
            where=path,
            reason="frame-of-reference",
            remedy="pass the DICOM series they were drawn on, or name only ROIs of one scan in the labels",
        )
    return next(iter(known), "")


def _paint(painting: Painting, number: int, item: Any, frames: tuple[str, str], grid: Grid) -> bool:
    """Paints a region, or refuses it without having painted any of it; False if it has no contours."""
    try:
        with _refusing(painting.path):
            region = Region(number, (), 0) if item is None else Region.from_item(item, painting.path)
    except InputRefused as error:
        error.problem = f"ROI {number}: {error.problem}"
        raise
    if not region.contours:
        return False
    own, scans = frames
    if own and scans and own != scans:
        raise other_frame(f"ROI {number}", painting.path)
    with np.errstate(over="ignore", invalid="ignore"):
        areas = voxels_inside(region, grid, painting.path)
        for k, area in areas.slices.items():
            at: list[slice | int] = [slice(None)] * 3
            at[areas.axis] = k
            painting.add(number, tuple(at), area)
    return True


def _notify(empty: Sequence[int], unsound: dict[int, InputRefused], path: Path) -> None:
    if empty:
        numbers = ", ".join(map(str, sorted(empty)))
        notify("roi-empty", f"no contours in ROI {numbers}; assumed empty", path=path)
    if unsound:
        problems = [error.problem for error in unsound.values()]
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        notify(
            "roi-left-out",
            f"left out {len(problems)} ROI(s): {'; '.join(problems[:3])}{more}",
            path=path,
            remedy="check them where they were drawn, or name the ROIs to read in the labels",
        )
