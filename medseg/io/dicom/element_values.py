"""Values of DICOM elements, also where they are not written as their value representation prescribes.

Some programs write numbers with a decimal comma, or as text of another value representation. A comma cannot
mean anything else: values are separated by backslashes (PS3.5 6.4).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement

# What pydicom raises for text that does not fit its value representation.
_INVALID = (ValueError, TypeError, ArithmeticError, AttributeError)
# Numbers that place and scale the voxels.
GEOMETRY = (
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "RescaleSlope",
    "RescaleIntercept",
)


def numbers(values: Any, keyword: str, count: int) -> tuple[float, ...] | None:
    """The finite numbers of an element; None if it is absent, empty, invalid or of another length.

    Args:
        values: A data set, or a dictionary of values by keyword.
        keyword: The element.
        count: How many numbers it must have.
    """
    found = _floats(value(values, keyword))
    return found if found is not None and len(found) == count and np.isfinite(found).all() else None


def whole(values: Any, keyword: str) -> int | None:
    """The whole number of an element; None if it is absent, empty or not a whole number."""
    found = _floats(value(values, keyword))
    return int(found[0]) if found is not None and len(found) == 1 and found[0].is_integer() else None


def value(values: Any, keyword: str) -> Any:
    """The value of an element, as text if pydicom cannot convert it; None if it is absent."""
    try:
        return values.get(keyword)
    except _INVALID:
        item = values.get_item(keyword)
        return _decoded(item.value) if isinstance(item, RawDataElement) else None


def oddities(ds: Any) -> tuple[str, ...]:
    """The elements of the geometry that are readable but not as prescribed, and a lost InstanceNumber."""
    odd = [keyword for keyword in GEOMETRY if _is_odd(ds, keyword)]
    found = [keyword for keyword in odd if _floats(value(ds, keyword)) is not None]
    if _is_odd(ds, "InstanceNumber") and whole(ds, "InstanceNumber") is None:
        found.append("InstanceNumber")
    return tuple(found)


def _is_odd(ds: Any, keyword: str) -> bool:
    """Whether a number has another value representation, or pydicom kept its text."""
    try:
        found = ds.get(keyword)
    except _INVALID:
        return True
    if found in (None, ""):
        return False
    parts = found if isinstance(found, Sequence) and not isinstance(found, str | bytes) else [found]
    is_text = any(isinstance(part, str | bytes) for part in parts)
    return is_text or bool(dictionary_VR(keyword) != ds.get_item(keyword).VR)


def _floats(found: Any) -> tuple[float, ...] | None:
    if isinstance(found, bytes):
        found = _decoded(found)
    if isinstance(found, str):
        found = found.split("\\")
    if found is None or found == [""]:
        return None
    parts = found if isinstance(found, Sequence) else (found,)
    try:
        return tuple(float(_point(part)) for part in parts)
    except _INVALID:
        return None


def _point(part: Any) -> Any:
    return part.strip().replace(",", ".") if isinstance(part, str) else part


def _decoded(found: Any) -> str:
    return found.decode("latin-1").strip(" \0") if isinstance(found, bytes) else str(found or "")
