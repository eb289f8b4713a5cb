"""Reading and writing scans and masks; the only place where conventions of formats are converted.

Everything this package returns has arrays (X, Y, Z) and world coordinates in RAS+ mm. Its names are imported
when they are first used: the table of formats and the checks of paths need no reader.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medseg.io.dicom.series_reader import Series, list_series
    from medseg.io.dicom.series_writer import write_dicom_series
    from medseg.io.formats import DICOM_FORMATS, FORMATS, DicomFormat, Format
    from medseg.io.output_checks import check_writable
    from medseg.io.read_options import DEFAULT_OPTIONS, ReadOptions
    from medseg.io.scans_and_masks import (
        check_source,
        is_dicom_mask,
        list_segments,
        read,
        read_channels,
        read_mask,
        write,
        write_to,
    )

__all__ = [
    "DEFAULT_OPTIONS",
    "DICOM_FORMATS",
    "FORMATS",
    "DicomFormat",
    "Format",
    "ReadOptions",
    "Series",
    "check_source",
    "check_writable",
    "is_dicom_mask",
    "list_segments",
    "list_series",
    "read",
    "read_channels",
    "read_mask",
    "write",
    "write_dicom_series",
    "write_to",
]

_HOME = {
    "DEFAULT_OPTIONS": "read_options",
    "DICOM_FORMATS": "formats",
    "FORMATS": "formats",
    "DicomFormat": "formats",
    "Format": "formats",
    "ReadOptions": "read_options",
    "Series": "dicom.series_reader",
    "check_source": "scans_and_masks",
    "check_writable": "output_checks",
    "is_dicom_mask": "scans_and_masks",
    "list_segments": "scans_and_masks",
    "list_series": "dicom.series_reader",
    "read": "scans_and_masks",
    "read_channels": "scans_and_masks",
    "read_mask": "scans_and_masks",
    "write": "scans_and_masks",
    "write_dicom_series": "dicom.series_writer",
    "write_to": "scans_and_masks",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'medseg.io' has no attribute {name!r}")
    value = getattr(import_module(f"medseg.io.{_HOME[name]}"), name)
    globals()[name] = value
    return value
