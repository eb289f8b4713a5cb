"""The items that describe the regions of a written RTSTRUCT (PS3.3 C.8.8.5, C.8.8.6 and C.8.8.8)."""

from __future__ import annotations

import numpy as np
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from medseg.images.grid import Array, flip_lps_ras
from medseg.images.label import Label
from medseg.images.palette import label_colour, rgb
from medseg.images.volume import Voxels
from medseg.io.dicom import sop_classes
from medseg.io.dicom.coded_terms import ARTIFICIAL_INTELLIGENCE, meaning
from medseg.io.dicom.contours import outlines
from medseg.io.dicom.regions import CONTOUR_DATA
from medseg.io.dicom.segments import described
from medseg.io.dicom.source_series import MANUFACTURER, Scan
from medseg.system.own_version import own_version


def contoured_images(scan: Scan) -> Dataset:
    """The item of ReferencedFrameOfReferenceSequence: the study, series and instances that were contoured."""
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


def roi(label: Label, scan: Scan) -> Dataset:
    """The item of StructureSetROISequence: number, name and origin of a region."""
    ds = Dataset()
    ds.ROINumber, ds.ROIName, ds.ROIDescription = label.value, label.name, described(label)
    ds.ReferencedFrameOfReferenceUID = scan.header.FrameOfReferenceUID
    ds.ROIGenerationAlgorithm = "AUTOMATIC"
    algorithm = Dataset()
    algorithm.AlgorithmName, algorithm.AlgorithmVersion = MANUFACTURER, own_version()
    algorithm.AlgorithmFamilyCodeSequence = [ARTIFICIAL_INTELLIGENCE.item()]
    ds.ROIDerivationAlgorithmIdentificationSequence = [algorithm]
    return ds


def contours(label: Label, array: Voxels, scan: Scan) -> Dataset:
    """The item of ROIContourSequence: colour and contours of a region; a region without voxels has none.

    Args:
        label: The label.
        array: Label map (columns, rows, slices) of the scan.
        scan: The series that is contoured.
    """
    ds = Dataset()
    ds.ReferencedROINumber = label.value
    ds.ROIDisplayColor = list(rgb(label_colour(label)))
    items = []
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
            item[CONTOUR_DATA] = _decimals(flip_lps_ras(world))
            items.append(item)
    if items:  # type 3: an ROI without contours is an empty one
        ds.ContourSequence = items
    return ds


def _decimals(world_mm: Array) -> RawDataElement:
    """ContourData: decimal strings with four decimals (mm), at most 16 characters each."""
    # Raw, because pydicom needs 20 microseconds to check and wrap each of a million numbers.
    text = "\\".join(f"{v:.4f}".rstrip("0").rstrip(".") for v in (world_mm + 0.0).ravel()).encode()
    text += b" " * (len(text) % 2)
    return RawDataElement(CONTOUR_DATA, "DS", len(text), text, 0, True, True)


def observation(label: Label, number: int) -> Dataset:
    """The item of RTROIObservationsSequence: the coded meaning of a region, and its number from 1."""
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
