"""RT Structure Sets made without medseg, on a grid whose answers can be read off paper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from medseg.images.grid import Grid
from medseg.io.dicom import sop_classes

# Voxel (i, j, k) lies at (i, 2j, 3k) mm LPS.
PAPER = Grid((10, 8, 4), np.diag([-1.0, -2.0, 3.0, 1.0]))


def square(x0, x1, y0, y1, z=0.0):
    """Corners in mm, LPS."""
    return [(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)]


def drawn(path: Path, *rois, kind: str | Sequence[str] = "CLOSED_PLANAR", frames: Sequence[str] = ()) -> Path:
    """A structure set with ROIs ORGAN 1, ORGAN 2..., each a list of contours in mm, LPS.

    ``kind`` is the type of all contours, or of each in turn; ``frames`` are the ROIs' frames of reference.
    """
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = sop_classes.RTSTRUCT[0], "1.2.3", "RTSTRUCT"
    ds.StructureSetROISequence, ds.ROIContourSequence, ds.RTROIObservationsSequence = [], [], []
    kinds = iter([kind] * 1000 if isinstance(kind, str) else kind)
    for n, contours in enumerate(rois, 1):
        roi, item = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, item.ReferencedROINumber, item.ContourSequence = n, f"ORGAN {n}", n, []
        if frames:
            roi.ReferencedFrameOfReferenceUID = frames[n - 1]
        for points in contours:
            contour = Dataset()
            contour.ContourGeometricType, contour.NumberOfContourPoints = next(kinds), len(points)
            contour.ContourData = [f"{v:.6g}" for point in points for v in point]
            item.ContourSequence.append(contour)
        ds.StructureSetROISequence.append(roi)
        ds.ROIContourSequence.append(item)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.save_as(path, enforce_file_format=True)
    return path
