"""DICOM RT Structure Set (PS3.3 A.19): writing masks as contours, and reading contours as label maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import ImplicitVRLittleEndian

from medseg.errors import InputRefused, MedsegError, UsageError
from medseg.images.grid import Array, Grid, flip_lps_ras
from medseg.images.label import Label
from medseg.images.palette import colour_of, rgb
from medseg.images.volume import Mask, Source, Volume, Voxels
from medseg.io.dicom import part10, series_reader, sop_classes
from medseg.io.dicom.coded_terms import ARTIFICIAL_INTELLIGENCE, meaning
from medseg.io.dicom.contours import filled, outlines
from medseg.io.dicom.segments import Painting, Segment, described, numbered, written_labels
from medseg.io.dicom.source_series import (
    MANUFACTURER,
    Identifiers,
    Scan,
    aligned,
    check_frame_of_reference,
    scanned,
)
from medseg.io.error_context import refusing
from medseg.io.read_options import ReadOptions
from medseg.system import memory_budget
from medseg.system.notices import notify

_DATA = Tag("ContourData")
# Defined terms of PS3.3 C.8.8.6.1, in their official spelling.
_AREAS = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_LINES = ("POINT", "OPEN_PLANAR", "OPEN_NONPLANAR")
# Type 1 sequences in file order; if one is missing, the file may be truncated.
_PARTS = ("StructureSetROISequence", "ROIContourSequence", "RTROIObservationsSequence")
# Planning systems round positions to 0.1 or 0.01 mm. A contour that is off its slice by more
# than a quarter of the slice distance was drawn on another scan.
_OFF_SLICE = 0.25


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
    ds.ReferencedFrameOfReferenceSequence = [_frame_of_reference(scan)]
    ds.StructureSetROISequence = [_roi(label, scan) for label in labels]
    ds.ROIContourSequence = [_contours(label, n, array, scan) for n, label in enumerate(labels)]
    ds.RTROIObservationsSequence = [_observation(label, n) for n, label in enumerate(labels, 1)]
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
    a hole. Slices without contours are not interpolated.

    Args:
        path: The file.
        labels: The ROIs to read, by name; all ROIs if empty.
        reference: The scan or grid that the contours were drawn on. Without it, the series
            they refer to is searched for in the file's folder.

    Raises:
        UsageError: no reference is given or found (``no-reference``).
        InputRefused: contours that are not on the reference's slices (``contour-off-grid``),
            are not closed planar areas (``open-contour``) or cross one another
            (``crossing-contours``), another frame of reference (``frame-of-reference``), ROIs
            that overlap in a way the labels do not allow (``overlapping-segments``), a label
            without an ROI (``no-such-segment``), or damage (``unreadable``).
    """
    with _refusing(path):
        ds = _opened(path)
        segments = _segments(ds)
        regions = [_region(item, path) for item in ds.ROIContourSequence]
        frames = _frames_of_reference(ds)
        series = _series(ds)
    _check_numbers(segments, regions, path)
    if reference is None:
        reference = _own_scan(series, path)
    grid = reference if isinstance(reference, Grid) else reference.grid
    source = Source(path, "dicom", "RTSTRUCT") if isinstance(reference, Grid) else reference.source
    check_frame_of_reference(frames, reference, path)
    memory_budget.check(4 * int(np.prod(grid.shape)), f"{grid}", where=path)
    with refusing(path, "RTSTRUCT"), np.errstate(over="ignore", invalid="ignore"):
        painting = Painting(grid.shape, segments, labels, path)
        for region in (each for each in regions if painting.wants(each.number)):
            _paint(painting, region, grid)
        empty = {each.number for each in segments if painting.wants(each.number)}
        empty -= {region.number for region in regions if region.contours}
        if empty:
            notify(
                "roi-empty",
                f"no contours in ROI {', '.join(map(str, sorted(empty)))}; assumed empty",
                path=path,
            )
        return Mask(painting.mask(grid).array, grid, painting.labels, source)


# --- writing -----------------------------------------------------------------------------


def _frame_of_reference(scan: Scan) -> Dataset:
    """ReferencedFrameOfReferenceSequence: the study, series and instances that were contoured."""
    images: dict[str, Dataset] = {}
    for one, uid in zip(scan.slices, scan.uids, strict=True):
        images.setdefault(uid, _reference(one.sop_class, uid))
    series = Dataset()
    series.SeriesInstanceUID = scan.header.SeriesInstanceUID
    series.ContourImageSequence = list(images.values())
    study = _reference(sop_classes.DETACHED_STUDY_MANAGEMENT, str(scan.header.StudyInstanceUID))
    study.RTReferencedSeriesSequence = [series]
    frame = Dataset()
    frame.FrameOfReferenceUID = scan.header.FrameOfReferenceUID
    frame.RTReferencedStudySequence = [study]
    return frame


def _reference(sop_class: str, uid: str) -> Dataset:
    ds = Dataset()
    ds.ReferencedSOPClassUID, ds.ReferencedSOPInstanceUID = sop_class, uid
    return ds


def _roi(label: Label, scan: Scan) -> Dataset:
    ds = Dataset()
    ds.ROINumber, ds.ROIName, ds.ROIDescription = label.value, label.name, described(label)
    ds.ReferencedFrameOfReferenceUID = scan.header.FrameOfReferenceUID
    ds.ROIGenerationAlgorithm = "AUTOMATIC"
    algorithm = Dataset()
    algorithm.AlgorithmName, algorithm.AlgorithmVersion = MANUFACTURER, version("medseg")
    algorithm.AlgorithmFamilyCodeSequence = [ARTIFICIAL_INTELLIGENCE.item()]
    ds.ROIDerivationAlgorithmIdentificationSequence = [algorithm]
    return ds


def _contours(label: Label, number: int, array: Voxels, scan: Scan) -> Dataset:
    ds = Dataset()
    ds.ReferencedROINumber = label.value
    ds.ROIDisplayColor = list(rgb(colour_of(number)))
    contours = []
    for k, one in enumerate(scan.slices):
        region = np.isin(array[:, :, k], label.values)
        for points in outlines(region) if region.any() else ():
            item = Dataset()
            image = _reference(one.sop_class, scan.uids[k])
            if one.frame is not None:
                image.ReferencedFrameNumber = one.frame + 1
            item.ContourImageSequence = [image]
            item.ContourGeometricType = "CLOSED_PLANAR"
            item.NumberOfContourPoints = len(points)
            # Relative to the slice's own position, which may be slightly off even spacing.
            flat = np.column_stack([points, np.zeros(len(points))])
            world = flat @ scan.grid.affine[:3, :3].T + scan.origins_mm[k]
            item[_DATA] = _decimals(flip_lps_ras(world))
            contours.append(item)
    if contours:  # type 3: an ROI without contours is an empty one
        ds.ContourSequence = contours
    return ds


def _decimals(world_mm: Array) -> RawDataElement:
    """ContourData: decimal strings with four decimals (mm), at most 16 characters each."""
    # Raw, because pydicom needs 20 microseconds to check and wrap each of a million numbers.
    text = "\\".join(f"{v:.4f}".rstrip("0").rstrip(".") for v in (world_mm + 0.0).ravel()).encode()
    text += b" " * (len(text) % 2)
    return RawDataElement(_DATA, "DS", len(text), text, 0, True, True)


def _observation(label: Label, number: int) -> Dataset:
    what = meaning(label)
    ds = Dataset()
    ds.ObservationNumber, ds.ReferencedROINumber = number, label.value
    kind = what.type.item()
    if what.modifiers:
        kind.SegmentedPropertyTypeModifierCodeSequence = [term.item() for term in what.modifiers]
    ds.SegmentedPropertyCategoryCodeSequence = [what.category.item()]
    ds.RTROIIdentificationCodeSequence = [kind]
    ds.RTROIInterpretedType, ds.ROIInterpreter = "", ""
    return ds


# --- reading -----------------------------------------------------------------------------


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
        raise _damaged(path, type(error).__name__) from error


def _damaged(path: Path, problem: str) -> InputRefused:
    return InputRefused(
        f"not a readable RTSTRUCT: {problem}",
        where=path,
        reason="unreadable",
        remedy="check that the file is complete; export the structure set again",
    )


def _opened(path: Path) -> Any:
    """The data set, checked for completeness: if a file is truncated, pydicom only warns."""
    ds: Any = part10.header(path, None)
    missing = [name for name in _PARTS if name not in ds]
    if missing:
        raise _damaged(path, f"it has no {', '.join(missing)}: another kind of object, or a truncated file")
    return ds


def _check_numbers(segments: Sequence[Segment], regions: Sequence[_Region], path: Path) -> None:
    """Refuses contours without an ROI and duplicate ROI numbers: both may be damaged numbers."""
    numbers = [segment.number for segment in segments]
    unknown = {region.number for region in regions} - set(numbers)
    if unknown or len(set(numbers)) < len(numbers):
        what = "contours belong to an undescribed ROI" if unknown else "two ROIs have the same number"
        raise _damaged(path, what)


@dataclass(frozen=True)
class _Region:
    """The contours of one ROI as (kind, points), points (n, 3) in RAS+ mm."""

    number: int
    contours: tuple[tuple[str, Array], ...]


def _segments(ds: Any) -> tuple[Segment, ...]:
    return numbered(
        [
            (int(item.ROINumber), str(item.get("ROIName") or ""), str(item.get("ROIDescription") or ""))
            for item in ds.StructureSetROISequence
        ]
    )


def _region(item: Any, path: Path) -> _Region:
    contours = []
    for contour in item.get("ContourSequence") or ():
        data = _numbers(contour)
        count = int(contour.get("NumberOfContourPoints") or data.size // 3)
        if not data.size or data.size != 3 * count or not np.isfinite(data).all():
            raise _damaged(path, f"a contour of {count} points has {data.size} numbers, or not all finite")
        contours.append((str(contour.ContourGeometricType), flip_lps_ras(data.reshape(-1, 3))))
    return _Region(int(item.ReferencedROINumber), tuple(contours))


def _frames_of_reference(ds: Any) -> set[str]:
    rois, frames = ds.StructureSetROISequence, ds.get("ReferencedFrameOfReferenceSequence") or ()
    return {str(item.get("ReferencedFrameOfReferenceUID") or "") for item in rois} | {
        str(item.get("FrameOfReferenceUID") or "") for item in frames
    }


def _numbers(contour: Any) -> Array:
    """ContourData, parsed in one go unless pydicom has already parsed it number by number."""
    raw = contour.get_item(_DATA)
    if isinstance(raw, RawDataElement) and raw.value:
        return np.array(raw.value.rstrip(b" \0").split(b"\\")).astype(np.float64)
    return np.array([float(v) for v in contour.get("ContourData") or ()])


def _series(ds: Any) -> set[str]:
    return {
        str(series.SeriesInstanceUID)
        for frame in ds.get("ReferencedFrameOfReferenceSequence") or ()
        for study in frame.get("RTReferencedStudySequence") or ()
        for series in study.get("RTReferencedSeriesSequence") or ()
    }


def _own_scan(series: set[str], path: Path) -> Volume:
    """The series that the structure set refers to, from its own folder."""
    remedy = "name its scan: --reference FOLDER, or read_mask(..., grid=scan)"
    if len(series) == 1:
        try:
            return series_reader.read(path.parent, ReadOptions(series=series.pop()))
        except InputRefused as error:
            if error.reason not in ("no-scan", "no-series"):
                raise
    raise UsageError(
        "contours need the scan they were drawn on, and its series is not in this folder",
        where=path,
        reason="no-reference",
        remedy=remedy,
    )


def _paint(painting: Painting, region: _Region, grid: Grid) -> None:
    """Fills a region's contours slice by slice by the even-odd rule."""
    for kind, _ in region.contours:
        if kind not in _AREAS:
            raise InputRefused(
                # A type that is not in the standard is free text, which may identify the patient.
                f"ROI {region.number} has a contour of type {kind if kind in _LINES else 'unknown'}, "
                "which encloses no area",
                where=painting.path,
                reason="open-contour",
                remedy="name only ROIs that are areas in the labels, or close the contour",
            )
    axis = _across([points for _, points in region.contours], grid)
    plane = [a for a in range(3) if a != axis]
    slices: dict[int, list[npt.NDArray[np.bool_]]] = {}
    for k, kind, points in _on_slices(region, grid, axis, painting.path):
        area = filled(points[:, plane], (grid.shape[plane[0]], grid.shape[plane[1]]))
        others = slices.setdefault(k, [])
        if kind == "CLOSED_PLANAR" and any(_cross(area, other) for other in others):
            raise InputRefused(
                f"contours of ROI {region.number} cross on slice {k}, so what is inside is ambiguous",
                where=painting.path,
                reason="crossing-contours",
                remedy="merge the contours in the program that drew them",
            )
        others.append(area)
    for k, areas in slices.items():
        at: list[slice | int] = [slice(None)] * 3
        at[axis] = k
        painting.add(region.number, tuple(at), np.logical_xor.reduce(areas))


def _cross(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> bool:
    """Whether two areas overlap without one containing the other."""
    both = one & other
    return bool(both.any() and (one & ~both).any() and (other & ~both).any())


def _across(contours: Sequence[Array], grid: Grid) -> int:
    """The array axis perpendicular to the contours, along which they extend least."""
    if not contours:
        return 2
    spreads = np.max([np.ptp(grid.index(points), axis=0) for points in contours], axis=0)
    return int(2 if spreads[2] <= 2 * _OFF_SLICE else spreads.argmin())


def _on_slices(region: _Region, grid: Grid, axis: int, path: Path) -> Iterator[tuple[int, str, Array]]:
    """Each contour as its slice index, kind and points (n, 3) in voxels."""
    limits = np.array(grid.shape)
    for kind, world in region.contours:
        points = grid.index(world)
        k = int(np.rint(points[:, axis].mean()))
        off = float(np.abs(points[:, axis] - k).max())
        beyond = bool((points < -1).any() or (points > limits).any() or not 0 <= k < grid.shape[axis])
        if off > _OFF_SLICE or beyond:
            problem = "extends beyond the scan" if beyond else f"is {off:.3g} slices off the nearest slice"
            raise InputRefused(
                f"a contour of ROI {region.number} {problem}: it was drawn on another scan",
                where=path,
                reason="contour-off-grid",
                remedy="pass the scan that it was drawn on",
            )
        yield k, kind, points
