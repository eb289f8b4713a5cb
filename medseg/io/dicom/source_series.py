"""The DICOM scan of a mask: slices, patient and study, as new objects must refer to them."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pydicom.valuerep import DSfloat

from medseg.errors import InputRefused, UsageError
from medseg.images.grid import Array, Grid, flip_lps_ras
from medseg.images.label import Label
from medseg.images.volume import Mask, Source, Volume, Voxels
from medseg.io.dicom import part10
from medseg.io.dicom.slice import Slice
from medseg.io.dicom.slice_headers import slices
from medseg.io.dicom.stacking import stack
from medseg.system.notices import collect_notices
from medseg.system.own_version import own_version

MANUFACTURER = "medseg"
# Attributes copied from the Patient, General Study and Patient Study modules (PS3.3 C.7.1.1,
# C.7.2.1, C.7.2.2). Missing type 2 attributes are written empty. Nothing else is copied.
_TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
)
_TYPE_3 = (
    "IssuerOfPatientID",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "StudyDescription",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
)
_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID", "SOPClassUID")
_TIMES = ("Series", "Acquisition", "Content", "Study")
_TAGS = [
    *_TYPE_2,
    *_TYPE_3,
    *_NEEDED,
    *(f"{name}{part}" for name in _TIMES for part in ("Date", "Time")),
    "SpecificCharacterSet",
    "SeriesNumber",
    "Modality",
    "PositionReferenceIndicator",
]


@dataclass(frozen=True)
class Scan:
    """A DICOM scan that other objects refer to.

    Attributes:
        slices: The slices in the order of the third array axis.
        grid: Their grid.
        header: Header of the first slice: patient, study, series, frame of reference.
        uids: SOPInstanceUID of each slice's file.
    """

    slices: tuple[Slice, ...]
    grid: Grid
    header: Dataset
    uids: tuple[str, ...]

    @property
    def origins_mm(self) -> Array:
        """Position of the first pixel of each slice by its own header: (Z, 3), RAS+ mm."""
        return flip_lps_ras([one.position_mm or () for one in self.slices])

    @property
    def date_time(self) -> tuple[str, str]:
        """Date and time of the scan as DA and TM, as far as known.

        Derived objects carry them instead of the current time, so that equal masks give equal
        bytes.
        """
        for name in _TIMES:
            date = str(self.header.get(f"{name}Date") or "")
            if date:
                return date, str(self.header.get(f"{name}Time") or "") or "000000"
        return "19000101", "000000"

    def subject(self) -> Dataset:
        """The scan's patient and study attributes."""
        ds = Dataset()
        for name in _TYPE_2:
            setattr(ds, name, copy.deepcopy(self.header.get(name)) or "")
        for name in _TYPE_3:
            if self.header.get(name):
                setattr(ds, name, copy.deepcopy(self.header.get(name)))
        ds.StudyInstanceUID = self.header.StudyInstanceUID
        return ds

    def about(self) -> Dataset:
        """The attributes of every derived object: subject, equipment, frame of reference."""
        ds = self.subject()
        ds.SpecificCharacterSet = "ISO_IR 192"
        ds.Manufacturer = ds.ManufacturerModelName = MANUFACTURER
        ds.SoftwareVersions = own_version()
        ds.FrameOfReferenceUID = self.header.FrameOfReferenceUID
        ds.PositionReferenceIndicator = self.header.get("PositionReferenceIndicator") or ""
        ds.SeriesNumber = self.series_number
        ds.InstanceNumber = 1
        return ds

    @property
    def series_number(self) -> int:
        """The number of a derived series: the scan's plus 1000."""
        number = self.header.get("SeriesNumber")
        return 1000 + (int(number) if number is not None and 0 <= int(number) < 1 << 20 else 0)


def check_source(source: Source) -> None:
    """Refuses a source without DICOM slices to refer to; call it before long work.

    Raises:
        UsageError: not from DICOM (``no-dicom-source``).
    """
    if source.format != "dicom" or not source.files:
        raise UsageError(
            f"the mask's scan is {source.format}, not a DICOM series: there is nothing to refer to",
            where=source.path,
            reason="no-dicom-source",
            remedy="segment the DICOM series itself, or write .nii.gz, .nrrd or .mha; "
            "medseg convert --as-mask --reference gives a mask its series",
        )


def scanned(source: Source) -> Scan:
    """The scan that a volume or mask was read from.

    Raises:
        UsageError: not from DICOM (``no-dicom-source``).
        InputRefused: its files are gone (``not-found``) or cannot be read, or lack what a
            reference needs (``source-incomplete``).
    """
    check_source(source)
    found: list[Slice] = []
    uids: dict[Path, str] = {}
    try:
        for path in source.files:
            found += slices(path)
            uids[path] = str(part10.header(path, ["SOPInstanceUID"]).get("SOPInstanceUID") or "")
        with collect_notices():  # they were issued when the scan was read
            ordered, grid = stack(found)
        with part10.quiet():
            header: Any = part10.header(source.files[0], _TAGS)
            header.decode()
    except FileNotFoundError as error:
        raise InputRefused(
            "a slice of the mask's scan no longer exists",
            where=error.filename,
            reason="not-found",
            remedy="keep the DICOM series where it was read until the mask is written",
        ) from error
    absent = [name for name in _NEEDED if not header.get(name)] + ["SOPInstanceUID"] * (
        not all(uids.values())
    )
    if absent or ordered[0].tiles:
        missing = ", ".join(dict.fromkeys(absent)) or "separate slices: it is a mosaic"
        raise InputRefused(
            f"the scan has no {missing}, so an object that refers to it cannot be written",
            where=source.files[0],
            reason="source-incomplete",
            remedy="write .nii.gz, .nrrd or .mha, or export the scan again with its identifiers",
        )
    return Scan(ordered, grid, header, tuple(uids[one.path] for one in ordered))


def aligned(mask: Mask, scan: Scan) -> Voxels:
    """The mask's array with the scan's axes: (columns, rows, slices).

    Raises:
        InputRefused: the mask is not on the scan's grid (``grid-mismatch``).
    """
    for moved in (mask, mask.oriented(scan.grid.axcodes)):
        if moved.grid.same_as(scan.grid):
            return moved.array
    raise InputRefused(
        f"the mask is not on the grid of its scan: {moved.grid.mismatch(scan.grid)}",
        where=mask.source.path,
        reason="grid-mismatch",
        remedy="resample the mask to the scan's grid first",
    )


class Identifiers:
    """UIDs derived from the content: equal masks of equal scans get equal UIDs."""

    def __init__(self, kind: str, array: Voxels, labels: Sequence[Label], scan: Scan) -> None:
        total = hashlib.sha256(np.ascontiguousarray(array.T).tobytes())
        total.update(repr([(label.name, label.values, label.side) for label in labels]).encode())
        total.update(repr((kind, own_version(), array.dtype.str, array.shape, scan.uids)).encode())
        self._digest = total.hexdigest()

    def __getitem__(self, name: str) -> str:
        return str(generate_uid(entropy_srcs=[self._digest, name]))


def frame_of_reference(reference: Volume | Mask | Grid | None) -> str:
    """The FrameOfReferenceUID of a DICOM scan; empty if unknown, as other formats have none."""
    source = Source() if reference is None or isinstance(reference, Grid) else reference.source
    if source.format != "dicom" or not source.files:
        return ""
    return str(part10.header(source.files[0], ["FrameOfReferenceUID"]).get("FrameOfReferenceUID") or "")


def check_frame_of_reference(found: set[str], reference: Volume | Mask | Grid | None, path: Path) -> None:
    """Refuses an object whose frames of reference are not the DICOM scan's; other formats have none.

    Raises:
        InputRefused: another frame of reference (``frame-of-reference``).
    """
    wanted = frame_of_reference(reference)
    if wanted and found - {"", wanted}:
        raise other_frame("the object", path)


def other_frame(what: str, path: Path) -> InputRefused:
    """The refusal of something with another frame of reference than the scan."""
    return InputRefused(
        f"{what} has another frame of reference than the scan, so their positions do not correspond",
        where=path,
        reason="frame-of-reference",
        remedy="pass the scan it was drawn on; if they differ, register and resample first",
    )


def as_text(number: float) -> str:
    """A decimal string (DS) of at most 16 characters."""
    return str(DSfloat(float(number), auto_format=True))
