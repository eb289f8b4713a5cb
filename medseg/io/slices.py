"""DICOM slices by their headers: what lies in a folder, and where each slice lies in the patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.uid import UID

from medseg.errors import InputRefused
from medseg.grid import Array, Grid

# Only these are read from a header, so that no patient data passes through memory or messages.
_TAGS = [
    "SOPClassUID",
    "SeriesInstanceUID",
    "Modality",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "ImageType",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
]
_DICOMDIR = "1.2.840.10008.1.3.10"
# Objects with rows and columns that are results about a scan: SEG, label map SEG, RT Dose.
_DERIVED = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7", "1.2.840.10008.5.1.4.1.1.481.2")
# Two slices belong to one stack when their cosines agree to 1e-4: 0.03 mm at 300 mm. Scanners
# write 6 digits and more; a localizer in the same series differs in the first.
_SAME_COSINE = 1e-4
# highdicom's default for a regular stack (DEFAULT_SPACING_RELATIVE_TOLERANCE = 1e-2), and not
# less than 0.01 mm because positions are often written with two decimals.
_SPACING_TOLERANCE = 0.01
_POSITION_TOLERANCE_MM = 0.01
_SAME_POSITION_MM = 0.001
# How far a stack may drift sideways before it counts as tilted: as for NIfTI forms.
_DRIFT_MM = 0.1
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Slice:
    """One DICOM file: the part of its header that says what and where it is.

    Attributes:
        path: The file.
        sop_class: SOPClassUID: the kind of object.
        series: SeriesInstanceUID.
        modality: Such as ``CT``, ``MR``, ``SEG``.
        columns: Pixels along a row.
        rows: Pixels along a column.
        frames: NumberOfFrames, 1 when absent.
        samples: SamplesPerPixel, 1 when absent.
        image_type: ImageType, such as ``("ORIGINAL", "PRIMARY", "AXIAL")``.
        position_mm: ImagePositionPatient in LPS, or None.
        cosines: ImageOrientationPatient in LPS, or None.
        spacing_mm: PixelSpacing, (between rows, between columns), or None.
        depth_mm: SpacingBetweenSlices, else SliceThickness, else None.
    """

    path: Path
    sop_class: str
    series: str
    modality: str
    columns: int
    rows: int
    frames: int
    samples: int
    image_type: tuple[str, ...]
    position_mm: tuple[float, ...] | None
    cosines: tuple[float, ...] | None
    spacing_mm: tuple[float, ...] | None
    depth_mm: float | None

    @property
    def is_image(self) -> bool:
        """Whether it is a scan: it has pixels and is not a segmentation or a dose."""
        return self.rows > 0 and self.columns > 0 and self.sop_class not in _DERIVED

    @property
    def kind(self) -> str:
        """The name of its SOP class, such as ``RT Structure Set Storage``."""
        return str(UID(self.sop_class).name)

    def stacks_with(self, other: Slice) -> bool:
        """Whether both can be slices of one volume: same series, modality, size and orientation."""
        same = (self.series, self.modality, self.rows, self.columns) == (
            other.series,
            other.modality,
            other.rows,
            other.columns,
        )
        return (
            same
            and _near(self.cosines, other.cosines, _SAME_COSINE)
            and _near(self.spacing_mm, other.spacing_mm, _SAME_COSINE)
        )


def is_dicom(path: Path) -> bool:
    """Whether the file's first bytes are DICOM's, with or without the preamble of part 10."""
    # Bare data sets, as stored before part 10 of the standard or sent over the network, start
    # with group 0002 or 0008 and an element that comes first there (pydicom: force=True).
    with path.open("rb") as file:
        head = file.read(4)
    bare = head[:2] in (b"\x02\x00", b"\x08\x00") and head[2:] in (b"\x00\x00", b"\x05\x00", b"\x08\x00")
    return bare or _has_preamble(path)


def scan(folder: Path) -> tuple[Slice, ...]:
    """Every DICOM object directly in ``folder``, by file name; other files are passed over."""
    files = sorted(f for f in folder.iterdir() if f.is_file() and f.name != "DICOMDIR")
    found = (header(f) for f in files if is_dicom(f))
    return tuple(s for s in found if s is not None)


def header(path: Path) -> Slice | None:
    """The slice's header, or None when the file turns out to be no DICOM object.

    Raises:
        InputRefused: it is DICOM but damaged (``unreadable``). Passing over a damaged file
            could pass over a slice.
    """
    problem = "its header ends too early"
    try:
        ds = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=_TAGS)
        if ds.file_meta.get("MediaStorageSOPClassUID") == _DICOMDIR:
            return None
        if "SOPClassUID" in ds and "SeriesInstanceUID" in ds:
            one = _slice(path, ds)
            if one.rows > 0 or not one.kind.endswith("Image Storage"):
                return one
    except Exception as error:
        # Only the kind of the complaint: pydicom quotes values, which may be the patient's.
        problem = f"its header cannot be read ({type(error).__name__})"
    if not _has_preamble(path):
        return None
    raise InputRefused(
        f"a damaged DICOM file: {problem}",
        where=path,
        remedy="export the series again, or move this file out of the folder",
        reason="unreadable",
    )


def stack(slices: Sequence[Slice]) -> tuple[tuple[Slice, ...], Grid]:
    """The slices of one series in their order along the normal, and the grid they form.

    The first array axis runs along a row of pixels, the second down a column, the third
    along the normal (row x column, DICOM PS3.3 C.7.6.2.1.1), as ITK orders them. The third
    spacing is measured from the positions; the nominal one is used for a single slice only.

    Raises:
        InputRefused: no geometry in the headers (``no-geometry``), two slices at one
            position (``duplicate-slices``), uneven distances (``missing-slices``), a sheared
            stack (``tilted``).
    """
    first = slices[0]
    located = [s.position_mm for s in slices if s.position_mm is not None]
    if first.cosines is None or first.spacing_mm is None or len(located) < len(slices):
        raise InputRefused(
            "position, orientation or pixel spacing is missing in the headers",
            reason="no-geometry",
            remedy="only scans with patient geometry can be segmented, not photographs of them",
        )
    row, column = np.reshape(first.cosines, (2, 3))
    normal = np.cross(row, column)
    if abs(np.linalg.norm(normal) - 1) > 1e-3 or abs(row @ column) > 1e-3:
        raise InputRefused(
            f"ImageOrientationPatient {list(first.cosines)} is not a pair of perpendicular unit vectors",
            reason="no-geometry",
            remedy="export the series again from the scanner or archive",
        )
    positions: Array = np.array(located)
    order = np.argsort(positions @ normal, kind="stable")
    ordered, positions = tuple(slices[i] for i in order), positions[order]
    depths: Array = positions @ normal
    step_mm = _step_mm(ordered, depths)
    drift = positions - positions[0] - np.outer(depths - depths[0], normal)
    worst = float(np.linalg.norm(drift, axis=1).max())
    if worst > _DRIFT_MM:
        raise InputRefused(
            f"the slices are shifted sideways by up to {worst:.4g} mm: a tilted gantry or a sheared stack",
            reason="tilted",
            remedy="resample it to a straight volume, for example with dcm2niix, and pass that",
        )
    affine = np.eye(4)
    between_rows, between_columns = first.spacing_mm
    affine[:3, 0], affine[:3, 1] = row * between_columns, column * between_rows
    affine[:3, 2], affine[:3, 3] = normal * step_mm, positions[0]
    return ordered, Grid((first.columns, first.rows, len(ordered)), _LPS_TO_RAS @ affine)


def _step_mm(ordered: Sequence[Slice], depths: Array) -> float:
    """The distance between slices, when it is the same everywhere."""
    if len(depths) == 1:
        depth = ordered[0].depth_mm
        if not depth or depth < 0:
            raise InputRefused(
                "a single slice without SliceThickness or SpacingBetweenSlices",
                reason="no-geometry",
                remedy="pass the whole series",
            )
        return depth
    gaps = np.diff(depths)
    closest, widest = int(gaps.argmin()), int(gaps.argmax())
    if gaps[closest] < _SAME_POSITION_MM:
        raise InputRefused(
            f"{int((gaps < _SAME_POSITION_MM).sum())} position(s) hold more than one slice, first "
            f"{_at(ordered[closest])}: {ordered[closest].path.name} and {ordered[closest + 1].path.name}",
            reason="duplicate-slices",
            remedy="keep one phase, echo or copy in the folder",
        )
    step = float((depths[-1] - depths[0]) / (len(depths) - 1))
    off = np.abs(depths - depths[0] - step * np.arange(len(depths)))
    if off.max() > max(_SPACING_TOLERANCE * step, _POSITION_TOLERANCE_MM):
        raise InputRefused(
            f"the slices are unevenly spaced: usually {np.median(gaps):.4g} mm apart, but from "
            f"{gaps[closest]:.4g} to {gaps[widest]:.4g} mm, the widest between {_at(ordered[widest])} "
            f"and {_at(ordered[widest + 1])}",
            reason="missing-slices",
            remedy="export the missing slices, or resample the series to even spacing",
        )
    return step


def _has_preamble(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _slice(path: Path, ds: Any) -> Slice:
    depth = _numbers(ds, "SpacingBetweenSlices", 1) or _numbers(ds, "SliceThickness", 1)
    kinds = ds.get("ImageType") or ()
    return Slice(
        path=path,
        sop_class=str(ds.SOPClassUID),
        series=str(ds.SeriesInstanceUID),
        modality=str(ds.get("Modality") or "unknown"),
        columns=int(ds.get("Columns") or 0),
        rows=int(ds.get("Rows") or 0),
        frames=int(ds.get("NumberOfFrames") or 1),
        samples=int(ds.get("SamplesPerPixel") or 1),
        image_type=(kinds,) if isinstance(kinds, str) else tuple(str(k) for k in kinds),
        position_mm=_numbers(ds, "ImagePositionPatient", 3),
        cosines=_numbers(ds, "ImageOrientationPatient", 6),
        spacing_mm=_numbers(ds, "PixelSpacing", 2),
        depth_mm=abs(depth[0]) if depth else None,
    )


def _numbers(ds: Any, keyword: str, count: int) -> tuple[float, ...] | None:
    """The finite numbers of an element, or None when it is absent, empty or of another length."""
    value = ds.get(keyword)
    if value is None or value == "":
        return None
    values = tuple(float(v) for v in (value if count > 1 else (value,)))
    return values if len(values) == count and np.isfinite(values).all() else None


def _near(a: tuple[float, ...] | None, b: tuple[float, ...] | None, tolerance: float) -> bool:
    if a is None or b is None:
        return a is b
    return max(abs(x - y) for x, y in zip(a, b, strict=True)) <= tolerance


def _at(one: Slice) -> str:
    return f"({', '.join(f'{p:.5g}' for p in one.position_mm or ())})"
