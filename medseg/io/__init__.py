"""Reading and writing scans and masks; the only place where conventions of formats are converted.

Everything this package returns has arrays (X, Y, Z) and world coordinates in RAS+ mm. Its names are imported
when they are first used: the table of formats and the checks of paths need no reader.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medseg.system.lazy_attributes import lazy_attribute

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
    "DEFAULT_OPTIONS": "medseg.io.read_options",
    "DICOM_FORMATS": "medseg.io.formats",
    "FORMATS": "medseg.io.formats",
    "DicomFormat": "medseg.io.formats",
    "Format": "medseg.io.formats",
    "ReadOptions": "medseg.io.read_options",
    "Series": "medseg.io.dicom.series_reader",
    "check_source": "medseg.io.scans_and_masks",
    "check_writable": "medseg.io.output_checks",
    "is_dicom_mask": "medseg.io.scans_and_masks",
    "list_segments": "medseg.io.scans_and_masks",
    "list_series": "medseg.io.dicom.series_reader",
    "read": "medseg.io.scans_and_masks",
    "read_channels": "medseg.io.scans_and_masks",
    "read_mask": "medseg.io.scans_and_masks",
    "write": "medseg.io.scans_and_masks",
    "write_dicom_series": "medseg.io.dicom.series_writer",
    "write_to": "medseg.io.scans_and_masks",
}


def __getattr__(name: str) -> Any:
    return lazy_attribute(__name__, _HOME, name)
