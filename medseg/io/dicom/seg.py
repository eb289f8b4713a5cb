"""DICOM Segmentation (SEG, PS3.3 A.51): writing masks, and reading segments as label maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from medseg.errors import InputRefused
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.palette import label_colour, rgb
from medseg.images.volume import Mask, Source, Volume, Voxels
from medseg.io.dicom import part10
from medseg.io.dicom.coded_terms import ARTIFICIAL_INTELLIGENCE, Term, meaning, read_meaning
from medseg.io.dicom.multiframe import Frame, frame_of, pictures, placed
from medseg.io.dicom.segments import Painting, Segment, described, numbered, written_labels
from medseg.io.dicom.source_series import (
    MANUFACTURER,
    Identifiers,
    Scan,
    aligned,
    as_text,
    check_frame_of_reference,
    scanned,
)
from medseg.io.error_context import refusing
from medseg.io.output_checks import check_highdicom
from medseg.system import memory_budget
from medseg.system.own_version import own_version
from medseg.system.quiet_libraries import quiet

_HEADER_BYTES = 64 << 20


def write(mask: Mask, path: Path) -> None:
    """Writes ``mask`` as a BINARY segmentation of its DICOM series, one segment per label.

    Segments are numbered by the labels' values if these are 1, 2, ... without a gap, otherwise
    in the order of the labels; SegmentDescription holds the value. A label that contains
    others (a lung with its lesion) is written whole, so segments may overlap. Only slices
    that a segment touches are stored, or all if the mask is empty; a label without voxels is
    described but has no frames. The dates are the scan's, not the current ones.

    Raises:
        UsageError: the mask's scan is not DICOM (``no-dicom-source``), or the labels do not
            fit (``label-name``, ``labels``).
        InputRefused: the scan's files are gone, lack what a reference needs
            (``source-incomplete``), or lie on another grid than the mask (``grid-mismatch``).
        ResourceError: highdicom is missing (``missing-extra``).
    """
    check_highdicom()
    scan = scanned(mask.source)
    array = aligned(mask, scan)
    labels = _ordered(written_labels(mask))
    uids = Identifiers("SEG", array, labels, scan)
    sources, order = _sources(scan)
    pixels = _pixels(array, labels)[order]
    with _quietly(scan):
        _built(sources, pixels, labels, uids, scan).save_as(path)


def list_segments(path: Path) -> tuple[Segment, ...]:
    """The segments described in a SEG file.

    Raises:
        InputRefused: it cannot be read (``unreadable``).
    """
    with refusing(path, "DICOM SEG"), part10.quiet():
        return _segments(part10.header(path, None))


def read(path: Path, labels: Sequence[Label], reference: Volume | Mask | Grid | None = None) -> Mask:
    """The segments of a SEG file as a label map.

    Args:
        path: A BINARY or LABELMAP segmentation.
        labels: The segments to read, by name, whatever their number; all segments if empty.
        reference: The scan or grid to put the label map on; without it, the smallest grid
            that holds the stored slices.

    Raises:
        InputRefused: a fractional segmentation (``fractional-segmentation``), segments that
            overlap in a way the labels do not allow (``overlapping-segments``), a label without
            a segment (``no-such-segment``), slices off the reference's by half a voxel or more
            than 0.5 mm (``grid-mismatch``), another frame of reference (``frame-of-reference``), no
            geometry (``no-geometry``), or damage (``unreadable``, ``too-large``).
    """
    with refusing(path, "DICOM SEG"):
        with part10.quiet():
            ds = part10.header(path, None)
            _check(ds, path)
            check_frame_of_reference({str(ds.get("FrameOfReferenceUID") or "")}, reference, path)
            # Badly compressed pixels may take more space than unpacked ones, but not twice as much.
            size = int(ds.Rows) * int(ds.Columns) * int(ds.NumberOfFrames)
            memory_budget.check(
                2 * size, f"{ds.NumberOfFrames} frames of {ds.Columns} x {ds.Rows}", where=path
            )
            ds = part10.whole(path, 2 * size + _HEADER_BYTES)
            segments = _segments(ds)
            frames = [frame_of(ds, n, path) for n in range(int(ds.NumberOfFrames))]
            if ds.SegmentationType == "BINARY" and not all(frame.segment for frame in frames):
                raise _undescribed(path, 0)
        stack = placed(frames, ds, reference, path)
        memory_budget.check(6 * prod(stack.grid.shape), f"{stack.grid}", where=path)
        painting = Painting(stack.grid.shape, segments, labels, path)
        with part10.quiet():
            for frame, k, pixels in zip(frames, stack.at, pictures(ds), strict=True):
                _paint(painting, frame, k, pixels, segments)
        mask = painting.mask(stack.grid)
    if reference is None:
        return Mask(mask.array, mask.grid, mask.labels, Source(path, "dicom", "SEG"))
    target = reference if isinstance(reference, Grid) else reference.grid
    array = mask.array if stack.grid == target else mask.oriented(target.axcodes).array
    source = Source(path, "dicom", "SEG") if isinstance(reference, Grid) else reference.source
    return Mask(array, target, mask.labels, source)


# --- writing -----------------------------------------------------------------------------


def _built(
    sources: list[Dataset], pixels: Voxels, labels: Sequence[Label], uids: Identifiers, scan: Scan
) -> Any:
    """The object as made by highdicom, with the scan's patient and dates instead of the current ones."""
    import highdicom

    segmentation: Any = highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=pixels,
        segmentation_type="BINARY",
        segment_descriptions=[_description(n, label, uids) for n, label in enumerate(labels, 1)],
        series_instance_uid=uids["series"],
        series_number=scan.series_number,
        sop_instance_uid=uids["instance"],
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MANUFACTURER,
        software_versions=own_version(),
        device_serial_number="none",  # required (PS3.3 C.7.5.2); software has none
        content_label="SEGMENTATION",
        content_description="Automatic segmentation. Research use only.",
        series_description="Segmentation (medseg)",
        specific_character_set="ISO_IR 192",
    )
    for name in ("InstanceCreationDate", "InstanceCreationTime", "ContributingEquipmentSequence"):
        segmentation.pop(name, None)
    segmentation.update(scan.about())
    segmentation.ContentDate, segmentation.ContentTime = scan.date_time
    organization = uids["dimension"]
    segmentation.DimensionOrganizationSequence[0].DimensionOrganizationUID = organization
    for item in segmentation.DimensionIndexSequence:
        item.DimensionOrganizationUID = organization
    return segmentation


def _ordered(labels: Sequence[Label]) -> tuple[Label, ...]:
    by_value = sorted(labels, key=lambda label: label.value)
    gapless = [label.value for label in by_value] == list(range(1, len(labels) + 1))
    return tuple(by_value if gapless else labels)


def _pixels(array: Voxels, labels: Sequence[Label]) -> Voxels:
    """(Z, Y, X) segment numbers, or booleans (Z, Y, X, segments) where labels share values."""
    frames = array.transpose(2, 1, 0)
    values = [value for label in labels for value in label.values]
    if len(set(values)) < len(values):
        memory_budget.check(3 * len(labels) * array.size, f"{len(labels)} segments of {array.shape} voxels")
        return np.stack([np.isin(frames, label.values) for label in labels], axis=-1)
    lookup: npt.NDArray[np.uint16] = np.zeros(65536, np.uint16)
    for number, label in enumerate(labels, 1):
        lookup[list(label.values)] = number
    numbers = np.empty(frames.shape, np.uint8 if len(labels) < 256 else np.uint16)
    for k, frame in enumerate(frames):  # one by one: numpy makes 8 bytes of each index
        numbers[k] = lookup[frame]
    return numbers


def _description(number: int, label: Label, uids: Identifiers) -> Any:
    import highdicom

    what = meaning(label)
    description: Any = highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=label.name,
        segmented_property_category=_concept(what.category),
        segmented_property_type=_concept(what.type),
        algorithm_type="AUTOMATIC",
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=MANUFACTURER, version=own_version(), family=_concept(ARTIFICIAL_INTELLIGENCE)
        ),
        tracking_uid=uids[f"segment {number}"],
        tracking_id=label.name,
        display_color=highdicom.color.CIELabColor.from_rgb(*rgb(label_colour(label))),
    )
    description.SegmentDescription = described(label)
    if what.modifiers:
        kind = description.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [term.item() for term in what.modifiers]
    if what.region is not None:
        region = what.region.item()
        if what.region_modifiers:
            region.AnatomicRegionModifierSequence = [term.item() for term in what.region_modifiers]
        description.AnatomicRegionSequence = [region]
    return description


def _concept(term: Term) -> Any:
    from highdicom.sr import CodedConcept

    return CodedConcept(term.value, term.scheme, term.meaning)


def _sources(scan: Scan) -> tuple[list[Dataset], list[int]]:
    """The scan's headers as highdicom needs them, and the array's slice index for each of its frames."""
    frames = [one.frame for one in scan.slices]
    if all(frame is None for frame in frames):
        return [_source(scan, k) for k in range(len(frames))], list(range(len(frames)))
    order = sorted(range(len(frames)), key=lambda k: frames[k] or 0)
    many = _source(scan, 0)
    many.NumberOfFrames = len(frames)
    shared, groups = Dataset(), []
    shared.PlaneOrientationSequence = [_item(many, "ImageOrientationPatient")]
    shared.PixelMeasuresSequence = [_item(many, "PixelSpacing", "SliceThickness")]
    for k in order:
        group = Dataset()
        group.PlanePositionSequence = [_item(_source(scan, k), "ImagePositionPatient")]
        groups.append(group)
    many.SharedFunctionalGroupsSequence, many.PerFrameFunctionalGroupsSequence = [shared], groups
    return [many], order


def _item(ds: Dataset, *names: str) -> Dataset:
    item = Dataset()
    for name in names:
        setattr(item, name, ds.get(name))
    return item


def _source(scan: Scan, k: int) -> Dataset:
    """The attributes of a slice that highdicom needs, without the patient's, which are copied later."""
    one, ds = scan.slices[k], Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = one.sop_class, scan.uids[k]
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        setattr(ds, name, scan.header.get(name))
    for name in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"):
        setattr(ds, name, "")
    ds.StudyDate = ds.StudyTime = None
    ds.Modality, ds.Rows, ds.Columns = one.modality, one.rows, one.columns
    ds.ImagePositionPatient = [as_text(v) for v in one.position_mm or ()]
    ds.ImageOrientationPatient = [as_text(v) for v in one.cosines or ()]
    ds.PixelSpacing = [as_text(v) for v in one.spacing_mm or ()]
    ds.SliceThickness = as_text(one.depth_mm or scan.grid.spacing_mm[2])
    return ds


@contextmanager
def _quietly(scan: Scan) -> Iterator[None]:
    """A block that suppresses highdicom's warnings, which quote values, and converts its errors."""
    try:
        with quiet("highdicom", "pydicom"):
            yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputRefused(
            f"highdicom cannot refer to this scan ({type(error).__name__})",
            where=scan.slices[0].path,
            reason="source-incomplete",
            remedy="write .nii.gz, .nrrd or .mha, or --format rtstruct",
        ) from error


# --- reading -----------------------------------------------------------------------------


def _check(ds: Dataset, path: Path) -> None:
    kind = str(ds.get("SegmentationType") or "")
    if kind == "FRACTIONAL":
        raise InputRefused(
            "a FRACTIONAL segmentation holds probabilities or occupancies, not labels",
            where=path,
            reason="fractional-segmentation",
            remedy="apply a threshold and write a BINARY segmentation or a NIfTI label map",
        )
    if kind not in ("BINARY", "LABELMAP") or int(ds.get("NumberOfFrames") or 0) < 1:
        raise InputRefused(
            f"not a readable segmentation: SegmentationType {kind[:16] or 'missing'} with "
            f"{ds.get('NumberOfFrames') or 0} frames",
            where=path,
            reason="unreadable",
            remedy="export the segmentation again",
        )


def _segments(ds: Dataset) -> tuple[Segment, ...]:
    found = [
        (
            int(item.SegmentNumber),
            str(item.get("SegmentLabel") or ""),
            str(item.get("SegmentDescription") or ""),
        )
        for item in ds.SegmentSequence
    ]
    known = numbered([each for each in found if each[0] > 0])  # a label map may describe its background, 0
    meanings = {int(item.SegmentNumber): read_meaning(item) for item in ds.SegmentSequence}
    return tuple(replace(segment, meaning=meanings[segment.number]) for segment in known)


def _paint(painting: Painting, frame: Frame, k: int, pixels: Voxels, segments: Sequence[Segment]) -> None:
    known = {segment.number for segment in segments}
    numbers = [frame.segment] if frame.segment else [int(n) for n in np.unique(pixels) if n]
    for number in numbers:
        if number not in known:
            raise _undescribed(painting.path, number)
        if painting.wants(number):
            region = np.not_equal(pixels.T, 0) if frame.segment else np.equal(pixels.T, number)
            painting.add(number, (slice(None), slice(None), k), region)


def _undescribed(path: Path, number: int) -> InputRefused:
    return InputRefused(
        f"a frame belongs to segment {number}, which is not described",
        where=path,
        reason="unreadable",
        remedy="export the segmentation again",
    )
