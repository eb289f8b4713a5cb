"""The slices in a DICOM file, from the headers of the file and its frames."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medseg.errors import InputRefused
from medseg.io.dicom import part10, signature, sop_classes
from medseg.io.dicom.element_values import GEOMETRY, numbers, oddities, value, whole
from medseg.io.dicom.slice import Slice

# Only these attributes are read from a header. The patient's are kept as digests, for comparison.
_SUBJECT = {"patient": ("PatientID", "PatientName"), "study": ("StudyInstanceUID",)}
_SUBJECT |= {"frame of reference": ("FrameOfReferenceUID",)}
# Attributes that distinguish volumes at the same positions, the most specific first. Those of
# the first group are constant within a volume, so they also distinguish interleaved volumes;
# acquisition times may vary within a volume and only separate slices at the same position.
_CONSTANT = (
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "NominalPercentageOfCardiacPhase",
    "EchoNumbers",
    "EchoTime",
    "DiffusionBValue",
    "ComplexImageComponent",
    "ImageType",
    "ConvolutionKernel",
    "KVP",
    "AcquisitionNumber",
)
_VARYING = ("TriggerTime", "AcquisitionTime", "ContentTime")
_TAGS = [
    *(tag for tags in _SUBJECT.values() for tag in tags),
    *_CONSTANT,
    *_VARYING,
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "InstanceNumber",
    *GEOMETRY,
    "ModalityLUTSequence",
    "InConcatenationTotalNumber",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]
# PS3.5 6.2, UI and CS, slightly wider: anonymisers write digests, some scanners lower case.
_UID = re.compile(r"[0-9A-Za-z._-]{0,64}")
_CODE = re.compile(r"[A-Za-z0-9_ ]{0,16}")
_FRAME_GROUPS = (
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
    "FrameContentSequence",
    "MREchoSequence",
    "MRDiffusionSequence",
    "MRImageFrameTypeSequence",
    "CTImageFrameTypeSequence",
    "TemporalPositionSequence",
    "CardiacSynchronizationSequence",
)
_RENAMED = {
    "EffectiveEchoTime": "EchoTime",
    "FrameType": "ImageType",
    "NominalCardiacTriggerDelayTime": "TriggerTime",
    "FrameAcquisitionNumber": "AcquisitionNumber",
}


def constant_marks() -> tuple[str, ...]:
    """Names of the marks that are constant within a volume."""
    return _CONSTANT


def slices(path: Path) -> tuple[Slice, ...]:
    """The slices in one file: one per frame, or one for an object without frames.

    Empty for a DICOMDIR and for files that turn out not to be DICOM.

    Raises:
        InputRefused: a damaged DICOM file (``unreadable``), or frames without a description
            (``no-geometry``).
    """
    try:
        with part10.quiet():
            found = _described(path)
        problem = "no pixel data and no kind of object in its header"
    except RecursionError:
        found, problem = None, "its sequences are nested too deeply"
    except MemoryError:
        raise
    except Exception as error:
        # Only the type of the error: pydicom's messages quote values, which may be the patient's.
        found, problem = None, f"its header cannot be read ({type(error).__name__})"
    if found is not None:
        return found
    if not signature.has_preamble(path):
        return ()
    raise InputRefused(
        f"a damaged DICOM file, not an image: {problem}",
        where=path,
        remedy="export the series again, or move this file out of the folder",
        reason="unreadable",
    )


def _described(path: Path) -> tuple[Slice, ...] | None:
    """The slices in a file; None if the header is too incomplete for a whole file."""
    ds = part10.header(path, _TAGS)
    if ds.file_meta.get("MediaStorageSOPClassUID") == sop_classes.MEDIA_STORAGE_DIRECTORY:
        return ()
    one = _slice(path, ds)
    if one.rows > 0 and one.columns > 0:
        return _frames(one, ds)
    # A whole file states its class twice: a truncated UID must not make a slice look like a report.
    named = ds.file_meta.get("MediaStorageSOPClassUID", one.sop_class)
    whole = one.sop_class and one.sop_class == named and not one.kind.endswith("Image Storage")
    return (one,) if whole else None


def _slice(path: Path, ds: Any) -> Slice:
    subject = tuple(
        (name, hashlib.sha256("\0".join(str(ds.get(tag, "")) for tag in tags).encode()).hexdigest()[:16])
        for name, tags in _SUBJECT.items()
    )
    return Slice(
        path=path,
        frame=None,
        sop_class=_coded(ds, "SOPClassUID", _UID),
        series=_coded(ds, "SeriesInstanceUID", _UID),
        subject=subject,
        modality=_coded(ds, "Modality", _CODE) or "unknown",
        columns=int(ds.get("Columns") or 0),
        rows=int(ds.get("Rows") or 0),
        frames=int(ds.get("NumberOfFrames") or 1),
        samples=int(ds.get("SamplesPerPixel") or 1),
        photometric=_coded(ds, "PhotometricInterpretation", _CODE),
        image_type=_texts(ds.get("ImageType")),
        number=whole(ds, "InstanceNumber"),
        position_mm=numbers(ds, "ImagePositionPatient", 3),
        cosines=numbers(ds, "ImageOrientationPatient", 6),
        spacing_mm=numbers(ds, "PixelSpacing", 2),
        depth_mm=_depth_mm(ds),
        rescale=_rescale(ds),
        has_lut=bool(ds.get("ModalityLUTSequence")),
        marks=_marks(ds),
        parts=int(ds.get("InConcatenationTotalNumber") or 1),
        instance=str(ds.get("SOPInstanceUID") or path.as_posix()),
        oddities=oddities(ds),
    )


def _frames(one: Slice, ds: Any) -> tuple[Slice, ...]:
    """One slice per frame, from the functional groups of an enhanced object (PS3.3 C.7.6.16)."""
    per_frame = ds.get("PerFrameFunctionalGroupsSequence") or []
    shared = (ds.get("SharedFunctionalGroupsSequence") or [None])[0]
    if not one.is_image or (one.frames == 1 and not per_frame and shared is None):
        return (one,)
    if one.frames != len(per_frame) and (per_frame or one.frames > 1):
        # Kept as one slice without a position, which the reader refuses with a reason.
        return (replace(one, position_mm=None),)
    return tuple(_frame(one, index, shared, group) for index, group in enumerate(per_frame))


def _frame(one: Slice, index: int, shared: Any, own: Any) -> Slice:
    """The slice of frame ``index``; its own functional groups take precedence over shared ones."""
    values: dict[str, Any] = {}
    for name in _FRAME_GROUPS:
        for group in (own, shared):
            items = group.get(name) if group is not None else None
            if items:
                values |= {element.keyword: element.value for element in items[0]}
                break
    for name, usual in _RENAMED.items():
        if name in values:
            values[usual] = values[name]
    rescale = _rescale(values)
    return replace(
        one,
        frame=index,
        position_mm=numbers(values, "ImagePositionPatient", 3),
        cosines=numbers(values, "ImageOrientationPatient", 6),
        spacing_mm=numbers(values, "PixelSpacing", 2),
        depth_mm=_depth_mm(values),
        rescale=one.rescale if rescale == (None, None) else rescale,
        number=index + 1,
        marks=tuple((dict(one.marks) | dict(_marks(values)) | {"file": one.path.name}).items()),
    )


def _coded(ds: Any, keyword: str, allowed: re.Pattern[str]) -> str:
    """The UID or code under ``keyword``. Any other text is damage that may include later elements.

    Raises:
        ValueError: not a UID or code; the message omits the value, which may be the patient's name.
    """
    value = str(ds.get(keyword) or "").strip()
    if not allowed.fullmatch(value):
        raise ValueError(keyword)
    return value


def _marks(values: Any) -> tuple[tuple[str, str], ...]:
    found = ((name, value(values, name)) for name in (*_CONSTANT, "StackID", *_VARYING))
    return tuple((name, _mark(each)) for name, each in found if each not in (None, ""))


def _mark(found: Any) -> str:
    """The value of a mark as text for comparison: numbers written differently are equal (120 and 120.0)."""
    if isinstance(found, str | int | float) or not isinstance(found, Sequence):
        try:
            return f"{float(found):.10g}"
        except (TypeError, ValueError):
            return str(found).strip()
    return "\\".join(_mark(each) for each in found)


def _depth_mm(values: Any) -> float | None:
    depth = numbers(values, "SpacingBetweenSlices", 1) or numbers(values, "SliceThickness", 1)
    return abs(depth[0]) if depth else None


def _rescale(values: Any) -> tuple[float | None, float | None]:
    slope, intercept = (_real(values, keyword) for keyword in ("RescaleSlope", "RescaleIntercept"))
    return slope, intercept


def _real(values: Any, keyword: str) -> float | None:
    """The number of an element; None if it is absent or empty.

    Raises:
        ValueError: it is not a number.
    """
    if value(values, keyword) in (None, ""):
        return None
    found = numbers(values, keyword, 1)
    if found is None:
        raise ValueError(keyword)
    return found[0]


def _texts(value: Any) -> tuple[str, ...]:
    if not value:
        return ()
    return (value,) if isinstance(value, str) else tuple(str(v) for v in value)
